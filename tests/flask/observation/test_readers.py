"""Known readers with the real packages, and what of the same packages counts."""

from __future__ import annotations

import inspect
import itertools
import sys
import warnings

import pytest
from flask import (
    Flask,
    copy_current_request_context,
    g,
    make_response,
    redirect,
    render_template_string,
    request,
    session,
)
from flask.sessions import SecureCookieSessionInterface
from werkzeug.http import generate_etag

from om_plugins.flask.current import current_state
from om_plugins.flask.observation.readers import KNOWN_READERS
from tests.flask.conftest import NOBODY, Page, Visitor, build_app, share, tell_apart

BROWSERS = [
    Visitor(
        headers={"User-Agent": f"Browser/{n}", "X-Forwarded-For": f"192.0.2.{n}"},
        cookies={"_ga": f"GA1.{n}"},
        environ={"REMOTE_ADDR": f"10.0.0.{n}", "REMOTE_PORT": str(4000 + n)},
    )
    for n in range(5)
]


def test_each_row_names_a_function_that_there_is_and_says_why():
    for (module, name), row in KNOWN_READERS.items():
        assert " " in row.reason
        source = inspect.getsource(pytest.importorskip(module))
        assert f"def {name}(" in source, f"{module}.{name}"


# --- Flask and werkzeug -------------------------------------------------------------------------


def test_flask_saves_the_session_without_a_look_of_the_application():
    visitors = [Visitor(session={"_permanent": True, "n": n}) for n in range(3)]
    page = share(lambda: "page", NOBODY, *visitors)
    assert page.counted == set()


def test_opening_a_session_in_an_interface_of_ones_own_is_flasks_look():
    class Interface(SecureCookieSessionInterface):
        def open_session(self, app, request):
            g.at = request.path
            return super().open_session(app, request)

        def save_session(self, app, session, response):
            super().save_session(app, session, response)

    class Site(Flask):
        session_interface = Interface()

    visitors = [Visitor(session={"n": n}) for n in range(3)]
    share(lambda: "page", *visitors, flask_class=Site)


def test_a_conditional_response_may_compare_what_the_browser_has():
    app, om = build_app()
    numbers = itertools.count(1)

    def page():
        response = make_response(f"page {next(numbers)}")
        response.set_etag(generate_etag(b"page"))
        return response.make_conditional(request)

    app.add_url_rule("/page", "page", om.cached()(page))
    tag = NOBODY.ask(app).headers["ETag"]
    found = Visitor(headers={"If-None-Match": tag}).ask(app)
    assert (found.status_code, found.data) == (304, b"")
    assert Visitor(headers={"If-None-Match": '"other"'}).ask(app).text == "page 1"
    part = Visitor(headers={"Range": "bytes=0-3"}).ask(app)
    assert (part.status_code, part.text) == (200, "page 2")  # its own answer, and not a kept one
    assert NOBODY.ask(app).text == "page 1"


def test_a_conditional_answer_for_one_browser_is_not_kept_for_others():
    app, om = build_app()
    counted = []

    @app.teardown_request
    def keep(error):
        counted.append(set(current_state().inputs.counted))

    def page():
        response = make_response("page")
        response.set_etag("tag")
        return response.make_conditional(request, accept_ranges=True, complete_length=4)

    app.add_url_rule("/page", "page", om.cached()(page))
    assert Visitor(headers={"If-None-Match": '"tag"'}).ask(app).status_code == 304
    found = NOBODY.ask(app)
    assert (found.status_code, found.text) == (200, "page")
    part = Visitor(headers={"Range": "bytes=0-1", "If-Range": '"tag"'}).ask(app)
    assert (part.status_code, part.text) == (206, "pa")
    assert counted == [set()] * 3


def test_a_view_that_compares_the_browsers_tag_itself_looks_at_it():
    def body():
        return "short" if request.if_none_match.contains("tag") else "long"

    page = tell_apart(body, NOBODY, Visitor(headers={"If-None-Match": '"tag"'}))
    assert page.counted == {"header:if-none-match"}


