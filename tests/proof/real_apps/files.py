"""WhiteNoise around the app: files with their headers, and a page that loads them."""

from __future__ import annotations

import atexit
import gzip
import shutil
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING

from flask import Flask, render_template_string
from whitenoise import WhiteNoise

if TYPE_CHECKING:
    from collections.abc import Callable

PAGES = ("/", "/docs/")
FILES = (
    "/assets/app.js",
    "/assets/style.css",
    "/assets/picture.svg",
    "/assets/data.json",
    "/assets/worker.js",
    "/docs/",
    "/docs/index.html",
    "/assets/none.js",
    "/more/late.css",
)
SETTINGS = {}
RISK = "none"

CONTENT = {
    "more/late.css": "#worker { color: rgb(7, 8, 9) }",
    "root/assets/app.js": """import { text } from "./part.js";
document.getElementById("module").textContent = text;
const data = await (await fetch("/assets/data.json")).json();
document.getElementById("data").textContent = data.text;
new Worker("/assets/worker.js").onmessage = ({ data }) => {
  document.getElementById("worker").textContent = data;
};
""",
    "root/assets/part.js": 'export const text = "module";\n',
    "root/assets/worker.js": 'postMessage("worker");\n',
    "root/assets/style.css": '@import "base.css"; #module { color: rgb(1, 2, 3) }\n',
    "root/assets/base.css": "#data { color: rgb(4, 5, 6) }\n",
    "root/assets/data.json": '{"text": "data"}',
    "root/assets/picture.svg": '<svg xmlns="http://www.w3.org/2000/svg" width="7" height="7"/>',
    "root/docs/index.html": '<!doctype html><title>Docs</title><link rel="stylesheet" '
    'href="/assets/style.css"><p id="module">docs',
}
PAGE = """<!doctype html><title>Files</title>
<link rel="stylesheet" href="/assets/style.css"><link rel="stylesheet" href="/more/late.css">
<p id="module"></p><p id="data"></p><p id="worker"></p><img src="/assets/picture.svg">
<script type="module" src="/assets/app.js"></script>"""


@cache
def write_files() -> Path:
    folder = Path(mkdtemp())
    atexit.register(shutil.rmtree, folder)
    for name, text in CONTENT.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    script = folder / "root/assets/app.js"
    script.with_name("app.js.gz").write_bytes(gzip.compress(script.read_bytes(), mtime=0))
    return folder


def build(app: Flask, add_line: Callable[[], object], *, line_first: bool) -> None:
    folder = write_files()
    if line_first:
        add_line()
    app.wsgi_app = WhiteNoise(app.wsgi_app, root=folder / "root", index_file=True, max_age=60)
    if not line_first:
        add_line()
    app.wsgi_app.add_files(str(folder / "more"), prefix="more/")  # as WhiteNoise's guide writes it

    @app.get("/")
    def index():
        return render_template_string(PAGE)


def visit(tab, url):
    """What the page makes of its files."""
    tab.goto(url)
    seen = {}
    for part in ("module", "data", "worker"):
        shown = tab.locator(f"#{part}")
        shown.get_by_text(part).or_(tab.locator(f"#{part}:has-text('{part}')")).first.wait_for()
        seen[part] = (shown.inner_text(), shown.evaluate("e => getComputedStyle(e).color"))
    seen["picture"] = tab.locator("img").evaluate("e => [e.complete, e.naturalWidth]")
    tab.goto(f"{url}/docs/")
    seen["docs"] = tab.locator("#module").evaluate("e => getComputedStyle(e).color")
    return seen
