"""Raw engine routes: whole requests below a path go to a chain of proxy engines."""

from __future__ import annotations

import threading

import flask
import pytest
from werkzeug.serving import make_server
from werkzeug.wrappers import Request, Response

from om_plugins import OpenManager
from om_plugins.builtin.engines.proxy import ProxyEngine
from om_plugins.errors import ConfigError


@Request.application
def upstream(request):
    if request.path.endswith("/gone"):
        return Response("no such thing", 404, headers={"X-Up": "1"})
    if request.path.endswith("/stream"):
        return Response((part for part in ("a", "b")), content_type="text/plain")
    return Response(
        f"{request.method} {request.full_path} {request.get_data(as_text=True)} "
        f"for={request.headers.get('X-Forwarded-For')} key={request.headers.get('X-Key')}",
        201,
        headers=[("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")],
    )


@pytest.fixture(scope="module")
def url():
    server = make_server("127.0.0.1", 0, upstream, threaded=True)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield f"http://127.0.0.1:{server.port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def make(url):
    made = []

    def build(path="/api/", proxies=0, **options):
        app = flask.Flask("front")
        app.config.update(
            TESTING=True,
            OM_PROXIES=proxies,
            OM_ROUTES={
                path: {"chain": "web", "raw": True, **options},
                "/api/own": {"chain": "web", "rate": None},
            },
            OM_CHAINS={"web": {"retries": 0}},
        )
        om = OpenManager(app)
        made.append(om)
        om.add_engine(ProxyEngine("dead", "http://127.0.0.1:9"), chain="web", tier=1)
        om.add_engine(ProxyEngine("alive", url + "/base"), chain="web", tier=2)

        @app.get("/api")
        @app.get("/apix")
        def host():
            return "the host app"

        app.om = om
        return app

    yield build
    for om in made:
        om.runtime.close()


def test_behind_a_proxy_it_is_the_proxy_that_is_added_after_its_client(make):
    told = {"X-Forwarded-For": "6.6.6.6, 1.1.1.1"}
    reply = make(proxies=1).test_client().get("/api/x", headers=told)
    assert "for=6.6.6.6, 1.1.1.1, 127.0.0.1 key" in reply.text
    reply.close()
    reply = make().test_client().get("/api/x", headers=told)
    assert "for=127.0.0.1 key" in reply.text


def test_every_method_and_path_below_goes_to_the_first_upstream_that_answers(make):
    client = make().test_client()
    for method in ("GET", "POST", "PUT", "PATCH", "DELETE"):
        reply = client.open("/api/x/y%2Fz?a=1&a=2", method=method, data=b"body")
        assert reply.status_code == 201, reply.text
        assert reply.text.startswith(f"{method} /base/api/x/y/z?a=1&a=2 body")
        assert reply.headers.getlist("Set-Cookie") == ["a=1", "b=2"]


def test_what_the_upstream_says_is_the_answer(make):
    client = make().test_client()
    reply = client.get("/api/gone")
    assert (reply.status_code, reply.text, reply.headers["X-Up"]) == (404, "no such thing", "1")
    assert client.get("/api/stream").text == "ab"
    reply = client.head("/api/x")
    assert (reply.status_code, reply.data) == (201, b"")


def test_other_paths_and_exact_routes_are_not_passed_on(make):
    client = make().test_client()
    assert client.get("/api").text == "the host app"
    assert client.get("/apix").text == "the host app"
    assert client.post("/api/own", data=b"no json").status_code == 415


def test_the_longest_path_wins_and_everything_may_be_passed_on(make):
    client = make("/").test_client()
    assert client.get("/api").text.startswith("GET /base/api?")
    assert client.get("/_om/health").json == {"status": "ok"}


def test_the_host_is_checked_clients_are_counted_and_auth_is_asked(make):
    app = make(rate="2/min", auth=lambda request: request.headers.get("X-Key") == "right")
    client, key = app.test_client(), {"X-Key": "right"}
    assert client.post("/api/x", data=b"body", headers=key).text.find(" body for=") > 0
    reply = client.get("/api/x")
    assert (reply.status_code, reply.content_type) == (401, "application/problem+json")
    reply = client.get("/api/x", headers=key)
    assert reply.status_code == 429
    assert int(reply.headers["Retry-After"]) > 0


def test_a_body_over_the_limit_is_refused(make):
    assert make(max_body=3).test_client().post("/api/x", data=b"body").status_code == 413


def test_when_nobody_answers_it_is_a_problem(make):
    app = make(chain="lost")
    app.om.add_engine(ProxyEngine("dead", "http://127.0.0.1:9"), chain="lost")
    reply = app.test_client().get("/api/x")
    assert (reply.status_code, reply.content_type) == (502, "application/problem+json")


def test_monitoring_names_the_route_and_never_the_path(make):
    app = make()
    for number in range(3):
        app.test_client().get(f"/api/{number}").close()
    routes = [row["route"] for row in app.om.runtime.part_of("monitoring").overview()["routes"]]
    assert routes == ["/api/*"]


@pytest.mark.parametrize(
    ("path", "options", "said"),
    [
        ("/api", {}, "end it with '/'"),
        ("/api/", {"cors": ["*"]}, "cors"),
        ("/api/", {"require_key": True}, "require_key"),
    ],
)
def test_a_wrong_raw_route_stops_the_start(make, path, options, said):
    with pytest.raises(ConfigError, match=said):
        make(path, **options)
