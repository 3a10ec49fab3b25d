"""The fallback layer: what fails before its first byte is answered by something else.

Covers ``om_plugins.fallback.answers`` as well.

The order of answers is in :mod:`om_plugins.fallback.answers`.
"""

from __future__ import annotations

import io
import logging
from wsgiref.util import FileWrapper

import pytest

from om_plugins import signals
from om_plugins.core.request_state import KEY, RequestState, state_of
from om_plugins.errors import ConfigError, RateLimited
from om_plugins.fallback.options import FallbackOptions
from om_plugins.types import Answer

from .conftest import RULES, AChain, Body, answers, raises, told

pytestmark = pytest.mark.filterwarnings("error")


def test_what_the_app_answers_well_passes_untouched(house):
    fallback = house(answers(headers=[("X-Own", "1")]))
    reply = fallback.ask()
    assert (reply.status, reply.body, reply.headers["x-own"]) == (200, b"the report", "1")
    assert "om-engine" not in reply.headers


def test_a_list_is_returned_as_the_very_object(house):
    body = [b"whole"]
    fallback = house(answers(body=body))
    assert fallback.layer(fallback.environ(), lambda *a: None) is body


def test_the_servers_own_file_wrapper_is_returned_as_the_very_object(house):
    wrapped = []

    def app(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])
        wrapped.append(environ["wsgi.file_wrapper"](io.BytesIO(b"a file")))
        return wrapped[0]

    fallback = house(app)
    environ = {**fallback.environ(), "wsgi.file_wrapper": FileWrapper}
    assert fallback.layer(environ, lambda *a: None) is wrapped[0]


def test_other_paths_are_not_wrapped(house):
    fallback = house(raises())
    with pytest.raises(KeyError):
        fallback.ask("/reportsx")
    with pytest.raises(KeyError):
        fallback.ask("/reports")
    assert fallback.ask("/reports/").status == 503


def test_a_path_without_a_slash_is_itself_and_what_is_below_it(house):
    fallback = house(raises(), paths=("/reports",))
    assert fallback.ask("/reports").status == 503
    assert fallback.ask("/reports/day").status == 503
    with pytest.raises(KeyError):
        fallback.ask("/reportsx")


def test_the_longest_path_wins(house):
    from om_plugins.fallback.layer import FallbackLayer

    chain = AChain({"from": "the archive"})
    fallback = house(raises(), chain=chain)
    fallback.layer = FallbackLayer(
        fallback.app,
        {"/": FallbackOptions(page=False), "/reports/": FallbackOptions(answers=("reports",))},
        lambda name: chain,
        cache=fallback.cache, scheduler=fallback.scheduler, clock=fallback.clock,
        rules=RULES,
    )  # fmt: skip
    assert fallback.ask("/reports/day").json == {"from": "the archive"}
    with pytest.raises(KeyError):
        fallback.ask("/else")


def test_an_app_that_raises_is_answered_with_503_and_told_of(house, caplog):
    fallback = house(raises(ValueError("boom")))
    with caplog.at_level(logging.ERROR, "om_plugins"):
        reply = fallback.ask()
    assert reply.status == 503
    assert int(reply.headers["retry-after"]) > 0
    assert reply.headers["content-type"] == "application/problem+json"
    assert reply.json["status"] == 503
    assert "boom" not in reply.body.decode()
    (noted,) = fallback.noted
    assert noted[0] == "/reports/"
    assert isinstance(noted[1], ValueError)
    assert "boom" in caplog.text


@pytest.mark.parametrize(
    ("status", "told_as"),
    [("500 Oh", 503), ("502 Bad Gateway", 502), ("503 Busy", 503), ("504 Late", 504)],
)
def test_the_true_status_is_kept(house, status, told_as):
    reply = house(answers(status)).ask()
    assert reply.status == told_as
    assert ("retry-after" in reply.headers) == (told_as == 503)


def test_the_apps_own_retry_after_and_cors_headers_are_kept(house):
    own = [("Retry-After", "77"), ("Access-Control-Allow-Origin", "*"), ("Set-Cookie", "a=b")]
    reply = house(answers("503 Busy", headers=own)).ask()
    assert reply.headers["retry-after"] == "77"
    assert reply.headers["access-control-allow-origin"] == "*"
    assert "set-cookie" not in reply.headers


@pytest.mark.parametrize(
    ("asked_s", "said"), [(30, "30"), (0.2, "1"), (1e9, "3600"), (None, "5"), (float("nan"), "5")]
)
def test_what_a_chain_asks_to_wait_is_told(house, asked_s, said):
    reply = house(raises(RateLimited("slow down", retry_after=asked_s))).ask()
    assert (reply.status, reply.headers["retry-after"]) == (503, said)


@pytest.mark.parametrize("status", ["501 Not Implemented", "404 Not Found", "302 Found"])
def test_other_statuses_mean_what_they_say(house, status):
    assert house(answers(status)).ask().body == b"the report"