def test_a_copied_context_finds_the_route_without_a_look_of_the_application():
    page = share(lambda: copy_current_request_context(lambda: "page")(), *BROWSERS)
    assert page.counted == set()


# --- Flask-Login --------------------------------------------------------------------------------


@pytest.fixture
def login():
    return pytest.importorskip("flask_login")


def set_up_login(app, **manager):
    import flask_login

    class User(flask_login.UserMixin):
        def __init__(self, name):
            self.id = name

    made = flask_login.LoginManager(app)
    made.user_loader(lambda name: User(name) if name != "gone" else None)
    for name, value in manager.items():
        setattr(made, name, value)

    @app.get("/login/<name>")
    def sign_in(name):
        flask_login.login_user(User(name), remember=bool(request.args.get("remember")))
        return "in"

    @app.get("/logout")
    def sign_out():
        flask_login.logout_user()
        return "out"


def signed_in(app, name, **more):
    """Return a client that signed in, as a browser of its own."""
    client = app.test_client()
    client.environ_base.update(HTTP_USER_AGENT=f"Browser of {name}", REMOTE_ADDR="10.1.1.1")
    client.get(f"/login/{name}", query_string=more)
    return client


def greet():
    return render_template_string(
        "{% if current_user.is_authenticated %}hello {{ current_user.id }}{% else %}hello you"
        "{% endif %}"
    )


@pytest.mark.parametrize("protection", ["basic", "strong", None])
def test_anonymous_visitors_of_flask_login_share_pages(login, protection):
    page = share(
        greet, *BROWSERS, setup=lambda app: set_up_login(app, session_protection=protection)
    )
    assert {"header:user-agent", "address"}.isdisjoint(page.counted)


@pytest.mark.parametrize("protection", ["basic", "strong"])
@pytest.mark.parametrize("remember", ["", "1"])
def test_a_signed_in_visitor_hits_his_own_page_and_nobody_gets_it(login, protection, remember):
    page = Page(greet, setup=lambda app: set_up_login(app, session_protection=protection))
    path = f"/{page.number}/page"
    clients = {name: signed_in(page.app, name, remember=remember) for name in ("ann", "bob")}
    for _ in range(4):
        assert page.app.test_client().get(path).text == "hello you"
        for name, client in clients.items():
            assert client.get(path).text == f"hello {name}"
    assert page.runs <= 3 + len(clients)
    before = page.runs
    for name, client in clients.items():
        assert client.get(path).text == f"hello {name}"
    assert page.runs == before


def test_a_page_that_looks_at_nobody_is_public_in_an_app_with_flask_login(login):
    page = share(lambda: "page", *BROWSERS, setup=set_up_login, public=True)
    assert page.counted == set()
    control = page.request(BROWSERS[0]).cache_control
    assert control.public
    assert not control.private


def test_with_an_identifier_in_the_session_the_browser_counts(login):
    page = Page(greet, setup=lambda app: set_up_login(app, session_protection="strong"))
    path = f"/{page.number}/page"
    client = signed_in(page.app, "ann")
    for _ in range(2):
        assert client.get(path).text == "hello ann"
    assert {"header:user-agent", "address"} <= page.counted
    stolen = client.get(path, headers={"User-Agent": "another"})  # the cookie in another browser
    assert stolen.text == "hello you"


def test_who_signs_out_or_in_gets_no_kept_page_of_before(login):
    page = Page(greet, setup=set_up_login)
    path = f"/{page.number}/page"
    client = page.app.test_client()
    for name in ("ann", "bob"):
        assert client.get(path).text == "hello you"
        client.get(f"/login/{name}")
        for _ in range(3):
            assert client.get(path).text == f"hello {name}"
        client.get("/logout")
        for _ in range(2):
            assert client.get(path).text == "hello you"


