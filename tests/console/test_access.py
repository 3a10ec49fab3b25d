"""Who may open the console, and who may act on it."""

from __future__ import annotations

import json
import re
from unittest.mock import Mock

import pytest
from werkzeug.exceptions import Forbidden
from werkzeug.http import parse_cookie
from werkzeug.test import Client
from werkzeug.wrappers import Response

from om_plugins import OpenManagerMiddleware, Settings
from om_plugins.console.access import COOKIE, LASTS_S, Session, Sessions
from om_plugins.plugins.kit import Host
from om_plugins.runtime import Runtime
from om_plugins.testing.fakes import FakeClock
from om_plugins.types import EngineSpec, EngineTraits

TOKEN = "kX2v-9QmZt7Lr4Wb"


class Local:
    name = "local"
    traits = EngineTraits(idempotent=True, local=True)

    def call(self, call):
        return "here"


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def serve(clock):
    runtimes = []

    def start(auth=None, *, debug=False, **more):
        settings = Settings(hub_url="memory://", console_auth=auth, secret_key=b"x" * 32, **more)
        runtime = Runtime(settings, clock=clock, host=Host(testing=True, debug=debug))
        runtime.add_engine(EngineSpec(Local(), "assistant"))
        runtimes.append(runtime)
        app = OpenManagerMiddleware(Response("the host's page"), runtime=runtime)
        client = Client(app)
        client.runtime = runtime
        return client

    yield start
    for runtime in runtimes:
        runtime.close()


def sign_in(client, token=TOKEN, **more):
    return client.post("/_om/console/login", data={"token": token}, **more)


def form_token(client, **more):
    page = client.get("/_om/", **more)
    assert page.status_code == 200
    return re.search(r'data-form-token="([^"]+)"', page.text)[1]


def recover(client, said, subject="chain:assistant", **headers):
    headers = {"X-OM-Form-Token": said, **headers} if said else headers
    body = json.dumps({"subject": subject})
    return client.post("/_om/console/recover", data=body, headers=headers)


# --- off ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/_om/", "/_om/overview.json", "/_om/console/stream"])
def test_it_is_off_until_it_is_asked_for_and_says_how(serve, path):
    answer = serve().get(path)
    assert answer.status_code == 404
    assert "OM_CONSOLE_AUTH" in answer.text
    assert answer.headers["Cache-Control"] == "no-store"


def test_nobody_can_act_or_sign_in_while_it_is_off(serve):
    client = serve()
    assert sign_in(client).status_code == 404
    assert recover(client, "").status_code == 404


# --- a token ------------------------------------------------------------------------------------


def test_without_the_token_there_is_a_form_and_no_figure(serve):
    client = serve(TOKEN)
    page = client.get("/_om/")
    assert (page.status_code, "<form" in page.text, "picture" in page.text) == (401, True, False)
    data = client.get("/_om/overview.json")
    assert (data.status_code, data.headers["WWW-Authenticate"]) == (401, "Bearer")
    assert client.get("/_om/console/stream").status_code == 401


def test_the_right_token_opens_it_and_the_cookie_keeps_it_open(serve, clock):
    client = serve(TOKEN)
    answer = sign_in(client)
    assert (answer.status_code, answer.headers["Location"]) == (303, "../")
    assert client.get("/_om/").status_code == 200
    assert client.get("/_om/overview.json").status_code == 200
    clock.advance(12 * 3600)
    assert client.get("/_om/overview.json").status_code == 401


def test_a_wrong_token_is_told_and_sets_no_cookie(serve):
    client = serve(TOKEN)
    answer = sign_in(client, TOKEN[:-1])
    assert (answer.status_code, "That is not the token" in answer.text) == (401, True)
    assert "Set-Cookie" not in answer.headers
    assert TOKEN[:-1] not in answer.text


def test_scripts_send_it_as_a_bearer_token(serve):
    client = serve(TOKEN)
    assert client.get("/_om/overview.json", headers={"Authorization": f"Bearer {TOKEN}"}).json
    wrong = client.get("/_om/overview.json", headers={"Authorization": "Bearer wrong"})
    assert wrong.status_code == 401
    basic = client.get("/_om/overview.json", headers={"Authorization": f"Basic {TOKEN}"})
    assert basic.status_code == 401


def test_after_ten_wrong_tokens_even_the_right_one_waits(serve, clock):
    client = serve(TOKEN)
    for _ in range(10):
        assert sign_in(client, "a wrong one").status_code == 401
    blocked = sign_in(client)
    assert blocked.status_code == 429
    assert 0 < int(blocked.headers["Retry-After"]) <= 300
    bearer = client.get("/_om/overview.json", headers={"Authorization": f"Bearer {TOKEN}"})
    assert bearer.status_code == 429
    elsewhere = sign_in(client, environ_base={"REMOTE_ADDR": "192.0.2.9"})
    assert elsewhere.status_code == 303
    clock.advance(300)
    assert sign_in(client).status_code == 303


