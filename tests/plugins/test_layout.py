"""The distribution that the page on plugins shows can be built with its tests beside it."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[2] / "docs" / "plugins.md").read_text("utf-8")


@pytest.mark.parametrize(
    "beside",
    [
        (),
        ("test_wiki.py",),
        ("conftest.py", "test_wiki.py"),
        ("tests/test_wiki.py",),
        ("setup_database.py", "docs/conf.py"),
        ("om_plugins_other.py",),
    ],
)
def test_the_layout_of_the_page_is_built_whatever_lies_beside_it(tmp_path, beside):
    (pyproject,) = re.findall(r"```toml\n(# pyproject.toml\n.*?)```", PAGE, re.DOTALL)
    (tmp_path / "pyproject.toml").write_text(pyproject, "utf-8")
    for name in ("om_plugins_wiki.py", *beside):
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        file.write_text("def test(): pass\n", "utf-8")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", "out"],
        cwd=tmp_path, check=True, capture_output=True,
    )  # fmt: skip
    (wheel,) = (tmp_path / "out").iterdir()
    names = zipfile.ZipFile(wheel).namelist()
    assert [name for name in names if not name.startswith("om_plugins_wiki-")] == [
        "om_plugins_wiki.py"
    ]
    entry_points = zipfile.ZipFile(wheel).read("om_plugins_wiki-1.0.dist-info/entry_points.txt")
    assert b"[om_plugins]\nwiki = om_plugins_wiki" in entry_points
