"""Write ``settings.md`` and ``om_plugins/settings/signatures.py`` from the tables of settings."""

from __future__ import annotations

from pathlib import Path

from om_plugins.chains.options import ChainPolicy
from om_plugins.fallback.options import FallbackOptions
from om_plugins.features import shipped, tables
from om_plugins.settings.reference import as_keywords, as_markdown

ROOT = Path(__file__).parents[1]

TABLES = tables(shipped())
KEYWORDS = {
    "SettingsKeywords": TABLES,
    "ChainChanges": [ChainPolicy],
    "FallbackKeywords": [FallbackOptions],
}
FILES = {
    ROOT / "docs" / "settings.md": as_markdown(TABLES),
    ROOT / "om_plugins" / "settings" / "signatures.py": as_keywords(KEYWORDS),
}

if __name__ == "__main__":
    for path, text in FILES.items():
        path.write_text(text, encoding="utf-8")
