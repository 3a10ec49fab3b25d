"""Every module of the package can be the first one that is imported."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import om_plugins

# The parent has imported nothing but what the interpreter brings. Each child imports one module, so
# that no module finds what another one has imported before it.
SCRIPT = """
import importlib, os, sys, traceback

def begin(name):
    child = os.fork()
    if child:
        return child
    try:
        importlib.import_module(name)
    except BaseException:
        text = f"{name} cannot be imported first:\\n{traceback.format_exc()}"
        os.write(2, text.encode())
        os._exit(1)
    os._exit(0)

failed, running = False, 0
for name in sys.stdin.read().split():
    begin(name)
    running += 1
    if running == 2:
        failed |= os.wait()[1] != 0
        running -= 1
while running:
    failed |= os.wait()[1] != 0
    running -= 1
sys.exit(failed)
"""  # one write for each error, for two children write to one pipe


def import_each(folder, package):
    """Import each module of a package first, in a process of its own; the errors as text."""
    names = [
        ".".join([package, *path.relative_to(folder).with_suffix("").parts])
        for path in sorted(folder.rglob("*.py"))
    ]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        input="\n".join(name.removesuffix(".__init__") for name in names),
        cwd=folder.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in (0, 1), done.stderr
    return done.stderr


def test_each_module_can_be_imported_first():
    assert import_each(Path(om_plugins.__file__).parent, "om_plugins") == ""


def test_a_module_that_needs_another_one_first_is_found(tmp_path):
    folder = tmp_path / "shop"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "a.py").write_text("A = 1\nfrom .b import B")
    (folder / "b.py").write_text("from .a import A\nB = A")
    assert import_each(folder, "shop").startswith("shop.b cannot be imported first:")


def test_an_app_with_the_line_imports_nothing_that_only_some_apps_need():
    code = """
import sys
from flask import Flask

def ask(app):
    app.testing = True
    app.test_client().get("/")

ask(Flask("bare"))
before = set(sys.modules)
from om_plugins import OpenManager

app = Flask("app")
OpenManager(app)
ask(app)
unwanted = {"asyncio", "concurrent.futures", "ctypes", "ssl", "zoneinfo"}
print(*sorted(unwanted & sys.modules.keys() - before))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
