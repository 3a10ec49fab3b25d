"""One state for each request: shared by copies of the environ, kept apart between requests.

Covers ``om_plugins.flask.current``, by which an app's templates and views find theirs.
"""

import copy
import os
import pickle
import re
import threading
from wsgiref.validate import validator

import pytest
from flask import (
    Flask,
    Response,
    current_app,
    render_template_string,
    request,
    stream_template_string,
)
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.test import Client, create_environ, run_wsgi_app

from om_plugins import OpenManager, OpenManagerMiddleware, Settings
from om_plugins.builtin.engines.wsgi import WsgiEngine
from om_plugins.core.inputs import InputRules
from om_plugins.core.request_state import (
    KEY,
    Nonces,
    RequestState,
    begin,
    build_background_request,
    end,
    state_of,
)
from om_plugins.csp.nonce import nonce
from om_plugins.csp.override import override
from om_plugins.types import Call, HttpRequest

CSP = "Content-Security-Policy"
SCRIPT = "<script>start()</script>"


def make_app(name="app", mode="enforce", copies=0, **config):
    """A Flask app with pages; ``copies`` of middleware between its layers and Flask copy the
    environ."""
    app = Flask(name)
    app.testing = True
    app.secret_key = "k" * 16
    app.config.update(OM_CSP_MODE=mode, OM_CSP_REPORT_SAMPLE=0, OM_HUB_URL="memory://", **config)
    for _ in range(copies):
        app.wsgi_app = copying(app.wsgi_app)
    app.om = OpenManager(app)

    @app.get("/")
    def index():
        return render_template_string(SCRIPT)

    @app.get("/streamed")
    def streamed():
        return Response(stream_template_string("{{ 'x' * 9000 }}" + SCRIPT), mimetype="text/html")

    @app.get("/exempt")
    @app.om.csp(exempt=True)
    @app.om.headers({"X-Frame-Options": "DENY"})
    def exempt():
        return SCRIPT

    return app


def copying(app):
    return lambda environ, start_response: app(environ.copy(), start_response)


def nonces_of(answer):
    page = set(re.findall(r'nonce="([^"]*)"', answer.text))
    policy = ";".join(value for name, value in answer.headers if name.startswith(CSP))
    return page, set(re.findall(r"'nonce-([^']*)'", policy))


def assert_nonces_agree(answer):
    page, policy = nonces_of(answer)
    assert page == policy
    assert len(page) == 1


# --- the state itself -----------------------------------------------------------------------------


def test_a_copy_of_the_environ_shares_the_state():
    environ = {}
    state = begin(environ, "owner")
    for same in (environ.copy(), copy.copy(environ), copy.deepcopy(environ)):
        assert state_of(same) is state


def test_the_outermost_layer_makes_a_new_state_and_puts_back_the_one_that_it_found():
    environ = {}
    outer = begin(environ, "one")
    inner = begin(environ, "two")
    assert state_of(environ) is inner
    end(environ, inner)
    assert state_of(environ) is outer


def test_a_state_stays_when_there_is_none_to_put_back():
    environ = {}
    state = begin(environ, "owner")
    end(environ, state)
    assert state_of(environ) is state


def test_an_end_that_comes_twice_puts_back_once():
    environ = {}
    outer = begin(environ, "one")
    first = begin(environ, "two")
    end(environ, first)
    second = begin(environ, "two")
    end(environ, first)
    assert state_of(environ) is second
    end(environ, second)
    assert state_of(environ) is outer


def test_another_application_does_not_see_the_state():
    environ = {}
    mine = begin(environ, "one")
    theirs = state_of(environ, "two")
    theirs.route = "/theirs"
    theirs.overrides = ("theirs",)
    assert state_of(environ, "one") is mine
    assert mine.route is None
    assert mine.overrides == ()


def test_an_application_finds_its_own_state_after_the_outer_one_was_put_back():
    environ = {}
    begin(environ, "one")
    mine = begin(environ, "two")
    end(environ, mine)
    assert state_of(environ, "two") is mine


def test_a_request_that_no_layer_has_seen_has_one_state():
    environ = {}
    assert state_of(environ, "one") is state_of(environ, "one") is state_of(environ)


def test_a_header_that_is_sent_first_does_not_say_that_the_page_uses_the_nonce():
    state = RequestState(None)
    sent = state.nonce_for_header()
    assert state.page_nonce is None
    assert state.nonce_for_page() == sent == state.page_nonce


