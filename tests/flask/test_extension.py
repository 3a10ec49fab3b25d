"""The one line: what it adds, and that nothing of the app changes.

Covers ``om_plugins.flask.app_state``, ``om_plugins.flask.parts`` and
``om_plugins.flask.templates``.
"""

from __future__ import annotations

import gc
import logging
import re
import weakref
from contextlib import nullcontext
from datetime import timedelta

import pytest
from flask import Blueprint, Flask, Response, abort, render_template_string, session
from flask.views import View
from markupsafe import Markup
from werkzeug.middleware.proxy_fix import ProxyFix

from om_plugins import OpenManager, StaleEngine, StaticEngine, hookimpl, signals
from om_plugins.errors import ConfigError, PluginError
from om_plugins.types import EngineSpec, EngineTraits, PluginInfo

PAGE = """<!doctype html><title>{{ title }}</title>
<style>p { color: teal }</style>
<script>document.title = "ready"</script>
<p onclick="go()" style="color: red">{{ title }}</p>{{ widget }}"""

WIDGET = Markup("<script>widget()</script>")


def make_app(**config):
    app = Flask(__name__)
    app.config.update(TESTING=True, SECRET_KEY="for tests only", **config)

    @app.get("/")
    def hello():
        return "<p>Hello</p>"

    @app.get("/page")
    def page():
        return render_template_string(PAGE, title="A & B", widget=WIDGET)

    @app.get("/json")
    def data():
        return {"a": 1}

    @app.get("/gone")
    def gone():
        abort(410)

    @app.get("/broken")
    def broken():
        raise RuntimeError("broken")

    @app.get("/login")
    def login():
        session["user"] = "ann"
        return "in"

    return app


def without_nonces(text):
    return re.sub(r' nonce="[^"]*"', "", text)


@pytest.mark.parametrize("mode", ["adopt", "enforce", "learn", "off"])
@pytest.mark.parametrize("path", ["/", "/page", "/json", "/gone", "/nowhere", "/login"])
def test_every_page_renders_as_without_the_line(path, mode):
    bare = make_app().test_client().get(path)
    app = make_app(OM_CSP_MODE=mode)
    OpenManager(app)
    ours = app.test_client().get(path)
    assert ours.status_code == bare.status_code
    assert without_nonces(ours.text) == bare.text
    assert len(ours.headers.getlist("Set-Cookie")) == len(bare.headers.getlist("Set-Cookie"))
    for name, value in bare.headers.items():
        if name not in ("Content-Length", "Set-Cookie"):  # a session's cookie holds the time
            assert value in ours.headers.getlist(name)


def test_by_default_a_page_is_what_the_app_made_of_it():
    bare, app = make_app(), make_app()
    OpenManager(app)
    before, after = (one.test_client().get("/page") for one in (bare, app))
    assert (after.status, list(after.headers), after.data) == (
        before.status, list(before.headers), before.data
    )  # fmt: skip


def test_enforced_literal_tags_get_the_nonce_and_interpolated_ones_never():
    app = make_app(OM_CSP_MODE="enforce")
    OpenManager(app)
    answer = app.test_client().get("/page")
    nonce = re.search(r"'nonce-([^']+)'", answer.headers["Content-Security-Policy"])[1]
    assert f'<style nonce="{nonce}">' in answer.text
    assert f'<script nonce="{nonce}">document' in answer.text
    assert "<script>widget()</script>" in answer.text


def test_each_response_has_its_own_nonce():
    app = make_app(OM_CSP_MODE="enforce")
    OpenManager(app)
    client = app.test_client()
    assert client.get("/page").text != client.get("/page").text


