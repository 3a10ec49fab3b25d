"""The friendly page: HTML for people, a problem document for programs, in the user's language."""

from __future__ import annotations

import re

import pytest

from om_plugins.core.request_state import state_of
from om_plugins.core.translations import load_translations
from om_plugins.fallback import page as texts
from om_plugins.fallback.page import FallbackPage, keep_local, prefers_html

BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"


def environ(**more):
    return {
        "REQUEST_METHOD": "GET", "PATH_INFO": "/reports/day", "SCRIPT_NAME": "/app",
        "QUERY_STRING": "a=1", "HTTP_HOST": "app.example", "wsgi.url_scheme": "https",
        "HTTP_ACCEPT": BROWSER, **more,
    }  # fmt: skip


def page(status=503, failed=(), reference="", **more):
    status, headers, body = FallbackPage("/_om").render(
        environ(**more), status, list(failed), reference
    )
    return status, {n.lower(): v for n, v in headers}, body.decode()


@pytest.mark.parametrize(
    ("accept", "wanted"),
    [
        (BROWSER, True),
        ("text/html", True),
        ("*/*", False),
        (None, False),
        ("application/json", False),
        ("application/json, text/html;q=0.5", False),
        ("text/html;q=0", False),
        ("text/*", False),
    ],
)
def test_html_is_for_those_who_ask_for_it_by_name(accept, wanted):
    assert prefers_html(accept) is wanted


def test_the_page_brings_a_policy_of_its_own_with_its_nonce():
    _, headers, text = page()
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    nonce = re.search(r"'nonce-([0-9a-f]{32})'", policy)[1]
    assert re.findall(r'nonce="([^"]*)"', text) == [nonce, nonce]
    assert headers["cache-control"] == "no-store"


def test_the_page_offers_both_buttons_under_the_applications_root():
    _, _, text = page(reference="f1e2")
    assert '<a class="button" href="">Refresh</a>' in text
    assert 'action="/app/_om/report"' in text
    assert 'name="url" value="/app/reports/day?a=1"' in text
    assert 'name="reference" value="f1e2"' in text


def test_after_a_post_the_way_back_is_the_page_that_sent_it():
    _, _, text = page(REQUEST_METHOD="POST", HTTP_REFERER="https://app.example/app/form?x=1")
    assert 'href="/app/form?x=1">Back to the page' in text
    assert "may not have been saved" in text
    for other in ("https://evil.example/form", "nonsense", "https://[", "https://app.example//e.x"):
        _, _, text = page(REQUEST_METHOD="POST", HTTP_REFERER=other)
        assert "evil" not in text
        assert "//e.x" not in text


def test_a_hostile_path_is_text_and_leads_nowhere_else():
    _, _, text = page(SCRIPT_NAME="", PATH_INFO='//evil.example/"><script>alert(1)</script>')
    assert "<script>alert" not in text
    assert 'name="url" value="/"' in text
    assert page(PATH_INFO="/\xff\x00\n")[0] == 503


@pytest.mark.parametrize(
    ("address", "local"),
    [
        ("/a?b=c", "/a?b=c"),
        ("//evil", "/"),
        ("/\\evil", "/"),
        ("https://evil", "/"),
        ("javascript:alert(1)", "/"),
        ("/a\r\nb", "/"),
        ("", "/"),
        ("/" + "x" * 3000, "/"),
    ],
)
def test_only_a_path_of_this_site_is_an_address(address, local):
    assert keep_local(address) == local


def test_the_page_speaks_the_language_of_its_reader():
    _, headers, text = page(HTTP_ACCEPT_LANGUAGE="ko-KR,ko;q=0.9,en;q=0.5")
    assert headers["content-language"] == "ko"
    assert '<html lang="ko">' in text
    assert "새로 고침" in text
    assert "문제 신고" in text


def test_every_sentence_is_translated():
    names = ["TITLE", "WRONG", "LATE", "UNSAVED", "REFRESH", "REPORT", "BACK", "THANKS", "SENT"]
    for sentence in (getattr(texts, name) for name in names):
        assert load_translations("ko").gettext(sentence) != sentence, sentence


def test_a_late_answer_is_called_late():
    assert "It took too long" in page(504)[2]


def test_the_problem_document_says_the_same():
    status, headers, text = page(502, HTTP_ACCEPT="application/json")
    assert status == 502
    assert headers["content-type"] == "application/problem+json"
    assert "on our side" in text
    assert "retry-after" not in headers


def test_the_reference_is_the_errors_fingerprint(house):
    def app(environ, start_response):
        state_of(environ).raised = 1, "f1e2d3", None
        start_response("500 Oh", [("Content-Type", "text/html")])
        return [b""]

    reply = house(app).ask(accept=BROWSER)
    assert b'name="reference" value="f1e2d3"' in reply.body