def test_login_required_above_the_cache_is_right_without_a_word(login):
    app, om = build_app()
    set_up_login(app, login_view="sign_in_page")
    app.add_url_rule("/login", "sign_in_page", lambda: "please sign in")
    runs = itertools.count(1)
    secret = login.login_required(om.cached()(lambda: f"secret {next(runs)}"))
    below = om.cached()(login.login_required(lambda: f"below {next(runs)}"))
    app.add_url_rule("/secret", "secret", secret)
    app.add_url_rule("/below", "below", below)
    for path in ("/secret", "/below"):
        for _ in range(2):
            client = signed_in(app, "ann")
            assert client.get(path).status_code == 200
            assert app.test_client().get(path).status_code == 302


def test_a_look_that_the_view_takes_at_what_flask_login_looks_at_counts(login):
    page = tell_apart(
        lambda: f"{greet()} {request.headers.get('User-Agent')} {request.remote_addr}",
        *BROWSERS[:2],
        setup=set_up_login,
    )
    assert {"header:user-agent", "address"} <= page.counted


def test_a_user_from_a_header_is_that_of_his_request_alone(login):
    def setup(app):
        set_up_login(app)

        @app.login_manager.request_loader
        def load(asked):
            name = asked.headers.get("X-Api-Key")
            return app.login_manager._user_callback(name) if name else None

    tell_apart(greet, *(Visitor(headers={"X-Api-Key": n}) for n in ("ann", "bob")), setup=setup)


# --- Flask-Limiter ------------------------------------------------------------------------------


def set_up_limiter(app, key=None, limit="1000/minute", **more):
    limiter = pytest.importorskip("flask_limiter")
    from flask_limiter.util import get_remote_address

    return limiter.Limiter(
        key or get_remote_address, app=app, default_limits=[limit], storage_uri="memory://", **more
    )


@pytest.mark.parametrize("headers", [False, True])
def test_visitors_of_any_address_share_a_limited_page(headers):
    page = share(
        lambda: "page",
        *BROWSERS,
        setup=lambda app: set_up_limiter(app, headers_enabled=headers),
    )
    assert page.counted == set()


def test_a_view_that_asks_for_the_address_by_the_limiters_function_looks_at_it():
    pytest.importorskip("flask_limiter")
    from flask_limiter.util import get_remote_address

    page = tell_apart(get_remote_address, *BROWSERS[:2], setup=set_up_limiter)
    assert page.counted == {"address"}


def test_a_hook_that_asks_for_the_address_by_the_limiters_function_looks_at_it():
    pytest.importorskip("flask_limiter")
    from flask_limiter.util import get_remote_address

    def setup(app):
        set_up_limiter(app)
        app.before_request(lambda: setattr(g, "at", get_remote_address()))

    tell_apart(lambda: g.at, *BROWSERS[:2], setup=setup)


@pytest.mark.parametrize(
    ("key", "counted"),
    [
        (lambda: request.cookies.get("_ga", ""), "cookie:_ga"),
        (lambda: request.headers.get("User-Agent", ""), "header:user-agent"),
        (lambda: str(request.remote_addr), "address"),
    ],
)
def test_the_limiters_key_of_ones_own_counts(key, counted):
    page = Page(lambda: "page", setup=lambda app: set_up_limiter(app, key))
    for visitor in BROWSERS[:2] * 2:
        page.ask(visitor)
    assert page.runs == 2
    assert counted in page.counted


def test_the_current_user_that_the_limiter_loads_first_counts_in_the_view(login):
    def setup(app):
        # the limiter registers its hook first, and its key loads the user
        set_up_limiter(app, lambda: str(getattr(login.current_user, "id", "nobody")))
        set_up_login(app)

    page = Page(greet, setup=setup)
    path = f"/{page.number}/page"
    clients = {name: signed_in(page.app, name) for name in ("ann", "bob")}
    for _ in range(3):
        assert page.app.test_client().get(path).text == "hello you"
        for name, client in clients.items():
            assert client.get(path).text == f"hello {name}"
    assert page.runs == 3