def test_the_header_gets_the_nonce_that_the_page_asked_for():
    state = RequestState(None)
    asked = state.nonce_for_page()
    assert state.nonce_for_header() == asked
    assert state.header_nonce is None


def test_a_nested_request_has_the_nonce_of_the_outer_one_and_leaves_no_other_trace_there():
    environ = {}
    outer = begin(environ, "one")
    inner = begin(environ, "two")
    value = inner.nonce_for_page()
    assert (outer.page_nonce, outer.header_nonce, outer.stitched) == (None, None, False)
    assert outer.nonce_for_header() == value


def test_a_stored_page_and_its_header_have_the_same_fresh_nonce():
    state = RequestState(None)
    value = state.nonce_for_stored_page()
    assert state.stitched
    assert state.nonce_for_header() == value == state.page_nonce
    assert RequestState(None).nonce_for_stored_page() != value


def test_marks_make_another_request_the_one_of_the_stored_response():
    state = RequestState(None, plain=True, overrides=("o",), hashes={"h": None}, route="/r")
    again = RequestState(None, plain=False)
    again.apply(state.marks())
    assert again.marks() == state.marks()
    assert RequestState(None, plain=False).marks() == {}


def test_a_refresh_may_do_what_its_page_may_and_knows_nothing_of_its_request():
    state = RequestState("owner", plain=True, hashes=("h",), page_nonce="n", overrides=("o",))
    found = state.successor()
    assert (found.owner, found.plain, found.hashes) == ("owner", False, {})
    assert (found.page_nonce, found.overrides) == (None, ())
    assert RequestState("owner").successor().plain is None
    assert RequestState("owner").successor().hashes is None


# --- middleware that copies the environ -----------------------------------------------------------


@pytest.mark.parametrize("copies", [0, 1, 2])
@pytest.mark.parametrize("path", ["/", "/streamed"])
def test_page_and_policy_agree_behind_middleware_that_copies_the_environ(copies, path):
    assert_nonces_agree(make_app(copies=copies).test_client().get(path))


@pytest.mark.parametrize("copies", [0, 1])
def test_what_a_view_changes_is_not_lost_in_a_copy(copies):
    answer = make_app(copies=copies).test_client().get("/exempt")
    assert CSP not in answer.headers
    assert answer.headers["X-Frame-Options"] == "DENY"


def test_a_page_that_may_stay_plain_stays_plain_behind_a_copy():
    answer = make_app(mode="adopt", copies=1).test_client().get("/")
    assert answer.text == SCRIPT
    assert "nonce" not in answer.headers.get(CSP, "")


def test_a_405_behind_a_copy_is_counted_once():
    app = make_app(copies=1)
    for _ in range(20):
        app.test_client().post("/exempt").close()
    assert [one.count for one in app.om.runtime.part_of("recovery").wrong_methods.current()] == [20]


def test_a_wsgi_app_behind_a_copy_has_the_nonce_of_its_policy():
    def app(environ, start_response):
        text = f'<script nonce="{nonce(environ)}">'.encode()
        start_response("200 OK", [("Content-Type", "text/html")])
        return [text]

    layers = OpenManagerMiddleware(copying(app), Settings(csp_mode="enforce"))
    assert_nonces_agree(Client(layers).get("/"))


# --- requests inside of requests ------------------------------------------------------------------


@pytest.mark.parametrize("inside", ["test client", "same environ", "copy of the environ"])
@pytest.mark.parametrize("name", ["itself", "another app"])
def test_an_inner_request_never_changes_the_outer_page(inside, name):
    app = make_app()
    inner = app if name == "itself" else make_app("inner")

    @app.get("/outer")
    def outer():
        environ = {**request.environ, "PATH_INFO": "/exempt"}
        if inside == "test client":
            answer = inner.test_client().get("/exempt", environ_overrides={KEY: environ[KEY]})
            policy = answer.headers.get(CSP)
        else:
            if inside == "same environ":
                request.environ["PATH_INFO"] = "/exempt"
                environ = request.environ
            _, _, headers = run_wsgi_app(inner, environ)
            policy = headers.get(CSP)
        assert policy is None
        return render_template_string(SCRIPT)

    answer = app.test_client().get("/outer")
    assert_nonces_agree(answer)
    assert "X-Frame-Options" not in answer.headers


def test_an_inner_request_that_uses_its_nonce_does_not_make_the_outer_answer_private():
    app = make_app()

    @app.get("/data")
    def data():
        answer = Client(app).open(environ_overrides={**request.environ, "PATH_INFO": "/"})
        assert_nonces_agree(answer)
        return {"size": len(answer.data)}

    assert "Cache-Control" not in app.test_client().get("/data").headers