def test_the_head_helper_brings_the_module_below_the_script_root():
    app = make_app(OM_CSP_MODE="enforce", APPLICATION_ROOT="/sub")
    OpenManager(app)

    @app.get("/head")
    def head():
        return render_template_string("{{ om_head() }}")

    answer = app.test_client().get("/head", base_url="http://localhost/sub")
    nonce = re.search(r"'nonce-([^']+)'", answer.headers["Content-Security-Policy"])[1]
    assert answer.text == (
        f'<script type="module" src="/sub/_om/static/om.js" nonce="{nonce}" data-om-live></script>'
    )


def test_the_head_helper_brings_the_modules_for_queries_where_a_page_asks_for_them():
    app = make_app(OM_CSP_MODE="enforce")
    OpenManager(app)

    @app.get("/head")
    def head():
        return render_template_string("{{ om_head(queries=True) }}")

    client = app.test_client()
    answer = client.get("/head")
    nonce = re.search(r"'nonce-([^']+)'", answer.headers["Content-Security-Policy"])[1]
    early = [
        f'<link rel="modulepreload" href="/_om/static/{name}" nonce="{nonce}">'
        for name in ("query.js", "query_request.js", "query-core.js")
    ]
    assert answer.text.startswith("".join(early) + "<script ")
    for name in ("query.js", "query_request.js", "query-core.js"):
        assert client.get(f"/_om/static/{name}").mimetype == "text/javascript"


@pytest.mark.parametrize(
    ("url", "multiprocess", "times"),
    [("memory://", True, 1), ("memory://", False, 0), (None, True, 0)],
)
def test_it_is_said_once_when_queries_ask_workers_that_share_nothing(
    caplog, tmp_path, url, multiprocess, times
):
    app = make_app(OM_CACHE_URL=url or f"file://{tmp_path}")
    OpenManager(app)
    app.add_url_rule("/head", "head", lambda: render_template_string("{{ om_head(queries=True) }}"))
    client = app.test_client()
    for _ in range(2):
        client.get("/head", environ_overrides={"wsgi.multiprocess": multiprocess})
    said = [r.getMessage() for r in caplog.records if "several workers" in r.getMessage()]
    assert len(said) == times
    assert all("OM_CACHE_URL 'memory://'" in one for one in said)


def test_nonce_helpers_work_in_mode_off():
    app = make_app(OM_CSP_MODE="off")
    OpenManager(app)

    @app.get("/head")
    def head():
        return render_template_string("{{ om_head() }}<script nonce='{{ csp_nonce() }}'></script>")

    answer = app.test_client().get("/head")
    assert answer.status_code == 200
    assert "Content-Security-Policy" not in answer.headers


def test_an_unknown_key_names_the_nearest_known_one():
    with pytest.raises(ConfigError, match=r"OM_CSP_MODDE.*did you mean 'OM_CSP_MODE'"):
        OpenManager(make_app(OM_CSP_MODDE="enforce"))


def test_a_policy_with_a_separator_in_a_value_is_refused_when_the_app_starts():
    with pytest.raises(ConfigError, match="OM_CSP"):
        OpenManager(make_app(OM_CSP={"img-src": ["'self'; script-src *"]}))


def test_settings_changed_before_the_first_request_count():
    app = make_app()
    OpenManager(app)
    app.config["OM_CSP_MODE"] = "enforce"
    assert "'nonce-" in app.test_client().get("/").headers["Content-Security-Policy"]


def test_binding_opens_no_thread_and_no_file(tmp_path, threads_begun):
    app = Flask(__name__, instance_path=str(tmp_path / "instance"))
    om = OpenManager(app)
    om.add_engine(Static("a"), chain="c")
    assert threads_begun == []
    assert not (tmp_path / "instance").exists()


def test_the_environment_of_jinja_is_not_made_early():
    app = make_app()
    OpenManager(app)
    assert "jinja_env" not in app.__dict__
    app.config["TEMPLATES_AUTO_RELOAD"] = True
    assert app.jinja_env.auto_reload is True