def test_who_is_over_the_limit_empties_no_cache():
    page = Page(lambda: "page", setup=lambda app: set_up_limiter(app, limit="2/minute"))
    for _ in range(2):
        assert page.request(BROWSERS[0]).status_code == 200
    assert page.request(BROWSERS[0]).status_code == 429
    assert page.request(BROWSERS[1]).text == "page"
    assert page.runs == 1


# --- Flask-WTF and SeaSurf: tokens --------------------------------------------------------------


def assert_tokens_are_ones_own(page):
    path = f"/{page.number}/page"
    newcomers = [page.app.test_client().get(path).text for _ in range(4)]
    assert len(set(newcomers)) == 4
    client = page.app.test_client()
    first = client.get(path).text
    for _ in range(3):
        token = client.get(path).text
    assert token
    assert client.post("/form", data={"csrf_token": token, "_csrf_token": token}).text == "sent"
    other = page.app.test_client()
    other.get(path)
    assert other.post("/form", data={"csrf_token": first, "_csrf_token": first}).status_code in (
        400, 403,
    )  # fmt: skip


def test_tokens_of_flask_wtf_reach_nobody_else():
    wtf = pytest.importorskip("flask_wtf")

    def setup(app):
        wtf.CSRFProtect(app)
        app.add_url_rule("/form", "form", lambda: "sent", methods=["POST"])

    page = Page(lambda: render_template_string("{{ csrf_token() }}"), setup=setup)
    assert_tokens_are_ones_own(page)
    share(lambda: "page", *BROWSERS, setup=setup)


def test_tokens_of_seasurf_reach_nobody_else():
    seasurf = pytest.importorskip("flask_seasurf")

    def setup(app):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            seasurf.SeaSurf(app)
        app.add_url_rule("/form", "form", lambda: "sent", methods=["POST"])

    page = Page(
        lambda: render_template_string("{{ csrf_token() }}"), setup=setup, config={"TESTING": False}
    )
    assert_tokens_are_ones_own(page)


# --- Flask-Session ------------------------------------------------------------------------------


def make_redis():
    """Return a client of Redis that keeps its values itself."""
    redis = pytest.importorskip("redis")

    class Client(redis.Redis):
        def __init__(self):
            self.values = {}

        def get(self, name):
            return self.values.get(name)

        def set(self, name, value, ex=None, **more):
            self.values[name] = value

        def __del__(self):
            """There is no connection."""

    return Client()


def sessions(kind, folder):
    """Return what sets up Flask-Session with a kind of store."""
    flask_session = pytest.importorskip("flask_session")
    cachelib = pytest.importorskip("cachelib")
    config = {
        "cachelib": lambda: {"SESSION_CACHELIB": cachelib.SimpleCache()},
        "filesystem": lambda: {"SESSION_FILE_DIR": str(folder)},
        "redis": lambda: {"SESSION_REDIS": make_redis()},
    }[kind]()

    def setup(app):
        app.config.update(config, SESSION_TYPE=kind)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            flask_session.Session(app)

        @app.get("/as/<name>")
        def become(name):
            session.update(u=name, seen=1)
            return "x"

    return setup


def member(app, name):
    client = app.test_client()
    client.get(f"/as/{name}")
    return client


@pytest.mark.parametrize("kind", ["cachelib", "redis", "filesystem"])
@pytest.mark.parametrize("permanent", [True, False])
def test_sessions_of_flask_session_are_compared_by_key(kind, permanent, tmp_path):
    setup = sessions(kind, tmp_path)
    config = {"SESSION_PERMANENT": permanent}
    page = Page(lambda: session.get("u"), setup=setup, config=config)
    plain = Page(lambda: "page", setup=setup, config=config)
    own = Page(lambda: session.sid, setup=setup, config=config)
    for one, runs in ((page, 2), (plain, 1), (own, 3)):
        path = f"/{one.number}/page"
        clients = [(name, member(one.app, name)) for name in ("ann", "bob", "ann")]
        texts = []
        for name, client in clients * 2:
            texts.append(client.get(path).text)
            assert one is not page or texts[-1] == name
        assert one.runs == runs
        assert len(set(texts)) == runs
    assert plain.counted == set()
    assert page.counted == {"session:u"}


