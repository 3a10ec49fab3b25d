"""Mode adopt stops nothing: Chromium shows the same with and without the line.

Each page of constructs (:mod:`tests.proof.adopt.pages`) is opened on the bare site, on the one with
the line, and on one whose every page asks for reports. That the pages would show a difference is
proved with sites on which one header is enforced alone.
"""

from __future__ import annotations

import random
import re
import time
from urllib.parse import quote

import pytest
from flask import Flask, render_template, render_template_string, stream_template
from jinja2 import DictLoader, TemplateError

from om_plugins import OpenManager
from tests.proof.adopt.pages import PAGES
from tests.proof.adopt.site import FILES, Served, make_app, make_other
from tests.proof.adopt.templates import CONTEXT, OPTIONS, build_files

pytestmark = [pytest.mark.proof, pytest.mark.browser]

SITES = {
    "bare": None,
    "default": {"OM_CSP_REPORT_SAMPLE": 0},
    "reporting": {"OM_CSP_REPORT_SAMPLE": 1},
}
PATIENCE_S = 20
STOPPED_S = 1
AFTER_REFUSAL_S = 0.3
"""A page whose construct is stopped may never say anything; nobody waits longer for it, and not
long once the console says that something was refused."""
REFUSAL = re.compile("content security policy|refused|blocked", re.IGNORECASE)


@pytest.fixture(scope="module")
def other():
    served = Served(make_other(), "localhost")
    yield served.url
    served.close()


@pytest.fixture(scope="module")
def apps(other):
    made = {}
    for name, config in SITES.items():
        made[name] = app = make_app(OTHER=other, **config or {})
        if config is not None:
            OpenManager(app)
    return made


@pytest.fixture(scope="module")
def sites(apps):
    served = {name: Served(app, "127.0.0.1") for name, app in apps.items()}
    yield {name: one.url for name, one in served.items()}
    for one in served.values():
        one.close()


@pytest.fixture(scope="module")
def tabs(browser, sites):
    """A tab for each site, in a profile of its own."""
    made = {}
    for name in sites:
        context = browser.new_context(
            geolocation={"latitude": 37.5, "longitude": 127}, permissions=["geolocation"]
        )
        made[name] = context.new_page()
    yield made
    for page in made.values():
        page.context.close()


@pytest.fixture
def show(tabs, sites, other):
    """Open a page on a site; return what it shows, with the names of the sites for addresses."""

    def run(site, name, patience_s=PATIENCE_S):
        here, tab = sites[site], tabs[site]
        # a tab that has shown other sites does not get the position that was set any more
        page = tab.context.new_page() if name == "geolocation" else tab
        address = f"{here}/page/{quote(name)}"
        if name.startswith("by other"):
            address = f"{other}/embedder/{quote(name)}?here={here}"
        refused = []

        def listen(said):
            if site == "changed" and REFUSAL.search(said.text):
                refused.append(said)

        page.on("console", listen)
        page.goto(address, wait_until="commit")
        result = wait_for_result(page, patience_s, refused)
        page.remove_listener("console", listen)
        if name.startswith("by other: framed"):  # the other site sees nothing else of them
            result += f" {wait_for_frames(page, patience_s)}"
        if name.startswith("manifest"):
            found = page.context.new_cdp_session(page).send("Page.getAppManifest")
            result += f" {found['url']} {found.get('data')} {found['errors']}"
        for one in tab.context.pages:
            if one is not tab:
                one.close()
        return result.replace(here, "HERE").replace(other, "OTHER")

    return run


def wait_for_result(page, patience_s, refused):
    """Return what the page says, or "nothing"."""
    from playwright.sync_api import Error

    end = time.monotonic() + patience_s
    while time.monotonic() < end:
        if refused:
            end = min(end, time.monotonic() + AFTER_REFUSAL_S)
            refused.clear()
        try:
            found = page.evaluate("window.result")
        except Error:  # it goes to another page just now
            found = None
        if found is not None:
            return found
        page.wait_for_timeout(10)
    return "nothing"