def test_an_environment_made_before_the_line_gets_the_nonces_too():
    app = make_app(OM_CSP_MODE="enforce")
    with app.test_request_context():
        render_template_string(PAGE)
    OpenManager(app)
    assert "<style nonce=" in app.test_client().get("/page").text


class Static:
    traits = EngineTraits(idempotent=True, local=True)

    def __init__(self, name):
        self.name = name

    def call(self, call):
        return {"by": self.name}


def test_one_extension_serves_two_apps_without_mixing_them():
    om = OpenManager()
    first, second = make_app(OM_CSP_MODE="enforce"), make_app(OM_CSP_MODE="off")
    om.init_app(first)
    om.init_app(second)
    om.add_engine(Static("shared"), chain="c")
    assert "'nonce-" in first.test_client().get("/").headers["Content-Security-Policy"]
    assert "Content-Security-Policy" not in second.test_client().get("/").headers
    with first.app_context():
        om.cache.set("k", 1)
        chain = om.chain("c")
        assert om.cache.get("k") == 1
    with second.app_context():
        assert om.cache.get("k") is None
        assert om.chain("c") is not chain
        assert om.chain("c").call().payload == {"by": "shared"}
    with pytest.raises(RuntimeError, match=r"with app\.app_context\(\)"):
        om.cache.get("k")


def test_outside_a_context_the_only_app_is_meant():
    app = make_app()  # an OpenManager does not keep its apps alive
    om = OpenManager(app)
    om.cache.set("k", 2)
    assert om.cache.get("k") == 2


def test_an_unbound_extension_says_what_to_do():
    with pytest.raises(RuntimeError, match="init_app"):
        _ = OpenManager().cache


def test_an_app_that_is_not_bound_is_named():
    app = make_app()
    om = OpenManager(app)
    other = make_app()
    with other.app_context(), pytest.raises(RuntimeError, match="not bound"):
        _ = om.cache


def test_a_second_line_on_the_same_app_is_refused():
    app = make_app()
    OpenManager(app)
    with pytest.raises(RuntimeError, match="already"):
        OpenManager(app)


def test_engines_registered_before_and_after_binding_both_count():
    om = OpenManager()

    @om.engine("late", chain="assistant", tier=2, local=True)
    def late(call):
        return {"answer": "resting"}

    def factory():
        app = make_app(OM_ROUTES={"/ask": {"chain": "assistant"}})
        om.init_app(app)
        return app

    app = factory()
    om.add_engine(Static("early"), chain="assistant", tier=1)
    client = app.test_client()
    assert client.post("/ask", json={}).json == {"by": "early"}
    assert factory().test_client().post("/ask", json={}).json == {"by": "early"}


def test_an_unknown_chain_names_the_nearest_one():
    app = make_app()
    om = OpenManager(app)
    om.add_engine(Static("a"), chain="assistant")
    with pytest.raises(ConfigError, match="did you mean 'assistant'"):
        om.chain("asistant")


def test_a_plugin_object_brings_engines_and_policy():
    class Plugin:
        @hookimpl
        def om_plugin_info(self):
            return PluginInfo(summary="for the test")

        @hookimpl
        def om_engines(self, context):
            return [EngineSpec(Static("plugged"), "assistant")]

        @hookimpl
        def om_csp(self, context):
            return {"frame-src": ["https://player.example"]}

    om = OpenManager()
    om.register_plugin(Plugin(), "player")
    app = make_app(OM_CSP_MODE="enforce", OM_CSP={"frame-src": ["'self'"]})
    om.init_app(app)
    assert om.chain("assistant").call().payload == {"by": "plugged"}
    policy = app.test_client().get("/").headers["Content-Security-Policy"]
    assert "frame-src 'self' https://player.example" in policy
    with pytest.raises(RuntimeError, match="before init_app"):
        om.register_plugin(Plugin(), "again")