def test_an_interface_that_adds_to_that_of_flask_session_looks_for_itself_alone(tmp_path):
    set_up = sessions("cachelib", tmp_path)

    def setup(app):
        set_up(app)
        interface = app.session_interface

        class Own(type(interface)):
            def open_session(self, app, request):
                g.at = request.headers.get("X-At")
                return super().open_session(app, request)

        interface.__class__ = Own

    page = Page(lambda: "page", setup=setup)
    for name in ("ann", "bob"):
        assert member(page.app, name).get(f"/{page.number}/page").text == "page"
    assert page.runs == 2  # what it puts into g may come from the session
    assert page.counted == {"header:x-at", "session"}


def test_a_session_of_flask_session_that_was_changed_keeps_nothing(tmp_path):
    def body():
        session["n"] = session.get("n", 0) + 1
        return session["n"]

    page = Page(body, setup=sessions("cachelib", tmp_path))
    client = page.app.test_client()
    assert [client.get(f"/{page.number}/page").text for _ in range(3)] == ["1", "2", "3"]


# --- Flask-Babel, Flask-JWT-Extended ------------------------------------------------------------


def test_languages_of_flask_babel_are_compared_by_their_answer():
    babel = pytest.importorskip("flask_babel")

    def select():
        chosen = session.get("lang") or request.args.get("lang")
        return chosen or request.accept_languages.best_match(["de", "en"])

    page = tell_apart(
        lambda: str(babel.get_locale()),
        Visitor(headers={"Accept-Language": "de-AT,de;q=0.9"}),
        Visitor(headers={"Accept-Language": "en"}),
        setup=lambda app: babel.Babel(app, locale_selector=select),
    )
    page.ask(Visitor(headers={"Accept-Language": "de"}))
    page.ask(Visitor(headers={"Accept-Language": "en-GB,en;q=0.5", "User-Agent": "other"}))
    assert page.runs == 2
    page.ask(Visitor(session={"lang": "fr"}))
    assert page.runs == 3


@pytest.mark.parametrize("place", ["cookies", "headers", "query_string"])
def test_who_a_jwt_names_is_told_apart_from_others(place):
    jwt = pytest.importorskip("flask_jwt_extended")

    def setup(app):
        app.config.update(
            JWT_SECRET_KEY="a secret of thirty-two characters", JWT_TOKEN_LOCATION=[place]
        )
        jwt.JWTManager(app)

    def body():
        jwt.verify_jwt_in_request(optional=True)
        return jwt.get_jwt_identity()

    page = Page(body, setup=setup)
    visitors = [NOBODY, NOBODY]
    for name in ("ann", "bob"):
        with page.app.app_context():
            token = jwt.create_access_token(name)
        visitors.append({
            "cookies": Visitor(cookies={"access_token_cookie": token}),
            "headers": Visitor(headers={"Authorization": f"Bearer {token}"}),
            "query_string": Visitor(path=f"/page?jwt={token}"),
        }[place])  # fmt: skip
    texts = [page.ask(visitor) for visitor in visitors * 2]
    assert texts == ["None", "None", "ann", "bob"] * 2
    assert page.runs == 3


# --- tracing, reports, logs ---------------------------------------------------------------------


@pytest.fixture
def traced():
    instrumentation = pytest.importorskip("opentelemetry.instrumentation.flask")
    instrumentor = instrumentation.FlaskInstrumentor()
    apps = []

    def setup(app, **more):
        apps.append(app)
        instrumentor.instrument_app(app, **more)

    yield setup
    for app in apps:
        instrumentor.uninstrument_app(app)