def wait_for_frames(page, patience_s):
    """Return the addresses of the page's frames, once all are there."""
    end = time.monotonic() + patience_s
    while time.monotonic() < end:
        found = sorted(frame.url for frame in page.frames)
        if "" not in found and "about:blank" not in found:
            break
        page.wait_for_timeout(10)
    return found


@pytest.mark.parametrize("name", PAGES)
def test_a_page_shows_the_same_with_the_line(show, name):
    bare = show("bare", name)
    assert not bare.startswith("nothing"), "the page says nothing, so the test does not either"
    assert show("default", name) == bare
    assert show("reporting", name) == bare


def directive(text):
    return {"OM_CSP_ENFORCE_ALSO": [text], "OM_CSP_REPORT_SAMPLE": 0}


def header(name, value):
    return {"OM_HEADERS": {name: value}, "OM_CSP_REPORT_SAMPLE": 0}


WITHOUT_EVAL = "script-src * data: blob: 'unsafe-inline'"
SENSITIVE = [
    (directive("object-src 'none'"), "object drawing", "object page", "embed drawing"),
    (directive("base-uri 'self'"), "base other site", "base script of other site"),
    (directive("frame-ancestors 'self'"), "by other: framed", "by other: object"),
    (directive("frame-src 'none'"), "frame drawing", "frame other site", "frame data address"),
    (directive("worker-src 'none'"), "worker", "worker blob", "shared worker", "service worker"),
    (directive("manifest-src 'none'"), "manifest"),
    (directive("form-action 'self'"), "form to the other site, in a frame"),
    (directive(WITHOUT_EVAL), "text as code", "webassembly"),
    (directive("script-src 'self' 'unsafe-inline'"), "data script", "blob script", "jsonp"),
    (directive("script-src-attr 'none'"), "form with a handler"),
    (directive("style-src 'self' 'unsafe-inline'"), "style of the other site", "imported style"),
    (directive("style-src-attr 'none'"), "styles"),
    (directive("img-src 'self'"), "data image"),
    (directive("font-src 'none'"), "font"),
    (directive("media-src 'none'"), "media"),
    (directive("connect-src 'none'"), "fetches", "event stream"),
    (directive("default-src 'self' 'unsafe-inline'"), "fetches", "media of the other site"),
    (directive("sandbox allow-scripts"), "opener of the page"),
    (header("X-Content-Type-Options", "nosniff"), "script as html", "script as plain",
     "style as plain in quirks mode", "frame of what is sniffed"),
    (header("Cross-Origin-Opener-Policy", "same-origin-allow-popups"),
     "by other: popup that keeps its opener"),
    (header("Referrer-Policy", "strict-origin-when-cross-origin"),
     "referrer of the page's choice"),
    (header("Cross-Origin-Resource-Policy", "same-origin"), "by other: embedded files"),
    (header("Cross-Origin-Embedder-Policy", "require-corp"), "frame other site"),
    ({"OM_PERMISSIONS_POLICY": {"geolocation": [], "camera": []}}, "geolocation", "permissions"),
]  # fmt: skip


@pytest.fixture(scope="module")
def changed(other, tabs, sites):
    """Serve the site with other settings, as ``changed``."""
    served = {}

    def serve(config):
        if repr(config) not in served:
            app = make_app(OTHER=other, **config)
            OpenManager(app)
            served[repr(config)] = Served(app, "127.0.0.1")
        sites["changed"] = served[repr(config)].url
        return "changed"

    tabs["changed"] = tabs["default"]
    yield serve
    for one in served.values():
        one.close()


@pytest.mark.parametrize(
    ("config", "name"), [(config, name) for config, *names in SENSITIVE for name in names]
)
def test_a_page_shows_what_one_header_stops(show, changed, config, name):
    assert show(changed(config), name, STOPPED_S) != show("bare", name)


