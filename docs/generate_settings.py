"""Write ``settings.md`` and ``om_plugins/settings/keywords.py`` from the tables of settings."""

from __future__ import annotations

from pathlib import Path

from om_plugins.settings.reference import as_keywords, as_markdown

ROOT = Path(__file__).parents[1]
KEYWORDS = ROOT / "om_plugins" / "settings" / "keywords.py"

if __name__ == "__main__":
    # the decorators need the keywords, even those of an older version, before this can run
    from om_plugins.features import keyword_tables, shipped, tables

    KEYWORDS.write_text(as_keywords(keyword_tables()), encoding="utf-8")
    (ROOT / "docs" / "settings.md").write_text(as_markdown(tables(shipped())), encoding="utf-8")