def test_a_plugin_with_a_wrong_policy_is_named_and_left_out_or_stops_a_strict_app(caplog):
    class Plugin:
        @hookimpl
        def om_csp(self, context):
            return {"script-src": ["self"]}

    def bound(**config):
        om = OpenManager()
        om.register_plugin(Plugin(), "careless")
        app = make_app(OM_CSP_MODE="enforce", **config)
        om.init_app(app)
        return app.test_client().get("/")

    with pytest.raises(PluginError, match=r"careless.*om_csp\['script-src'\] 'self'.*\"'self'\""):
        bound()
    assert " self" not in bound(OM_STRICT=False).headers["Content-Security-Policy"]
    assert "plugin careless: om_csp raised ConfigError" in caplog.text


def test_a_plugin_whose_policy_is_wrong_for_a_response_is_named(caplog):
    class Plugin:
        @hookimpl
        def om_csp(self, context):
            return lambda environ: {"script-src": ["self"]}

    om = OpenManager()
    om.register_plugin(Plugin(), "careless")
    app = make_app(OM_CSP_MODE="enforce")
    om.init_app(app)
    assert app.test_client().get("/").status_code == 200
    assert "om_csp of the plugin 'careless' failed; its sources are left out" in caplog.text
    assert "write \"'self'\"" in caplog.text


def test_signals_are_sent_by_the_app():
    app = make_app()
    om = OpenManager(app)
    om.add_engine(Static("a"), chain="c")
    seen = []

    def receiver(app, **details):
        seen.append((app, details["engine"]))

    with signals.engine_called.connected_to(receiver):
        om.chain("c").call()
    ((sender, engine),) = seen
    assert isinstance(sender, Flask)
    assert engine == "a"


def test_an_inner_proxy_fix_is_explained(caplog):
    app = make_app()
    app.wsgi_app = ProxyFix(app.wsgi_app)
    with caplog.at_level(logging.WARNING, "om_plugins"):
        OpenManager(app)
    assert "OM_PROXIES" in caplog.text
    app = make_app(OM_PROXIES=1)
    app.wsgi_app = ProxyFix(app.wsgi_app)
    with pytest.raises(ConfigError, match="ProxyFix"):
        OpenManager(app)


def test_a_view_may_change_its_policy():
    app = make_app(OM_CSP_MODE="enforce")
    om = OpenManager(app)

    @app.get("/video")
    @om.csp(update={"frame-src": ["https://player.example"]})
    def video():
        return "<p>video</p>"

    @app.get("/old")
    @om.csp(exempt=True)
    def old():
        return "<p>old</p>"

    client = app.test_client()
    assert (
        "frame-src https://player.example"
        in client.get("/video").headers["Content-Security-Policy"]
    )
    assert "Content-Security-Policy" not in client.get("/old").headers
    assert "frame-src" not in client.get("/").headers["Content-Security-Policy"]


def test_a_blueprint_and_its_views_may_change_their_policies():
    app = make_app(OM_CSP_MODE="enforce")
    om = OpenManager(app)
    admin = Blueprint("admin", __name__, url_prefix="/admin")
    assert om.csp(replace={"img-src": ["'self'"]})(admin) is admin

    @admin.get("/")
    def index():
        return "<p>admin</p>"

    @admin.get("/maps")
    @om.csp(update={"img-src": ["https://tiles.example"]})
    def maps():
        return "<p>maps</p>"

    app.register_blueprint(admin)
    client = app.test_client()
    policies = {
        path: client.get(path).headers["Content-Security-Policy"]
        for path in ("/", "/admin/", "/admin/maps", "/admin/none")
    }
    assert "img-src 'self'" in policies["/admin/"]
    assert "img-src 'self' https://tiles.example" in policies["/admin/maps"]
    assert "img-src" not in policies["/"] + policies["/admin/none"]