PART = "<!doctype html><script>window.result = document.scripts[0].nonce</script>"
FETCHING = """<!doctype html><script>
    const part = options => fetch('/part', options).then(answer => answer.text());
    Promise.all([part(), part({method: 'POST'})]).then(all => { window.result = all })
    </script><iframe src="/part"></iframe>"""


@pytest.mark.parametrize("trustworthy", [True, False])
def test_chance_chooses_what_chromium_opens_and_not_what_scripts_fetch(browser, trustworthy):
    app = Flask("chosen")
    app.config.update(OM_HUB_URL="memory://", OM_CSP_REPORT_SAMPLE=0.5)
    om = OpenManager(app)
    app.add_url_rule("/", "page", lambda: render_template_string(FETCHING))
    part = app.route("/part", methods=["GET", "POST"])
    part(lambda: render_template_string(PART))
    om.runtime.part_of("headers").policy.draw = lambda: True

    def serve(environ, start_response):
        if not trustworthy:  # over plain HTTP to another host, browsers leave it out
            del environ["HTTP_SEC_FETCH_DEST"]
        return app(environ, start_response)

    served = Served(serve, "127.0.0.1")
    page = browser.new_page()
    page.goto(served.url)
    page.wait_for_function("() => window.result", timeout=PATIENCE_S * 1000)
    page.frames[1].wait_for_function("() => window.result", timeout=PATIENCE_S * 1000)
    assert page.evaluate("window.result") == [PART, PART]
    for one in page.frames:
        assert len(one.evaluate("document.scripts[0].nonce")) == 32
    page.close()
    served.close()


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "OPTIONS"])
def test_all_answers_are_byte_for_byte_those_of_the_bare_site(apps, method):
    paths = [f"/page/{quote(name)}" for name in PAGES] + [f"/{name}" for name in FILES]
    for path in [*paths, "/out?to=x", "/download", "/form", "/missing/page"]:
        bare, bound = (
            apps[name].test_client().open(path, method=method) for name in ("bare", "default")
        )
        assert bound.data == bare.data, path
        assert (bound.status, list(bound.headers)) == (bare.status, list(bare.headers)), path


NONCE = re.compile(r"""(?i) nonce=(?P<quote>["']|&#3[49];)[0-9a-f]{32}(?P=quote)""")


def make_renderer(options, config):
    """Return a function that renders ``page.html``, with the line when there is a config."""
    app = Flask("templates")
    app.jinja_options = dict(options)
    app.jinja_loader = DictLoader({})
    if config is not None:
        app.config.update(OM_HUB_URL="memory://", **config)
        OpenManager(app)
    if "extensions" in options:
        app.jinja_env.install_null_translations()

    def render(files, streamed):
        app.jinja_loader.mapping = files
        app.jinja_env.cache.clear()
        with app.test_request_context():
            try:
                if streamed:
                    return "".join(stream_template("page.html", **CONTEXT))
                return render_template("page.html", **CONTEXT)
            except (TemplateError, TypeError, RecursionError) as error:
                return type(error)

    return render


@pytest.mark.parametrize(
    "config",
    [
        {"OM_CSP_REPORT_SAMPLE": 0},
        {"OM_CSP_REPORT_SAMPLE": 0, "OM_CSP_PRESET": "hash", "OM_CSP_HASH_ATTRIBUTES": True},
        {"OM_CSP_MODE": "enforce"},
    ],
    ids=["adopt", "adopt with hashes", "enforce"],
)
def test_random_templates_render_alike(config):
    rng = random.Random(20)
    pairs = [(make_renderer(one, None), make_renderer(one, config)) for one in OPTIONS]
    rendered = nonces = 0
    for number in range(700):
        files, streamed = build_files(rng), number % 5 == 0
        before, after = (render(files, streamed) for render in pairs[number % len(pairs)])
        if isinstance(after, str) and "OM_CSP_MODE" in config:
            after, found = NONCE.subn("", after)
            nonces += found
        assert after == before, files
        rendered += isinstance(before, str)
    assert rendered > 200
    assert bool(nonces) is ("OM_CSP_MODE" in config)