def test_a_cookie_without_sign_in_opens_nothing(serve):
    client = serve(TOKEN)
    sessions = Sessions(client.runtime.kit.secret, client.runtime.clock, TOKEN)
    _, cookie = sessions.create({"SCRIPT_NAME": "/_om"}, signed_in=False)
    value = cookie.partition(";")[0].partition("=")[2]
    client.set_cookie("om_console", value, path="/_om")
    answer = client.get("/_om/overview.json")
    assert answer.status_code == 401


def test_another_site_can_neither_sign_anybody_in_nor_read(serve):
    client = serve(TOKEN)
    assert sign_in(client, headers={"Origin": "https://evil.example"}).status_code == 403
    assert sign_in(client, headers={"Sec-Fetch-Site": "cross-site"}).status_code == 403
    sign_in(client)
    read = client.get("/_om/overview.json", headers={"Sec-Fetch-Site": "cross-site"})
    assert read.status_code == 403


def test_in_debug_mode_a_token_still_counts(serve):
    assert serve(TOKEN, debug=True).get("/_om/").status_code == 401


# --- a callback ---------------------------------------------------------------------------------


def test_the_callback_decides(serve):
    client = serve(lambda request: request.headers.get("X-Me") == "boss")
    assert client.get("/_om/").status_code == 401
    assert client.get("/_om/", headers={"X-Me": "boss"}).status_code == 200
    assert client.get("/_om/overview.json", headers={"X-Me": "boss"}).status_code == 200
    assert sign_in(client).status_code == 404  # there is no token to compare with


def test_a_callback_may_send_people_elsewhere_or_fail_closed(serve, caplog):
    def elsewhere(request):
        return Response(status=302, headers={"Location": "/login"})

    def forbidden(request):
        raise Forbidden

    def broken(request):
        raise RuntimeError("no database")

    assert serve(elsewhere).get("/_om/").headers["Location"] == "/login"
    assert serve(forbidden).get("/_om/").status_code == 403
    assert serve(broken).get("/_om/").status_code == 401
    assert "OM_CONSOLE_AUTH: the callback failed" in caplog.text


async def permit():
    return True


@pytest.mark.parametrize(
    "said",
    [lambda: None, lambda: 1, lambda: "yes", lambda: {"admin": False}, permit, Mock,
     lambda: (True for _ in "1")],
)  # fmt: skip
def test_a_callback_that_does_not_return_true_opens_nothing(serve, said, caplog):
    assert serve(lambda request: said()).get("/_om/").status_code == 401
    assert "OM_CONSOLE_AUTH: the callback returned " in caplog.text
    assert serve(lambda request: True).get("/_om/").status_code == 200


# --- this machine, in debug mode ----------------------------------------------------------------

HERE = {"REMOTE_ADDR": "127.0.0.1"}


@pytest.mark.parametrize(
    ("address", "host"),
    [("127.0.0.1", "localhost:5000"), ("::1", "[::1]:5000"), ("::ffff:127.0.0.1", "127.0.0.1")],
)
def test_in_debug_mode_this_machine_may_look(serve, address, host):
    client = serve(debug=True)
    answer = client.get("/_om/", headers={"Host": host}, environ_base={"REMOTE_ADDR": address})
    assert answer.status_code == 200


@pytest.mark.parametrize(
    ("environ", "headers"),
    [
        ({"REMOTE_ADDR": "192.0.2.9"}, {}),
        ({"REMOTE_ADDR": ""}, {}),
        (HERE, {"Host": "rebound.example"}),
        (HERE, {"Host": "localhost.evil.example"}),
        (HERE, {"X-Forwarded-For": "127.0.0.1"}),
        (HERE, {"X-Forwarded-Host": "localhost"}),
        (HERE, {"Forwarded": "for=127.0.0.1"}),
        (HERE, {"X-Real-IP": "127.0.0.1"}),
        (HERE, {"Via": "1.1 proxy"}),
        ({**HERE, "werkzeug.proxy_fix.orig": {"REMOTE_ADDR": "192.0.2.9"}}, {}),
    ],
)
def test_in_debug_mode_nobody_else_may(serve, environ, headers):
    headers = {"Host": "localhost", **headers}
    assert serve(debug=True).get("/_om/", headers=headers, environ_base=environ).status_code == 404


# --- actions ------------------------------------------------------------------------------------


def test_an_action_needs_the_form_token_of_its_own_session(serve):
    client = serve(TOKEN)
    sign_in(client)
    said = form_token(client)
    assert recover(client, "").status_code == 403
    assert recover(client, "A" * 43).status_code == 403
    assert recover(client, said).status_code == 202
    client.delete_cookie("om_console", path="/_om")
    sign_in(client)
    assert recover(client, said).status_code == 403


