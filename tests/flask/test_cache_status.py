"""``Cache-Status`` in debug mode: what ``@om.cached`` did, and which line made a page personal.

Covers a part of ``om_plugins.flask.observation.dispatch``.
"""

from __future__ import annotations

import re

import pytest
from flask import Flask, Response, request, session

from om_plugins import OpenManager


class Shop:
    def __init__(self, *, debug: bool) -> None:
        self.app = Flask("shop")
        self.app.secret_key = "of the test"
        self.app.config.update(TESTING=True, DEBUG=debug, OM_CACHE_VARIANTS=5)
        self.om = OpenManager(self.app)

    def ask(self, body, path="/page", **options):
        """The ``Cache-Status`` of requests of one page, each given as headers."""
        if path not in [rule.rule for rule in self.app.url_map.iter_rules()]:
            view = self.om.cached(**options)(body)
            self.app.add_url_rule(path, path, view, methods=["GET", "POST"])
        client = self.app.test_client()
        return lambda **given: client.open(path, **given).headers.getlist("Cache-Status")


@pytest.fixture
def shop():
    return Shop(debug=True)


def test_nothing_is_told_when_the_app_is_not_in_debug_mode():
    ask = Shop(debug=False).ask(lambda: str(session.get("user")))
    assert ask() == []
    assert ask() == []


def test_a_page_for_everybody_is_stored_and_then_a_hit(shop):
    ask = shop.ask(lambda: "page")
    assert ask() == ["OpenManager-View; fwd=uri-miss; stored"]
    assert ask() == ["OpenManager-View; hit"]
    assert ask(method="HEAD") == ["OpenManager-View; hit"]


def test_a_page_of_a_visitor_names_input_function_and_line(shop):
    def page():
        return str(session.get("user_id"))

    ask = shop.ask(page)
    line = page.__code__.co_firstlineno + 1
    detail = f'detail="session:user_id, {__name__}.page, line {line}"'
    assert ask() == [f"OpenManager-View; fwd=uri-miss; stored; {detail}"]
    assert ask() == ["OpenManager-View; hit"]


def test_another_visitor_is_a_miss_at_a_known_address(shop):
    ask = shop.ask(lambda: request.headers.get("X-Theme", ""))
    assert ask(headers={"X-Theme": "a"}) == ["OpenManager-View; fwd=uri-miss; stored"]
    assert ask(headers={"X-Theme": "b"}) == ["OpenManager-View; fwd=miss; stored"]
    assert ask(headers={"X-Theme": "a"}) == ["OpenManager-View; hit"]


@pytest.mark.parametrize(
    ("body", "options", "detail"),
    [
        (lambda: str(dict(request.environ)), {}, r"all variables of the environ, \S+, line \d+"),
        (lambda: str(session.get("a")), {"public": True}, r"session:a, \S+, line \d+"),
        (lambda: session.update(a=1) or "", {}, "it changes the session"),
        (lambda: ("no", 403), {}, "a response with its status is not stored"),
        (lambda: Response(c for c in "ab"), {}, "it is streamed"),
        (lambda: request.args.get("r", ""), {"query": False}, "its code looked at r, .*"),
    ],
)
def test_a_page_that_is_not_stored_says_why(shop, body, options, detail):
    (said,) = shop.ask(body, **options)()
    assert re.fullmatch(rf'OpenManager-View; fwd=(uri-)?miss; detail="{detail}"', said)


def test_a_request_that_goes_past_the_cache_says_why(shop):
    ask = shop.ask(lambda: "page")
    assert ask(headers={"Range": "bytes=0-1"}) == [
        'OpenManager-View; fwd=bypass; detail="the request asks for a part of the page"'
    ]
    assert ask(data=b"x", method="GET") == [
        'OpenManager-View; fwd=bypass; detail="the request has a body"'
    ]
    assert ask(method="POST") == []


def test_a_session_that_was_changed_before_the_view_is_told(shop):
    ask = shop.ask(lambda: "page")

    @shop.app.before_request
    def visit():
        session["visits"] = 1

    assert ask() == [
        'OpenManager-View; fwd=bypass; detail="the session was changed before the view was called"'
    ]


def test_a_session_that_a_hook_changes_after_the_view_is_told(shop):
    ask = shop.ask(lambda: "page")

    @shop.app.after_request
    def visit(response):
        session["visits"] = 1
        return response

    assert ask() == ['OpenManager-View; fwd=uri-miss; detail="its request changes the session"']


def test_what_a_client_sends_cannot_break_the_header(shop):
    body = lambda: request.cookies.get('a"b\\\r\n; hit', "")  # noqa: E731
    (said,) = shop.ask(body)()
    assert said.startswith(
        'OpenManager-View; fwd=uri-miss; stored; detail="cookie:a\\"b\\\\??; hit, '
    )
    assert len(said) < 300


def test_two_cached_views_in_one_request_are_two_members(shop):
    inner = shop.om.cached()(lambda: "part")
    shop.app.add_url_rule("/part", "part", inner)
    ask = shop.ask(lambda: inner())
    assert ask() == ["OpenManager-View; fwd=uri-miss; stored"] * 2


def test_a_shared_page_is_told_by_the_cache_in_front_alone(shop):
    ask = shop.ask(lambda: "page", shared=True)
    assert [one.partition(";")[0] for one in ask()] == ["OpenManager"]
    assert [one.partition(";")[0] for one in ask()] == ["OpenManager"]
