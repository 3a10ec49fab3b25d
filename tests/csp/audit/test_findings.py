import ast
from dataclasses import replace

import pytest
from jinja2 import BaseLoader, DictLoader, Environment

from om_plugins.csp.audit.findings import AuditedPage, examine_pages, examine_templates
from om_plugins.csp.audit.matching import read_header
from om_plugins.csp.override import Override
from om_plugins.csp.presets import STRICT

HEADER = (
    "script-src 'nonce-N' 'strict-dynamic' https: 'unsafe-inline'; style-src 'self' 'nonce-N'; "
    "style-src-attr 'unsafe-inline'; object-src 'none'; base-uri 'none'; img-src 'self'"
)
POLICY = dict(STRICT)


def page(html, path="/a", *, header=HEADER, from_template=True):
    return AuditedPage(path, f"http://localhost{path}", html, read_header([header]), from_template)


def examine(*pages, enforced=True):
    return list(examine_pages(pages, POLICY, enforced=enforced))


@pytest.mark.parametrize(
    ("html", "from_template", "said", "way_out"),
    [
        ("<script>a</script>", False, "1 script without a nonce, on a page that no template made",
         "OM_CSP_HTML_NONCES = ['/a']"),
        ("<script>a</script><script>b</script>", True, "2 scripts without a nonce, which no",
         "{{ value|om_trusted }}"),
        (f"<script nonce={'0a' * 16}>a</script>", True, "the nonce of another response",
         "OM_CSP_HTML_NONCES = ['/a']"),
        ("<script nonce=fixed>a</script>", True, "a nonce that is not the response's",
         "{{ csp_nonce() }}"),
        ("<style>p{}</style>", False, "1 style without a nonce", "OM_CSP_HTML_NONCES"),
        ("<script src=https://cdn.example/a.js></script>", True, "1 script without",
         "@om.csp(update={'script-src': [\"https://cdn.example\"]})"),
        ("<link rel=stylesheet href=//cdn.example/a.css>", True, "1 style sheet without",
         "@om.csp(update={'style-src': [\"http://cdn.example\"]})"),
        ("<p onclick='go()'>", True, "1 event handler: ", "addEventListener"),
        ("<button onclick='return confirm(1)'>", True, "so that what depends on it", "Ask in a"),
        ("<a href='javascript:go()'>", True, "1 javascript: address", "<button>"),
        ("<object data=/a.svg></object>", True, "1 plug-in element",
         "@om.csp(update={'object-src': [\"'self'\"]})"),
        ("<base href=https://b.example/>", True, "1 <base>",
         "@om.csp(update={'base-uri': [\"https://b.example\"]})"),
        ("<img src=data:,a>", True, "1 image", "@om.csp(update={'img-src': [\"data:\"]})"),
        ("<div v-if=a>", True, "becomes code by Vue", "runtime-only"),
        ("<div hx-on:click='go()'>", True, "becomes code by htmx", "on the events of htmx"),
        ("<a onclick='if (!confirm()) return false'>", True, "so that what depends", "Ask in a"),
        ("<form onsubmit='validate(event)'>", True, "so that what depends", "Ask in a"),
        ("<button formaction='javascript:go()'>", True, "1 javascript: address", "<button>"),
        ("<iframe srcdoc='<script>a</script>'></iframe>", True, "to a frame as text",
         "Make that document in a view of its own"),
        ("<iframe srcdoc='<script src=https://c.example/a></script>'></iframe>", True,
         "to a frame", "@om.csp(update={'script-src': [\"https://c.example\"]})"),
        ("<script>DEBUG_TOOLBAR=1</script>", True, "of Flask-DebugToolbar", "DEBUG_TB_ENABLED"),
    ],
)  # fmt: skip
def test_each_trouble_is_named_with_its_way_out(html, from_template, said, way_out):
    (finding,) = examine(page(html, from_template=from_template))
    assert (finding.level, finding.subject) == ("fail", "GET /a")
    assert finding.message.startswith("Mode enforce stops ")
    assert said in finding.message
    assert way_out in finding.way_out
    (before,) = examine(page(html, from_template=from_template), enforced=False)
    assert before.level == "warn"