def test_an_action_from_another_site_is_refused_with_the_right_form_token(serve):
    client = serve(lambda request: True)
    said = form_token(client)
    assert recover(client, said, Origin="https://evil.example").status_code == 403
    assert recover(client, said, **{"Sec-Fetch-Site": "same-site"}).status_code == 403
    assert recover(client, said, Origin="http://localhost").status_code == 202


def test_the_session_of_a_callback_is_bound_to_its_form_token(serve):
    client = serve(lambda request: True)
    said = form_token(client)
    client.delete_cookie("om_console", path="/_om")
    assert recover(client, said).status_code == 403


def test_a_bearer_needs_no_form_token(serve):
    client = serve(TOKEN)
    assert recover(client, "", Authorization=f"Bearer {TOKEN}").status_code == 202


def test_actions_are_posts_and_small(serve):
    client = serve(lambda request: True)
    assert client.get("/_om/console/recover").status_code == 405
    said = form_token(client)
    big = client.post("/_om/console/recover", data=b"x" * 5000, headers={"X-OM-Form-Token": said})
    assert big.status_code == 413
    assert recover(client, said, subject="chain:nothing").status_code == 409


def purge(client, said, **what):
    headers = {"X-OM-Form-Token": said} if said else {}
    return client.post("/_om/console/purge", data=json.dumps(what), headers=headers)


def test_pages_are_taken_back_by_who_may_act(serve):
    client = serve(lambda request: True)
    said = form_token(client)
    assert purge(client, "", url="/page").status_code == 403
    for what in ({"url": "/page"}, {"prefix": "/"}, {"tag": "news"}):
        assert purge(client, said, **what).json == {"purged": 0}
    for what, why in (
        ({}, "Nothing was taken back: say what"),
        ({"url": "page"}, "Nothing was taken back: 'page' is neither a path"),
        ({"url": 5}, "Send a JSON object"),
    ):
        found = purge(client, said, **what)
        assert found.status_code == 400
        assert found.json["detail"].startswith(why)


def test_signing_out_ends_it(serve):
    client = serve(TOKEN)
    sign_in(client)
    said = form_token(client)
    assert client.post("/_om/console/logout", data={"form_token": "no"}).status_code == 403
    assert client.post("/_om/console/logout", data={"form_token": said}).status_code == 303
    assert client.get("/_om/").status_code == 401


# The console's cookie: signed, bound to the token, over after twelve hours.

ENVIRON = {"SCRIPT_NAME": "/app/_om", "wsgi.url_scheme": "http"}


def create(sessions, *, signed_in=True, **environ):
    return sessions.create({**ENVIRON, **environ}, signed_in=signed_in)


def asking(cookie):
    return {"HTTP_COOKIE": cookie.partition(";")[0]}


@pytest.fixture
def sessions(clock):
    return Sessions(lambda: b"secret", clock, "the token of today")


def test_a_cookie_is_known_again(sessions):
    session, cookie = create(sessions)
    assert sessions.find(asking(cookie)) == session
    assert session.signed_in


def test_the_cookie_is_for_the_prefix_alone_and_no_script_reads_it(sessions):
    _, cookie = create(sessions)
    assert {"HttpOnly", "SameSite=Strict", "Path=/app/_om", f"Max-Age={LASTS_S}"} <= set(
        cookie.split("; ")
    )
    assert "Secure" not in cookie
    assert "; Secure" in create(sessions, **{"wsgi.url_scheme": "https"})[1]


def test_it_runs_out_after_twelve_hours_whatever_the_browser_does(sessions, clock):
    _, cookie = create(sessions)
    clock.advance(LASTS_S - 1)
    assert sessions.find(asking(cookie))
    clock.advance(1)
    assert sessions.find(asking(cookie)) is None


def test_a_longer_life_or_a_sign_in_cannot_be_written_into_it(sessions):
    _, cookie = create(sessions, signed_in=False)
    value = parse_cookie(cookie.partition(";")[0])[COOKIE]
    version, sid, until, signature = value.split(".")
    for forged in (
        f"{version}.{sid}.{int(until) + 1}.{signature}",
        f"{version}.{sid}.{until}.1.{signature}",
        f"{version}.{'A' * 22}.{until}.{signature}",
        f"{version}.{sid}.{until}.{'A' * 43}",
        "nonsense",
    ):
        assert sessions.find({"HTTP_COOKIE": f"{COOKIE}={forged}"}) is None
    assert sessions.find({"HTTP_COOKIE": f"{COOKIE}={value}"}) == Session(sid, signed_in=False)


def test_another_token_signs_everybody_out(sessions, clock):
    _, cookie = create(sessions)
    other = Sessions(lambda: b"secret", clock, "the token of tomorrow")
    assert other.find(asking(cookie)) is None


def test_a_form_token_belongs_to_one_session(sessions):
    one, other = create(sessions)[0], create(sessions)[0]
    assert sessions.is_form_token(one, sessions.form_token(one))
    assert not sessions.is_form_token(other, sessions.form_token(one))
    assert not sessions.is_form_token(one, "ünsinn")