def test_which_statuses_count_can_be_said(house):
    fallback = house(answers("501 Not Implemented"), statuses=(501,))
    reply = fallback.ask()
    assert (reply.status, reply.headers["content-type"]) == (501, "application/problem+json")
    fallback.app = answers("500 Oh")
    assert fallback.ask().body == b"the report"


def test_the_replaced_body_is_closed_and_never_read(house):
    body = Body(AssertionError("read"))
    house(answers("500 Oh", body)).ask()
    assert body.closed == 1


def test_a_body_that_passes_is_closed_once(house):
    body = Body(b"a", b"b")
    assert house(answers(body=body)).ask().body == b"ab"
    assert body.closed == 1


def test_a_generator_app_that_starts_late_is_answered_for(house):
    closed = []

    def app(environ, start_response):
        try:
            start_response("500 Oh", [("Content-Type", "text/plain")])
            yield b"trouble"
        finally:
            closed.append(True)

    reply = house(app).ask()
    assert reply.status == 503
    assert b"trouble" not in reply.body
    assert closed == [True]


def test_a_generator_app_that_raises_on_its_first_step_is_answered_for(house):
    def app(environ, start_response):
        raise ValueError("late")
        yield b""

    assert house(app).ask().status == 503


def test_a_body_that_fails_before_its_first_byte_is_replaced(house):
    body = Body(b"", ValueError("early"))
    reply = house(answers(body=body)).ask()
    assert (reply.status, reply.restarted) == (503, True)
    assert body.closed == 1


def test_a_body_that_has_begun_is_never_replaced(house):
    body = Body(b"half", ValueError("late"))
    fallback = house(answers(body=body))
    with pytest.raises(ValueError, match="late"):
        fallback.ask()
    assert body.closed == 1
    assert fallback.noted == []


def test_an_app_that_starts_twice_is_heard_the_second_time(house):
    def app(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])
        start_response("500 Oh", [("Content-Type", "text/plain")], told(ValueError("x")))
        return [b"sorry"]

    reply = house(app).ask()
    assert (reply.status, reply.restarted) == (503, True)


def test_an_error_that_the_app_took_back_is_sent(house):
    def app(environ, start_response):
        start_response("500 Oh", [("Content-Type", "text/plain")])
        start_response("200 OK", [("Content-Type", "text/plain")], told(ValueError("x")))
        return [b"fine after all"]

    reply = house(app).ask()
    assert (reply.status, reply.body, reply.restarted) == (200, b"fine after all", False)


def test_what_is_written_the_old_way_passes(house):
    def app(environ, start_response):
        write = start_response("500 Oh", [("Content-Type", "text/plain")])
        write(b"by hand")
        return []

    reply = house(app).ask()
    assert (reply.status, reply.body) == (500, b"by hand")


def test_an_exception_after_a_write_passes(house):
    def app(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])(b"by hand")
        raise ValueError("late")

    fallback = house(app)
    with pytest.raises(ValueError, match="late"):
        fallback.ask()
    assert fallback.noted == []  # nothing answered instead


def test_head_gets_no_body(house):
    reply = house(
        answers("500 Oh", body=[]),
    ).ask(method="HEAD")
    assert (reply.status, reply.body) == (503, b"")
    assert int(reply.headers["content-length"]) > 0


def test_what_ends_the_process_passes(house):
    with pytest.raises(KeyboardInterrupt):
        house(raises(KeyboardInterrupt())).ask()


def test_under_a_debugger_every_exception_passes(house):
    with pytest.raises(ValueError, match="boom"):
        house(raises(ValueError("boom")), show_errors=True).ask()


def test_an_exception_that_the_framework_lets_through_on_purpose_passes(house):
    def app(environ, start_response):
        error = ValueError("meant to be seen")
        state_of(environ).raised = id(error), "f1", None
        raise error

    with pytest.raises(ValueError, match="meant to be seen"):
        house(app).ask()


def test_an_exception_is_told_with_its_path(house):
    told = []
    fallback = house(raises(), emit=lambda signal, **details: told.append((signal.name, details)))
    with signals.fallback_answered.connected_to(lambda *_, **__: None):
        fallback.ask()
    details = {"kind": "page", "route": "/reports/", "status": 503, "failed": 500}
    assert told == [("fallback_answered", {**details, "engine": "", "chain": ""})]


def test_a_chain_that_is_not_there_is_a_warning(house, caplog):
    fallback = house(raises(), answers=("raports",))
    fallback.chain.answer = ConfigError("chain", "raports", "did you mean 'reports'?")
    assert fallback.ask().status == 503
    (warning,) = [one for one in caplog.records if one.levelname == "WARNING"]
    assert "the fallback of /reports/ cannot ask 'raports': chain" in warning.getMessage()


# --- chains ---------------------------------------------------------------------------------------