def test_a_view_may_change_its_other_headers():
    app = make_app(OM_PERMISSIONS_POLICY={"camera": []}, OM_HEADERS={"X-Frame-Options": "DENY"})
    om = OpenManager(app)

    @app.get("/embed")
    @om.headers(
        {"X-Frame-Options": None, "Referrer-Policy": "no-referrer"},
        permissions_policy={"camera": ["self"]},
    )
    def embed():
        return "<p>embed</p>"

    client = app.test_client()
    changed, usual = client.get("/embed").headers, client.get("/").headers
    assert "X-Frame-Options" not in changed
    assert changed["Referrer-Policy"] == "no-referrer"
    assert changed["Permissions-Policy"] == "camera=(self)"
    assert usual["X-Frame-Options"] == "DENY"
    assert usual["Permissions-Policy"] == "camera=()"
    for wrong in (
        {"X-Frame-Options": "ALLOWALL"},
        {"Content-Security-Policy": None},
        {"X-A": " "},
        {"a b": "c"},
        {"X-A": "b\nc"},
    ):
        with pytest.raises(ConfigError, match="headers"):
            om.headers(wrong)
    for policy in ({"camer": []}, {"camera": None}, "camera=()", {"camera": "slef"}):
        with pytest.raises(ConfigError, match=r"headers\(permissions_policy\)"):
            om.headers(permissions_policy=policy)


@pytest.mark.parametrize(
    ("config", "secure", "samesite"),
    [
        ({}, False, None),
        ({"OM_SECURE_COOKIES": True}, True, "Lax"),
        ({"OM_SECURE_COOKIES": True, "DEBUG": True}, False, "Lax"),
        ({"OM_SECURE_COOKIES": True, "TESTING": True}, False, "Lax"),
        ({"OM_SECURE_COOKIES": True, "OM_ENABLED": False}, False, None),
        ({"OM_SECURE_COOKIES": True, "SESSION_COOKIE_SAMESITE": "Strict"}, True, "Strict"),
    ],
)
def test_cookies_get_their_flags_when_asked(config, secure, samesite):
    app = make_app(OM_HUB_URL="memory://")
    app.config["TESTING"] = False
    OpenManager(app)
    app.config.update(config)

    @app.get("/in")
    def sign_in():
        session["user"] = 1
        return "in"

    cookie = app.test_client().get("/in").headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert ("Secure" in cookie) is secure
    assert (f"SameSite={samesite}" in cookie) is (samesite is not None)
    app.extensions["om_plugins"].close()


def test_the_views_own_policy_is_kept():
    app = make_app(OM_CSP_MODE="enforce")
    OpenManager(app)

    @app.get("/own")
    def own():
        return Response("<p>own</p>", headers={"Content-Security-Policy": "default-src 'self'"})

    headers = app.test_client().get("/own").headers
    assert headers.getlist("Content-Security-Policy") == ["default-src 'self'"]


def test_errors_keep_their_policy_and_exceptions_their_handlers():
    app = make_app(OM_CSP_MODE="enforce")
    OpenManager(app)
    app.config["PROPAGATE_EXCEPTIONS"] = False
    answer = app.test_client().get("/broken")
    assert answer.status_code == 500
    assert "'nonce-" in answer.headers["Content-Security-Policy"]


def test_blueprint_templates_are_covered():
    app = make_app(OM_CSP_MODE="enforce")
    OpenManager(app)
    blueprint = Blueprint("b", __name__, url_prefix="/b")

    @blueprint.get("/")
    def index():
        return render_template_string("<script>1</script>")

    app.register_blueprint(blueprint)
    assert "<script nonce=" in app.test_client().get("/b/").text


def test_the_auth_callback_runs_inside_the_apps_request_context():
    def auth(request):
        return session.get("user") == "ann"

    app = make_app(OM_ROUTES={"/ask": {"chain": "c", "auth": auth}})
    om = OpenManager(app)
    om.add_engine(Static("a"), chain="c")
    client = app.test_client()
    assert client.post("/ask", json={}).status_code == 401
    client.get("/login")
    assert client.post("/ask", json={}).json == {"by": "a"}


