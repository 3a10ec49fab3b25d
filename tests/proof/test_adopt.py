"""Mode adopt stops nothing: Chromium shows the same with and without the line.

Each page of constructs (:mod:`tests.proof.adopt.pages`) is opened on the bare site, on the one with
the line, and on one whose every page asks for reports. A fourth site enforces the strict policy: a
page that shows the same there too would prove nothing.
"""

from __future__ import annotations

import re
import time
from urllib.parse import quote

import pytest

from om_plugins import OpenManager
from tests.proof.adopt.pages import PAGES
from tests.proof.adopt.site import FILES, Served, make_app, make_other

pytestmark = [pytest.mark.proof, pytest.mark.browser]

SITES = {
    "bare": None,
    "default": {"OM_CSP_REPORT_SAMPLE": 0},
    "reporting": {"OM_CSP_REPORT_SAMPLE": 1},
    "enforcing": {"OM_CSP_MODE": "enforce"},
}
PATIENCE_S = 20
STOPPED_S = 2
"""A page whose construct is stopped may never say anything; nobody waits longer for it."""


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
        page.goto(address, wait_until="commit")
        result = wait_for_result(page, patience_s)
        frames = sorted(frame.url for frame in page.frames)
        if name.startswith("manifest"):
            found = page.context.new_cdp_session(page).send("Page.getAppManifest")
            result += f" {found['url']} {found.get('data')} {found['errors']}"
        for one in tab.context.pages:
            if one is not tab:
                one.close()
        shown = f"{result} {frames}".replace(here, "HERE").replace(other, "OTHER")
        return re.sub("blob:HERE/[0-9a-f-]+", "blob", shown)

    return run


def wait_for_result(page, patience_s):
    from playwright.sync_api import Error

    end = time.monotonic() + patience_s
    while time.monotonic() < end:
        try:
            found = page.evaluate("window.result")
        except Error:  # it goes to another page just now
            found = None
        if found is not None:
            return found
        page.wait_for_timeout(10)
    return "nothing"


@pytest.mark.parametrize("name", PAGES)
def test_a_page_shows_the_same_with_the_line(show, name):
    bare = show("bare", name)
    assert not bare.startswith("nothing"), "the page says nothing, so the test does not either"
    assert show("default", name) == bare
    assert show("reporting", name) == bare


# constructs that the defaults of `enforce` stop, each by another header or directive
STOPPED = (
    "object drawing", "embed drawing", "base other site", "by other: framed",
    "by other: popup that keeps its opener", "script as html", "style as plain in quirks mode",
    "link to a script", "handlers", "text as code", "webassembly", "style of the other site",
    "popup of data, written to", "referrer of the page's choice", "by other: framed data",
)  # fmt: skip


@pytest.mark.parametrize("name", STOPPED)
def test_the_pages_show_what_enforce_stops(show, name):
    assert show("enforcing", name, STOPPED_S) != show("bare", name)


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "OPTIONS"])
def test_all_answers_are_byte_for_byte_those_of_the_bare_site(apps, method):
    paths = [f"/page/{quote(name)}" for name in PAGES] + [f"/{name}" for name in FILES]
    for path in [*paths, "/out?to=x", "/download", "/form", "/missing/page"]:
        bare, bound = (
            apps[name].test_client().open(path, method=method) for name in ("bare", "default")
        )
        assert bound.data == bare.data, path
        assert (bound.status, list(bound.headers)) == (bare.status, list(bare.headers)), path