def test_a_chain_answers_with_how_it_came_about(house):
    chain = AChain({"day": "fine"})
    fallback = house(raises(), chain=chain, answers=("reports",), timeout=2.0)
    reply = fallback.ask(query="a=1", accept_language="ko")
    assert (reply.status, reply.json) == (200, {"day": "fine"})
    assert reply.headers["om-engine"] == "archive"
    assert reply.headers["om-tier"] == "2"
    assert reply.headers["om-degraded"] == "?1"
    ((payload, options),) = chain.calls
    assert payload == {"method": "GET", "path": "/reports/day", "query": "a=1"}
    assert options["timeout"] == 2.0
    assert options["headers"] == {"accept-language": "ko"}


def test_an_engine_may_answer_in_html(house):
    chain = AChain("<h1>Archive</h1>")
    fallback = house(raises(), chain=chain, answers=("reports",))
    chain.call = lambda payload, **o: Answer(
        chain.answer, engine="archive", metadata={"content_type": "text/html; charset=utf-8"}
    )
    reply = fallback.ask()
    assert reply.body == b"<h1>Archive</h1>"
    assert reply.headers["content-type"] == "text/html; charset=utf-8"
    assert reply.headers["x-content-type-options"] == "nosniff"


def test_an_engine_cannot_bring_a_header(house):
    chain = AChain()
    chain.call = lambda payload, **o: Answer(
        "text", engine="archive", metadata={"content_type": "text/html\r\nSet-Cookie: a=b"}
    )
    reply = house(raises(), chain=chain, answers=("reports",)).ask()
    assert reply.headers["content-type"] == "application/json"


def test_a_chain_that_fails_too_leaves_the_page(house):
    assert house(raises(), answers=("reports",)).ask().status == 503


def test_a_post_is_not_replayed_unless_the_operator_names_it(house):
    chain = AChain({"done": True})
    fallback = house(raises(), chain=chain, answers=("reports",))
    reply = fallback.ask(method="POST")
    assert reply.status == 503
    assert chain.calls == []
    assert "may not have been saved" in reply.json["detail"]
    fallback = house(raises(), chain=chain, answers=("reports",), methods=("GET", "POST"))
    assert fallback.ask(method="POST").json == {"done": True}


# --- the app's own errors -------------------------------------------------------------------------


def test_the_apps_own_json_is_sent_when_nothing_else_answers(house):
    for kind in ("application/json; charset=utf-8", "application/problem+json"):
        reply = house(answers("503 Busy", b'{"own": 1}', kind=kind)).ask()
        assert (reply.status, reply.json) == (503, {"own": 1})


def test_the_apps_own_json_gives_way_to_a_real_answer(house):
    app = answers("503 Busy", b'{"own": 1}', kind="application/json")
    reply = house(app, chain=AChain({"real": 1}), answers=("reports",)).ask()
    assert (reply.status, reply.json) == (200, {"real": 1})


def test_the_apps_own_json_can_be_replaced(house):
    app = answers("503 Busy", b'{"own": 1}', kind="application/json")
    assert house(app, own_body="never").ask().json["status"] == 503


def test_every_error_that_the_app_made_on_purpose_can_be_kept(house):
    fallback = house(answers("500 Oh", b"<h1>Sorry</h1>"), own_body="always")
    assert fallback.ask().body == b"<h1>Sorry</h1>"
    environ = {**fallback.environ(), KEY: RequestState(None, raised=(1, "f1", None))}
    assert fallback.ask(environ=environ).status == 503


def test_without_the_page_the_apps_own_is_sent_or_raised(house):
    assert house(answers("500 Oh"), page=False).ask().status == 500
    with pytest.raises(ValueError, match="boom"):
        house(raises(ValueError("boom")), page=False).ask()


def test_an_own_body_of_a_generator_app_is_sent_whole(house):
    def app(environ, start_response):
        start_response("503 Busy", [("Content-Type", "application/json")])
        yield b'{"own"'
        yield b": 1}"

    assert house(app).ask().json == {"own": 1}


# --- views ----------------------------------------------------------------------------------------


def test_a_views_own_fallback_comes_before_that_of_its_path(house):
    mine = FallbackOptions(answers=("reports",))

    def app(environ, start_response):
        state_of(environ).fallback = mine
        raise ValueError("boom")

    fallback = house(app, chain=AChain({"for": "the view"}), views=[mine])
    assert fallback.ask().json == {"for": "the view"}
    assert fallback.ask("/else").json == {"for": "the view"}


def test_other_views_are_left_alone(house):
    fallback = house(answers("500 Oh"), views=[FallbackOptions()])
    assert fallback.ask("/else").status == 500
    fallback.app = raises()
    with pytest.raises(KeyError):
        fallback.ask("/else")


def test_a_wrong_path_stops_the_start(house):
    with pytest.raises(ConfigError, match=r"OM_FALLBACK\['reports'\].*must begin with '/'"):
        house(raises(), paths=("reports",))