def test_a_dropped_app_and_extension_are_collected():
    app = make_app()
    om = OpenManager(app)
    app.test_client().get("/")
    om.cache.set("k", 1)
    reference = weakref.ref(app)
    del app, om
    gc.collect()
    assert reference() is None


def test_the_kill_switch_leaves_views_and_decorators_working():
    app = make_app(OM_ENABLED=False)
    om = OpenManager(app)
    calls = []

    @app.get("/report")
    @om.cached(stale_time=300)
    def report():
        calls.append(1)
        return "report"

    client = app.test_client()
    assert [client.get("/report").text for _ in range(2)] == ["report", "report"]
    assert len(calls) == 2
    assert "Content-Security-Policy" not in client.get("/page").headers


def test_a_cached_view_runs_once_and_a_memoized_function_too():
    app = make_app()
    om = OpenManager(app)
    calls = []

    @app.get("/report")
    @om.cached(stale_time=300, tags=["report"])
    def report():
        calls.append("view")
        return {"n": len(calls)}

    @om.memoize(stale_time=300)
    def square(n):
        calls.append("square")
        return n * n

    @om.memoize
    def cube(n):
        calls.append("cube")
        return n**3

    client = app.test_client()
    assert client.get("/report").json == client.get("/report").json == {"n": 1}
    assert (square(3), square(3), square(4)) == (9, 9, 16)
    assert calls == ["view", "square", "square"]
    assert (cube(2), cube(2), cube.cache_key(2)[-1]) == (8, 8, 2)
    assert calls[3:] == ["cube"]
    with pytest.raises(TypeError, match="stale_tme"):
        om.memoize(stale_tme=5)


def test_a_cached_view_may_be_written_without_parentheses():
    app = Flask("shop")
    app.secret_key = "of the test"
    app.testing = True
    om = OpenManager(app)
    runs = []

    @app.get("/bare/<name>")
    @om.cached
    def bare(name):
        """Say hello."""
        runs.append(name)
        return f"hello {name}"

    client = app.test_client()
    assert [client.get("/bare/ann").text for _ in range(2)] == ["hello ann"] * 2
    assert client.get("/bare/bob").text == "hello bob"
    assert runs == ["ann", "bob"]
    assert (bare.__name__, bare.__doc__) == ("bare", "Say hello.")


def test_a_bare_cached_view_above_its_route_is_reported(caplog):
    app = Flask("shop")
    app.testing = True
    om = OpenManager(app)

    @om.cached
    @app.get("/")
    def index():
        return ""

    app.test_client().get("/")
    assert "@om.cached has no effect on the view 'index'" in caplog.text


def test_an_argument_of_cached_needs_its_name():
    app = Flask("shop")
    om = OpenManager(app)
    with pytest.raises(TypeError, match=r"60 is no view: write .* @om\.cached\(stale_time=60\)"):
        om.cached(60)


def test_waiting_jobs_run_when_a_test_asks_for_it() -> None:
    app = Flask(__name__)
    app.testing = True
    om = OpenManager(app)
    done: list[bool] = []
    om.runtime.scheduler.submit(lambda: done.append(True), name="job")
    assert done == []
    om.run_pending_jobs()
    assert done == [True]


def test_the_changes_of_a_chain_are_taken_back() -> None:
    app = Flask(__name__)
    app.testing = True
    om = OpenManager(app)
    om.add_engine(StaticEngine("one", {}), chain="a")
    om.add_engine(StaticEngine("one", {}), chain="b")
    for chain in ("a", "b"):
        om.configure(chain, timeout=3)
    om.reset_chain("a")
    assert (om.chain("a").policy.timeout, om.chain("b").policy.timeout) == (10.0, 3.0)
    om.reset_chain()
    assert om.chain("b").policy.timeout == 10.0