def test_a_trace_of_opentelemetry_makes_no_page_personal(traced):
    callers = [Visitor(headers={"traceparent": f"00-{n:032x}-{n:016x}-01"}) for n in range(1, 4)]
    page = share(lambda: "page", *BROWSERS, *callers, setup=traced)
    assert page.counted <= {"query"}
    found = page.request(BROWSERS[0])
    assert "Vary" not in found.headers


def test_headers_that_a_trace_records_make_no_page_personal(traced, monkeypatch):
    trace = pytest.importorskip("opentelemetry.sdk.trace")
    variable = "OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SERVER_REQUEST"
    monkeypatch.setenv(variable, "User-Agent,X-Forwarded-For")
    ended = []

    class Processor(trace.SpanProcessor):
        def on_end(self, span):
            ended.append(span.attributes)

    provider = trace.TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(Processor())
    share(lambda: "page", *BROWSERS, setup=lambda app: traced(app, tracer_provider=provider))
    assert any("http.request.header.user_agent" in attributes for attributes in ended)


def test_a_callers_baggage_which_code_may_read_counts(traced):
    baggage = pytest.importorskip("opentelemetry.baggage")
    page = tell_apart(
        lambda: baggage.get_baggage("user"),
        *(Visitor(headers={"baggage": f"user={name}"}) for name in ("ann", "bob")),
        setup=traced,
    )
    assert "header:baggage" in page.counted
    page.ask(NOBODY)
    assert page.runs == 3


def test_a_look_of_the_view_beside_the_trace_counts(traced):
    page = tell_apart(lambda: request.headers["User-Agent"], *BROWSERS[:2], setup=traced)
    assert "header:user-agent" in page.counted


@pytest.fixture
def reports(monkeypatch):
    sentry = pytest.importorskip("sentry_sdk")
    from sentry_sdk.integrations.flask import FlaskIntegration

    monkeypatch.setattr(Flask, "__call__", Flask.__call__)
    sent = []
    with sentry.isolation_scope() as scope, warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        client = sentry.Client(
            dsn="http://key@sentry.test/1",
            send_default_pii=True,
            traces_sample_rate=1.0,
            default_integrations=False,
            integrations=[FlaskIntegration()],
            before_send=lambda event, hint: sent.append(event),
            before_send_transaction=lambda event, hint: sent.append(event),
        )
        scope.set_client(client)
        yield sent
        client.close()


def test_a_report_of_sentry_makes_no_page_personal(reports):
    sentry = sys.modules["sentry_sdk"]

    def body():
        sentry.capture_message("something")
        return "page"

    page = share(body, *BROWSERS)
    assert any("_ga" in event.get("request", {}).get("cookies", {}) for event in reports)
    assert "cookies" not in page.counted


def log_access():
    g.log = [request.remote_addr, request.headers.get("User-Agent"), request.cookies.get("_ga")]


def test_a_log_of_accesses_that_the_setting_names_makes_no_page_personal():
    def setup(app):
        app.before_request(log_access)

    share(lambda: "page", *BROWSERS, setup=setup,
          config={"OM_CACHE_READERS": [f"{__name__}:log_access"]})  # fmt: skip
    page = Page(lambda: "page", setup=setup)
    for visitor in BROWSERS * 2:
        page.ask(visitor)
    assert page.runs == len(BROWSERS)


def test_a_hook_that_redirects_by_a_known_look_is_the_users_own_word():
    def setup(app):
        app.before_request(gate)

    config = {"OM_CACHE_READERS": [f"{__name__}:gate"]}
    page = Page(lambda: "page", setup=setup, config=config)
    assert page.request(NOBODY).text == "page"
    assert page.request(Visitor(cookies={"banned": "1"})).status_code == 302
    assert page.request(Visitor(cookies={"banned": "0"})).text == "page"
    assert page.runs == 1


def gate():
    return redirect("/") if request.cookies.get("banned") == "1" else None