def test_a_view_of_another_app_without_its_layers_cannot_exempt_the_page():
    inner = make_app("inner")
    bare = Flask.wsgi_app.__get__(inner)
    app = make_app()

    @app.get("/outer")
    def outer():
        run_wsgi_app(bare, {**request.environ, "PATH_INFO": "/exempt"})
        return render_template_string(SCRIPT)

    assert_nonces_agree(app.test_client().get("/outer"))


@pytest.mark.parametrize("outer_mode", ["enforce", "adopt", "off"])
@pytest.mark.parametrize("inner_mode", ["enforce", "adopt"])
@pytest.mark.parametrize("path", ["/", "/streamed"])
@pytest.mark.parametrize("between", [lambda app: app, copying])
def test_two_applications_around_one_page_agree_on_the_nonce(outer_mode, inner_mode, path, between):
    inner = make_app("inner", inner_mode)
    layers = OpenManagerMiddleware(between(inner), Settings(csp_mode=outer_mode))
    page, policy = nonces_of(Client(layers).get(path))
    if outer_mode == "enforce" or inner_mode == "enforce":
        assert page == policy
        assert len(page) == 1
    else:
        assert page <= policy


@pytest.mark.parametrize("path", ["/", "/streamed"])
@pytest.mark.parametrize("mode", ["enforce", "adopt"])
def test_an_app_below_a_dispatcher_has_its_own_policy_and_nonce(path, mode):
    outer, inner = make_app("outer"), make_app("inner", mode)
    outer.wsgi_app = DispatcherMiddleware(outer.wsgi_app, {"/inner": inner.wsgi_app})
    around = make_app("around")
    around.wsgi_app = DispatcherMiddleware(Flask.wsgi_app.__get__(around), {"/inner": inner})
    layers = OpenManagerMiddleware(around.wsgi_app, Settings(csp_mode="enforce"))
    assert_nonces_agree(outer.test_client().get(path))
    assert_nonces_agree(Client(layers).get("/inner" + path))
    page, policy = nonces_of(outer.test_client().get("/inner" + path))
    assert page <= policy or not page


def test_the_outer_state_is_back_when_an_inner_app_raises():
    def raising(environ, start_response):
        override(environ, exempt=True)
        raise ValueError("inner")

    inner = OpenManagerMiddleware(raising, Settings(csp_mode="enforce"))

    def app(environ, start_response):
        with pytest.raises(ValueError, match="inner"):
            inner(environ, start_response)
        text = f'<script nonce="{nonce(environ)}">'.encode()
        start_response("200 OK", [("Content-Type", "text/html")])
        return [text]

    assert_nonces_agree(Client(OpenManagerMiddleware(app, Settings(csp_mode="enforce"))).get("/"))


def test_an_app_behind_a_wsgi_engine_has_a_state_of_its_own():
    inner = make_app("inner")
    app = make_app()
    engine = WsgiEngine("inner", inner)

    @app.get("/outer")
    def outer():
        answer = engine.call(Call(HttpRequest("GET", "/exempt", [], b""))).payload
        assert CSP not in dict(answer.headers)
        return render_template_string(SCRIPT)

    answer = app.test_client().get("/outer")
    assert_nonces_agree(answer)
    assert "X-Frame-Options" not in answer.headers


# --- requests without layers ----------------------------------------------------------------------


def test_a_template_that_is_rendered_in_a_test_context_has_one_nonce():
    app = make_app()
    with app.test_request_context():
        page = render_template_string("{{ csp_nonce() }} {{ csp_nonce() }} " + SCRIPT)
        assert len(set(re.findall("[0-9a-f]{32}", page))) == 1
        assert state_of(request.environ, current_app._get_current_object()).page_nonce in page