def test_the_parts_of_recovery_have_public_names() -> None:
    app = Flask(__name__)
    app.testing = True
    om = OpenManager(app)
    app.add_url_rule("/", "index", lambda: 1 / 0)
    for _ in range(12):
        app.test_client().post("/")
    om.run_pending_jobs()
    assert [one.subject for one in om.wrong_methods.current()] == ["route:/"]
    assert om.recovery.patterns() == []


# --- arguments that are wrong -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "error", "parts"),
    [
        (lambda om: om.cached(timeout=300), TypeError, ["@om.cached", "'timeout'", "stale_time="]),
        (lambda om: om.cached(ttl=300), TypeError, ["'ttl'", "cache_time="]),
        (lambda om: om.cached(stail_time=3), TypeError, ["'stail_time'", "mean 'stale_time'"]),
        (lambda om: om.cached(query_string=True), TypeError, ["'query_string'", "query="]),
        (lambda om: om.cached(300), TypeError, ["300", "@om.cached(stale_time=60)"]),
        (lambda om: om.cached(shared="yes"), ConfigError, ["shared", "'yes'", "True or False"]),
        (lambda om: om.cached(public=1), ConfigError, ["public", "1", "True or False"]),
        (lambda om: om.cached(scope=object()), TypeError, ["scope", "object", "use str"]),
        (
            lambda om: om.cached(stale_time=60, cache_time=10),
            ValueError,
            ["stale_time=60", "cache_time=10", "leave it out"],
        ),
        (lambda om: om.csp(exempt=True)(Flask("b")), TypeError, ["@om.csp", "settings"]),
        (lambda om: om.csp(exempt=True)(View), TypeError, ["View", "decorators = [om."]),
        (lambda om: om.fallback("stale")(None), TypeError, ["@om.fallback", "None", "views"]),
        (lambda om: om.memoize(60), TypeError, ["60 is no function", "@om.memoize(stale_time=60)"]),
        (lambda om: om.fallback(lambda: "a"), TypeError, ["write @om.fallback('stale')"]),
        (lambda om: om.notify.send("warn", "a"), ValueError, ["'warn'", "mean 'warning'"]),
        (lambda om: om.notify.info("a", duration=timedelta(1)), ConfigError, ["total_seconds()"]),
        (lambda om: om.notify.info("a", duration="3"), ConfigError, ["duration", "text is no"]),
        (lambda om: om.notify.progress("a", percent="50%"), ConfigError, ["'50%'", "0 to 100"]),
        (lambda om: om.notify.info(None), TypeError, ["notify.info", "None", "give a text"]),
        (
            lambda om: om.cache.query("a", list, 9),
            TypeError,
            ["query()", "write stale_time="],
        ),
        (lambda om: om.cache.query("a", list, ttl=9), TypeError, ["'ttl'", "write stale_time="]),
        (lambda om: om.cache.query("a", list, retry=9), TypeError, ["'retry'", "write retries="]),
        (lambda om: om.cache.set("a", 1, 9), TypeError, ["set()", "'timeout'", "stale_time="]),
        (lambda om: om.memoize(maxsize=8), TypeError, ["@om.memoize", "'maxsize'", "known are"]),
        (lambda om: om.memoize(timeout=8), TypeError, ["'timeout'", "stale_time="]),
        (lambda om: om.memoize(retry=8), TypeError, ["'retry'", "write retries="]),
        (lambda om: om.memoize(stale_time=2, cache_time=1), ValueError, ["stale_time=2", "=1"]),
        (
            lambda om: om.memoize(stale_time=timedelta(minutes=5)),
            TypeError,
            ["stale_time", "seconds=300", "total_seconds"],
        ),
        (lambda om: om.engine("a"), TypeError, ["'chain'", "@om.engine('name', chain="]),
        (lambda om: om.engine("a", chain="c", idempotant=True), TypeError, ["'idempotent'"]),
        (lambda om: om.engine("a", chain="c", retries=3), TypeError, ["OM_CHAINS", "retries"]),
        (lambda om: om.engine("a", chain="c", weight=3), TypeError, ["OM_CHAINS", "weight"]),
        (lambda om: om.add_engine(StaticEngine("a", 1)), TypeError, ["'chain'", "write om.add"]),
        (lambda om: om.csp("self"), TypeError, ["too many", "@om.csp(update="]),
        (lambda om: om.csp(directives={}), TypeError, ["'directives'", "update"]),
        (lambda om: om.csp(updat={}), TypeError, ["mean 'update'"]),
        (lambda om: om.headers(x_frame_options="DENY"), TypeError, ["write @om.headers({"]),
        (lambda om: om.fallback(keeps=3), ConfigError, ["keeps", "keep"]),
        (lambda om: om.fallback("stale", keep=5, copy_every=9), ConfigError, ["copy_every", "9"]),
        (lambda om: OpenManager(csp_mode="enforce"), TypeError, ["csp_mode", "app.config"]),
        (lambda om: OpenManager("shop"), ConfigError, ["'shop'", "OpenManagerMiddleware(app)"]),
        (lambda om: OpenManager().init_app(Blueprint("b", "b")), ConfigError, ["Flask app"]),
        (lambda om: StaticEngine("a"), TypeError, ["'payload'", "StaticEngine('sorry'"]),
        (lambda om: StaleEngine("a", keep=5, max_age=9), ConfigError, ["max_age", "9", "keep 5"]),
        (lambda om: StaleEngine("a", keep_s=5), TypeError, ["'keep_s'", "write keep="]),
    ],
)
def test_a_wrong_argument_is_named_with_the_way_out(wrong, error, parts):
    app = make_app()  # an OpenManager does not keep its app
    with pytest.raises(error) as caught:
        wrong(OpenManager(app))(lambda *args: None)
    for part in parts:
        assert part in str(caught.value)