@pytest.mark.parametrize(
    "script",
    [
        "eval('a')",
        "setTimeout('go()', 9)",
        "setInterval(`go()`, 9)",
        "let all; try { all = new Function('return this')() } catch { all = window }",
        "if (!window.JSON) data = eval('(' + text + ')')",
    ],
)
def test_code_that_a_script_may_never_come_to_is_a_warning(script):
    (finding,) = examine(page(f"<script nonce=N>{script}</script>"))
    assert (finding.level, finding.subject) == ("warn", "GET /a")
    assert "1 piece of text that becomes code if the script comes to it: " in finding.message
    assert "'unsafe-eval'" in finding.way_out


def test_alpine_may_be_its_build_that_needs_no_code():
    (finding,) = examine(page("<div x-data={}>", from_template=True))
    assert finding.level == "warn"
    assert "becomes code by Alpine" in finding.message
    assert "@alpinejs/csp" in finding.way_out


def test_the_same_trouble_of_several_pages_is_one_finding():
    html = "<script>a</script>"
    pages = [page(html, path, from_template=False) for path in ("/", "/b", "/c/", "/b")]
    (finding,) = examine(*pages)
    assert finding.subject == "GET /, /b, /c/"
    assert "OM_CSP_HTML_NONCES = ['/', '/b', '/c/*']" in finding.way_out
    names = examine(*(page(html, f"/{n}", from_template=False) for n in range(20)))[0]
    assert names.subject == "GET /0, /1, /2, /3 and 16 more"
    paths = ast.literal_eval(names.way_out.partition("OM_CSP_HTML_NONCES = ")[2].rstrip("."))
    assert sorted(paths) == sorted(f"/{n}" for n in range(20))  # it can be copied


def test_what_is_dangerous_comes_first_and_long_lists_are_cut():
    scripts = "<script>a</script>" * 5
    first, second = examine(page(f"{scripts}<form onsubmit='return check()'>"))
    assert "onsubmit" in first.message
    assert second.message.endswith("and 2 more.")


def test_a_script_that_is_written_into_the_page_is_a_warning():
    html = "<script nonce=N>a || document.write('<script src=/a.js><\\/script>')</script>"
    (finding,) = examine(page(html))
    assert finding.level == "warn"
    assert "1 script that document.write puts into the page" in finding.message
    assert "document.createElement('script')" in finding.way_out


def test_a_style_in_a_part_of_a_page_is_a_warning():
    part = "<p>a</p>\n<style nonce=N>p {}</style>"
    (finding,) = examine(page(part, "/part"), page(part, "/other"), page("<p>b"))
    assert (finding.level, finding.subject) == ("warn", "GET /part, /other")
    assert "which only this response allows: line 2." in finding.message
    assert "@om.csp(update={'style-src': [\"'unsafe-inline'\"]})" in finding.way_out


@pytest.mark.parametrize(
    "html",
    [
        "<!doctype html><style nonce=N>p {}</style>",
        " <!-- a -->\n<HTML lang=en><style nonce=N>p {}</style>",
        "<?xml version='1.0'?><html><style nonce=N>p {}</style></html>",
        "<title>a</title><style nonce=N>p {}</style>",
        "<p>a</p><script nonce=N>a()</script>",
        "<iframe srcdoc='<style nonce=N>p {}</style>'></iframe>",
    ],
)
def test_a_style_in_a_whole_page_is_in_order(html):
    assert examine(page(html)) == []
    allowed = HEADER.replace("style-src 'self' 'nonce-N'", "style-src 'unsafe-inline'")
    assert examine(page("<style>p {}</style>", header=allowed)) == []


@pytest.mark.parametrize(
    "html",
    ["<p onclick='go()'>", "<p onclick='return confirm(a)'>", "<base href=/b>", "<div v-if=a>"],
)
def test_a_change_of_a_view_is_also_one_of_its_path(html):
    (finding,) = examine(page(html))
    assert "@om.csp(update={" in finding.way_out
    assert finding.way_out.endswith("]}), or the same in OM_CSP_PATHS.")


