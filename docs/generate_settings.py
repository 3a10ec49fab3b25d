"""Write ``docs/settings.md`` from the tables of settings."""

from __future__ import annotations

from pathlib import Path

from om_plugins.features import shipped, tables
from om_plugins.settings.reference import as_markdown

PAGE = Path(__file__).parent / "settings.md"

if __name__ == "__main__":
    PAGE.write_text(as_markdown(tables(shipped())), encoding="utf-8")