@pytest.mark.parametrize("in_context", [False, True])
def test_settings_that_come_after_the_line_hold_for_code_before_the_first_request(in_context):
    app = Flask("late")
    om = OpenManager(app)

    @om.engine("down", chain="c", idempotent=True)
    def down(call):
        raise OSError("down")

    app.testing = True
    app.config["OM_CHAINS"] = {"c": {"retries": 1}}
    with app.app_context() if in_context else nullcontext():
        assert om.chain("c").policy.retries == 1
        assert type(om.runtime.clock).__name__ == "UnsleepingClock"
        om.cache.set("a", 1)
        before = om.runtime
        app.config["OTHER"] = 1
        assert om.runtime is before
        assert om.cache.get("a") == 1
        app.config["OM_CHAINS"] = {"c": {"retirs": 1}}
        with pytest.raises(ConfigError, match="did you mean 'retries'"):
            om.chain("c")
        app.config["OM_CHAINS"] = {"c": {"retries": 2}}
        assert om.chain("c").policy.retries == 2


def test_settings_hold_from_the_first_request_on():
    app = make_app()
    om = OpenManager(app)
    app.test_client().get("/")
    before = om.runtime
    app.config["OM_CHAINS"] = {"c": {"retries": 1}}
    assert om.runtime is before
    assert before.renew is None


def test_a_function_engine_has_all_the_options_of_its_class():
    om = OpenManager(make_app())
    om.engine("slow", chain="c", max_threads=2, interrupt=False, idempotent=True)(lambda call: 5)
    assert om.chain("c").call().payload == 5
    assert om.chain("c").engines[0].engine.pool is not None
    om.engine("stopped", chain="d", interrupt=True)(lambda call: 6)
    assert om.chain("d").call().payload == 6
    with pytest.raises(ConfigError, match=r"max_threads\) '8': must be a whole number"):
        om.engine("wrong", chain="c", max_threads="8")(lambda call: 5)