def test_the_environ_that_applications_get_is_as_pep_3333_says():
    def app(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/html")])
        return [b"x"]

    layers = validator(OpenManagerMiddleware(validator(app), Settings()))
    body, _, _ = run_wsgi_app(layers, create_environ("/"), buffered=True)
    assert b"".join(body) == b"x"


@pytest.mark.parametrize("use", ["nonce_for_page", "nonce_for_header", "reserve_nonce"])
def test_a_nested_request_gets_the_nonce_that_the_response_uses_already(use):
    state = RequestState(None)
    used = getattr(state, use)()
    assert state.reserve_nonce() == used
    assert state.nonce_for_page() == state.nonce_for_header() == used


# --- many at once ---------------------------------------------------------------------------------


def test_nonces_made_ahead_are_as_long_and_never_the_same():
    nonces = Nonces()
    taken = [nonces.take() for _ in range(1000)]
    assert len(set(taken)) == 1000
    assert {len(bytes.fromhex(one)) for one in taken} == {16}


def test_threads_never_get_the_same_nonce():
    nonces = Nonces()
    taken = []

    def take():
        taken.extend([nonces.take() for _ in range(2000)])

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(taken)) == 8 * 2000


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_sends_none_of_its_parent_s_nonces():
    nonces = Nonces()
    nonces.take()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writer, "".join(nonces.take() for _ in range(64)).encode())
        os._exit(0)
    os.waitpid(child, 0)
    os.close(writer)
    with os.fdopen(reader, encoding="ascii") as pipe:
        said = pipe.read()
    theirs = {said[at : at + 32] for at in range(0, len(said), 32)}
    assert len(theirs) == 64
    assert theirs.isdisjoint(nonces.take() for _ in range(64))


@pytest.mark.parametrize(
    "ask", [RequestState.nonce_for_page, RequestState.nonce_for_header, lambda s: nonce({KEY: s})]
)
def test_page_and_header_take_theirs_from_those_of_the_layer(ask, monkeypatch):
    nonces = Nonces()
    nonces.take()
    monkeypatch.setattr(os, "urandom", lambda size: pytest.fail("asked the system for one"))
    taken = {ask(RequestState(None, nonces.take)) for _ in range(20)}
    assert len(taken) == 20


# --- a request in the background ------------------------------------------------------------------


def background(**fields):
    environ = create_environ("/page?x=1", "http://h.example", method="HEAD", headers=fields)
    return environ, build_background_request(environ, RequestState(None))


def test_it_is_a_get_for_the_same_address():
    before, made = background(Accept_Language="de")
    for name in ("PATH_INFO", "QUERY_STRING", "HTTP_HOST", "wsgi.url_scheme"):
        assert made[name] == before[name]
    assert made["REQUEST_METHOD"] == "GET"
    assert made["wsgi.input"].read() == b""


ASKED = {
    "Cookie": "a=b; s=1",
    "Authorization": "Basic x",
    "If-None-Match": '"a"',
    "Range": "bytes=0-1",
    "Cache-Control": "no-cache",
    "X-A": "1",
}


def test_cookies_credentials_conditions_and_ranges_are_left_out():
    environ = create_environ("/", headers=ASKED) | {"REMOTE_USER": "me", "om_plugins.other": "x"}
    made = build_background_request(environ, RequestState(None))
    left = {name for name in made if name.startswith("HTTP_")} - {"HTTP_HOST"}
    assert left == {"HTTP_X_A"}
    assert "REMOTE_USER" not in made
    assert "om_plugins.other" not in made


@pytest.mark.parametrize(
    ("names", "cookie", "left"),
    [
        ((), "", {}),
        (("header:x-a",), "", {"HTTP_X_A": "1"}),
        (("cookie:a", "header:x-b"), "", {"HTTP_COOKIE": "a=b"}),
        (("session:user",), "s", {"HTTP_COOKIE": "s=1"}),
        (("cookies",), "", {"HTTP_COOKIE": "a=b; s=1"}),
        (("header:range", "header:if-none-match", "header:cache-control"), "", {}),
    ],
)
def test_with_rules_it_brings_who_asks_and_the_inputs_that_count(names, cookie, left):
    environ = create_environ("/", headers=ASKED) | {"REMOTE_USER": "me", "om_plugins.other": "x"}
    rules = InputRules()
    made = build_background_request(environ, RequestState(None), rules, names, cookie)
    found = {k: v for k, v in made.items() if k.startswith("HTTP_") and k != "HTTP_HOST"}
    assert found == {"HTTP_AUTHORIZATION": "Basic x", **left}
    assert rules.read_address(made) == rules.read_address(environ)
    assert "om_plugins.other" not in made


def test_a_pickled_environ_brings_a_state_of_no_application():
    state = RequestState(threading.Lock(), page_nonce="N", plain=False)  # an owner without a pickle
    copied = pickle.loads(pickle.dumps({KEY: state, "PATH_INFO": "/"}))
    assert copied["PATH_INFO"] == "/"
    assert (copied[KEY].owner, copied[KEY].page_nonce, copied[KEY].plain) == (None, None, None)
    assert copy.copy(state).page_nonce == "N"