def test_what_has_one_way_out_begins_with_it():
    (finding,) = examine(page("<object data=/a.svg></object>"))
    assert finding.way_out.startswith("Allow it: @om.csp(")


def test_a_page_whose_texts_have_other_numbers_each_time_has_one_finding():
    first, second = (page(f"<style>#t{n} {{}}</style>", from_template=False) for n in ("1a", "2b"))
    (finding,) = examine(first, second)
    assert "#t1a" in finding.message
    # what only the second response has is new
    kept = page(f"<style nonce={'0a' * 16}>#t1a {{}}</style>", from_template=False)
    assert len(examine(first, kept)) == 2


def test_a_policy_of_the_application_itself_is_named_as_that():
    html = f"<script>a</script><script nonce={'0a' * 16}>b</script>"
    (finding,) = examine(replace(page(html, from_template=False), own=True))
    assert finding.level == "warn"
    assert finding.message.startswith(
        "The application's own Content-Security-Policy stops 2 scripts: "
    )
    assert "It does so in every mode." in finding.way_out
    assert "content_security_policy=False" in finding.way_out


def test_scripts_of_a_drawing_are_a_warning_with_the_change_of_its_path():
    html = "<svg><script>a</script><style>p{}</style></svg>"
    drawing = replace(page(html, "/a.svg", header="default-src 'none'"), drawing=True)
    (finding,) = examine(drawing)
    assert finding.level == "warn"
    assert "1 script of an SVG image" in finding.message
    assert "OM_CSP_PATHS = {'/a.svg': {'exempt': True}}" in finding.way_out


def test_pages_that_lose_nothing_have_no_finding():
    assert examine(page("<script nonce=N>go()</script><p style='a:b'>")) == []
    assert examine(page("<script>go()</script>", header="")) == []


def test_a_page_on_which_injected_scripts_run_is_a_warning():
    weak = page("<p>", header="script-src 'self' 'unsafe-inline'")
    (finding,) = examine(weak)
    assert (finding.level, finding.subject) == ("warn", "GET /a")
    assert "Injected scripts run here" in finding.message
    assert list(examine_pages([weak], {"script-src": ("'unsafe-inline'",)}, enforced=True)) == []


# --- templates ------------------------------------------------------------------------------------


def templates(**sources):
    return Environment(autoescape=True, loader=DictLoader(sources))


DELETE = templates(
    **{"a.html": "\n<button onclick='return confirm(1)'>", "b.html": "<p onclick=a>"}
)


@pytest.mark.parametrize(
    ("changes", "enforced", "level"),
    [
        ([], True, "fail"),
        ([], False, "warn"),
        ([Override(update={"img-src": ["data:"]})], True, "fail"),
        # whoever allows handlers somewhere may have meant these
        ([Override(update={"script-src-attr": ["'unsafe-inline'"]})], True, "warn"),
        ([Override(exempt=True)], True, "warn"),
    ],
)
def test_handlers_in_templates_that_decide_are_found(changes, enforced, level):
    (finding,) = examine_templates(DELETE, POLICY, changes, enforced=enforced)
    assert finding.level == level
    assert "1 event handler(s) that decide whether something happens" in finding.message
    assert "a.html:2" in finding.message
    assert "flask om csp lint" in finding.way_out


def test_templates_without_such_handlers_have_no_finding():
    assert list(examine_templates(templates(), POLICY, [], enforced=True)) == []
    assert (
        list(examine_templates(Environment(loader=BaseLoader()), POLICY, [], enforced=True)) == []
    )
    allowing = {**POLICY, "script-src-attr": ("'unsafe-inline'",)}
    assert list(examine_templates(DELETE, allowing, [], enforced=True)) == []


def test_questions_that_are_allowed_by_their_hashes_are_a_warning():
    asking = templates(**{"a.html": "<button onclick=\"return confirm('Sure?')\">"})
    (finding,) = examine_templates(asking, POLICY, [], enforced=True, questions=True)
    assert finding.level == "warn"
    assert "1 event handler(s) only ask, so mode enforce allows their hashes: a.html:1" in (
        finding.message
    )
    (stopped,) = examine_templates(asking, POLICY, [], enforced=True, questions=False)
    assert stopped.level == "fail"
