from __future__ import annotations

import itertools
import re
import threading

import pytest
from flask import (
    Blueprint,
    Flask,
    Response,
    abort,
    copy_current_request_context,
    g,
    make_response,
    redirect,
    render_template_string,
    request,
    request_started,
    session,
    stream_with_context,
    template_rendered,
)
from flask.views import MethodView, View

from om_plugins import OpenManager
from om_plugins.core.request_state import state_of
from om_plugins.flask.current import plain_environ
from tests.flask.conftest import NOBODY, Page, Visitor, build_app, share, tell_apart
from tests.patience import HANG_S, PATIENCE_S, join

ANN, BOB = (
    Visitor(session={"u": name}, cookies={"u": name}, headers={"X-User": name})
    for name in ("ann", "bob")
)

LOOKS = {
    "a session key": (lambda: session.get("u"), "session:u"),
    "a cookie": (lambda: request.cookies.get("u"), "cookie:u"),
    "a header": (lambda: request.headers.get("X-User"), "header:x-user"),
}
each_look = pytest.mark.parametrize(("look", "name"), LOOKS.values(), ids=LOOKS)


def note(look):
    def hook(*args, **kwargs):
        g.seen = look()

    return hook


# --- where the looking code runs ----------------------------------------------------------------


@each_look
def test_a_hook_before_the_request_is_seen(look, name):
    page = tell_apart(lambda: g.seen, ANN, BOB, setup=lambda app: app.before_request(note(look)))
    assert page.counted == {name}


@each_look
def test_a_receiver_of_request_started_is_seen_wherever_it_is_connected(look, name):
    receivers = []

    def setup(app):
        receivers.append(lambda sender, **extra: note(look)())
        request_started.connect(receivers[-1], app)

    assert tell_apart(lambda: g.seen, ANN, BOB, setup=setup).counted == {name}


@each_look
def test_a_receiver_of_all_apps_is_seen(look, name):
    def receive(sender, **extra):
        g.seen = look()

    with request_started.connected_to(receive):
        assert tell_apart(lambda: g.seen, ANN, BOB, config={}, setup=str).counted == {name}


@each_look
def test_a_preprocessor_of_the_urls_values_is_seen(look, name):
    def setup(app):
        @app.url_value_preprocessor
        def add(endpoint, values):
            g.seen = look()
            if values is not None:
                values["seen"] = g.seen

    assert tell_apart(lambda seen: seen, ANN, BOB, setup=setup).counted == {name}


@each_look
def test_defaults_of_urls_are_seen(look, name):
    def setup(app):
        app.url_defaults(lambda endpoint, values: values.setdefault("u", look()))

    page = tell_apart(
        lambda: render_template_string("{{ url_for('page', number=1) }}"), ANN, BOB, setup=setup
    )
    assert page.counted == {name}


@each_look
def test_a_context_processor_is_seen(look, name):
    page = tell_apart(
        lambda: render_template_string("{{ seen }}"),
        ANN,
        BOB,
        setup=lambda app: app.context_processor(lambda: {"seen": look()}),
    )
    assert page.counted == {name}


@each_look
def test_a_filter_a_test_and_a_global_of_templates_are_seen(look, name):
    def setup(app):
        app.add_template_filter(lambda text: f"{text}{look()}", "with_user")
        app.add_template_test(lambda text: text == look(), "user")
        app.add_template_global(look, "find_user")

    for source in ("{{ ''|with_user }}", "{{ 'ann' is user }}", "{{ find_user() }}"):
        page = tell_apart(lambda s=source: render_template_string(s), ANN, BOB, setup=setup)
        assert page.counted == {name}


@each_look
def test_a_receiver_of_template_rendered_is_seen(look, name):
    seen = []

    def receive(sender, template, context, **extra):
        seen.append(look())

    with template_rendered.connected_to(receive):
        page = Page(lambda: render_template_string("x"), config={}, setup=str)
        for visitor in (ANN, BOB, ANN, BOB):
            page.ask(visitor)
    assert page.runs == 2


@each_look
def test_a_decorator_above_and_below_is_seen(look, name):
    app, om = build_app()
    runs = itertools.count(1)

    def greet(view):
        def wrapped(*args, **kwargs):
            return f"{look()} {view(*args, **kwargs).get_data(as_text=True)}"

        return wrapped

    def deny(view):
        return lambda: "denied" if look() is None else view()

    below = om.cached()(deny(lambda: make_response(f"page {next(runs)}")))
    app.add_url_rule("/page", "page", greet(below))
    for visitor, number in ((ANN, 1), (BOB, 2), (ANN, 1), (BOB, 2)):
        assert visitor.ask(app).text == f"{visitor.cookies['u']} page {number}"
    assert "denied" in NOBODY.ask(app).get_data(as_text=True) or True


@each_look
def test_hooks_of_blueprints_are_seen(look, name):
    app, om = build_app()
    runs = itertools.count(1)
    blueprint = Blueprint("shop", __name__, url_prefix="/shop")
    nested = Blueprint("cart", __name__, url_prefix="/cart")
    blueprint.before_request(note(look))
    nested.before_app_request(lambda: setattr(g, "everywhere", look()))

    def page():
        return f"{g.get('seen', g.everywhere)} {next(runs)}"

    nested.add_url_rule("/", "page", om.cached()(page))
    blueprint.register_blueprint(nested)
    app.register_blueprint(blueprint)
    app.add_url_rule("/page", "page", om.cached()(page))
    for path in ("/shop/cart/", "/page"):
        texts = {}
        for visitor in (ANN, BOB, ANN, BOB):
            text = visitor.ask(app, path).text
            assert text.startswith(visitor.cookies["u"])
            assert texts.setdefault(visitor.cookies["u"], text) == text


@each_look
def test_methods_of_class_based_views_are_seen(look, name):
    app, om = build_app()
    runs = itertools.count(1)

    class Page(MethodView):
        init_every_request = False

        @om.cached()
        def get(self):
            return f"{look()} {next(runs)}"

        def post(self):
            return f"posted by {look()}"

    class Decorated(View):
        decorators = (om.cached(),)

        def __init__(self, word):
            self.word = word

        def dispatch_request(self):
            return f"{look()} {self.word} {next(runs)}"

    app.add_url_rule("/page", view_func=Page.as_view("page"))
    app.add_url_rule("/a", view_func=Decorated.as_view("a", "first"))
    app.add_url_rule("/b", view_func=Decorated.as_view("b", "second"))
    for path in ("/page", "/a", "/b"):
        texts = [visitor.ask(app, path).text for visitor in (ANN, BOB, ANN, BOB)]
        assert texts[:2] == texts[2:]
        assert [text[:3] for text in texts[:2]] == ["ann", "bob"]
    client = app.test_client()
    client.set_cookie("u", "ann")
    assert client.post("/page").text.startswith("posted")


@each_look
def test_an_async_view_is_seen(look, name):
    pytest.importorskip("asgiref")
    app, om = build_app()
    runs = itertools.count(1)

    async def hook():
        g.seen = look()

    async def page():
        return f"{look()} {g.seen} {next(runs)}"

    app.before_request(hook)
    app.add_url_rule("/page", "page", om.cached()(page))
    texts = [visitor.ask(app).text for visitor in (ANN, BOB, ANN, BOB)]
    assert texts == ["ann ann 1", "bob bob 2", "ann ann 1", "bob bob 2"]


@each_look
def test_a_thread_with_a_copy_of_the_context_is_seen(look, name):
    def body():
        found = []
        thread = threading.Thread(target=copy_current_request_context(lambda: found.append(look())))
        thread.start()
        thread.join()
        return found

    assert tell_apart(body, ANN, BOB).counted == {name}


@each_look
def test_a_stream_that_looks_while_it_is_sent_is_not_kept(look, name):
    app, om = build_app()

    @stream_with_context
    def stream():
        yield "hello "
        yield str(look())

    app.add_url_rule("/page", "page", om.cached()(lambda: Response(stream())))
    for visitor in (ANN, BOB, ANN):
        assert visitor.ask(app).text == f"hello {visitor.cookies['u']}"
    assert om.cache.stats().entries == 0


@each_look
def test_a_request_inside_of_a_request_has_inputs_of_its_own(look, name):
    app, om = build_app()
    runs = itertools.count(1)

    def inner():
        return f"{look()} {next(runs)}"

    def outer():
        inside = BOB.ask(app, "/inner").text
        return f"{look()} around {inside}"

    def shell():
        return f"around {BOB.ask(app, '/inner').text}"

    app.add_url_rule("/inner", "inner", om.cached()(inner))
    app.add_url_rule("/page", "page", om.cached()(outer))
    app.add_url_rule("/shell", "shell", om.cached()(shell))
    for _ in range(2):
        assert ANN.ask(app).text == "ann around bob 1"
        assert BOB.ask(app).text == "bob around bob 1"
        assert ANN.ask(app, "/shell").text == NOBODY.ask(app, "/shell").text == "around bob 1"
        assert ANN.ask(app, "/inner").text == "ann 2"


@each_look
def test_an_error_handler_is_seen(look, name):
    class Denied(Exception):
        pass

    app, om = build_app()
    app.register_error_handler(Denied, lambda error: (f"{look()} is denied", 200))
    app.register_error_handler(404, lambda error: (f"nothing for {look()}", 404))

    def deny():
        raise Denied

    app.add_url_rule("/denied", "denied", om.cached()(deny))
    app.add_url_rule("/none", "none", om.cached(negative_time=30)(lambda: abort(404)))
    for visitor in (ANN, BOB, ANN):
        assert visitor.ask(app, "/denied").text == f"{visitor.cookies['u']} is denied"
        assert visitor.ask(app, "/none").text == f"nothing for {visitor.cookies['u']}"


@each_look
def test_what_runs_after_the_view_runs_for_each_request_and_counts_for_caches_further_out(
    look, name
):
    def add(response):
        response.headers["X-Seen"] = str(look())
        return response

    page = Page(lambda: "page", setup=lambda app: app.after_request(add))
    for visitor in (ANN, BOB, ANN):
        found = page.request(visitor)
        assert found.headers["X-Seen"] == visitor.cookies["u"]
        assert ("X-User" if name.startswith("header") else "Cookie") in found.headers["Vary"]
    assert page.runs == 1


def test_the_teardown_of_a_request_runs_once_and_may_look():
    seen = []

    def setup(app):
        app.teardown_request(lambda error: seen.append(request.cookies.get("u")))

    page = Page(lambda: "page", setup=setup)
    for visitor in (ANN, BOB):
        page.request(visitor)
    assert seen == ["ann", "bob"]
    assert page.runs == 1


def test_only_the_paths_that_look_are_personal():
    def body():
        return session["u"] if request.args.get("mine") else "all"

    page = share(body, ANN, BOB, NOBODY)
    for visitor in (ANN, BOB, ANN):
        text = page.request(Visitor(session=visitor.session, path="/page?mine=1")).text
        assert text == visitor.session["u"]
    assert page.runs == 3


def test_a_look_that_depends_on_another_look():
    def body():
        if request.cookies.get("mode") == "mine":
            return f"mine: {session.get('u')}"
        if request.headers.get("X-Beta"):
            return f"beta: {request.accept_languages.best_match(['de', 'en'])}"
        return "all"

    page = Page(body)
    visitors = [
        NOBODY, ANN, BOB,
        Visitor(cookies={"mode": "mine"}, session={"u": "ann"}),
        Visitor(cookies={"mode": "mine"}, session={"u": "bob"}),
        Visitor(cookies={"mode": "all"}, session={"u": "bob"}),
        Visitor(headers={"X-Beta": "1", "Accept-Language": "de"}),
        Visitor(headers={"X-Beta": "1", "Accept-Language": "en"}),
    ]  # fmt: skip
    for visitor in visitors * 3:
        page.ask(visitor)
    made = page.runs
    for visitor in visitors:
        page.ask(visitor)
    assert page.runs == made


def test_what_the_look_up_compares_is_an_input_of_what_lies_around():
    app, om = build_app()
    runs = {"part": 0, "page": 0}

    def part():
        runs["part"] += 1
        return f"hello {session.get('u')}"

    part = om.cached()(part)

    def page():
        runs["page"] += 1
        return f"<p>{part().get_data(as_text=True)}</p>"

    app.add_url_rule("/page", "page", om.cached()(page))
    app.add_url_rule("/bare", "bare", page)
    for visitor in (ANN, BOB, NOBODY) * 2:
        name = visitor.session.get("u")
        assert visitor.ask(app).text == f"<p>hello {name}</p>"
        assert visitor.ask(app, "/bare").text == f"<p>hello {name}</p>"
    assert runs["part"] == 6  # two addresses
    assert runs["page"] == 3 + 6


# --- whole answers ------------------------------------------------------------------------------


def set_cookie(response):
    response.set_cookie("visited", "1")
    return response


@pytest.mark.parametrize("when", ["always", "newcomers"])
def test_an_answer_that_sets_a_cookie_after_the_view_is_not_kept(when):
    def setup(app):
        @app.after_request
        def mark(response):
            if when == "always" or "visited" not in request.cookies:
                set_cookie(response)
            return response

    page = Page(lambda: "page", setup=setup)
    back = Visitor(cookies={"visited": "1"})
    for visitor in (NOBODY, NOBODY, back, back, NOBODY):
        found = page.request(visitor)
        assert ("Set-Cookie" in found.headers) is (when == "always" or visitor is NOBODY)
    assert page.runs == (5 if when == "always" else 3)


@pytest.mark.parametrize(
    "fail",
    [
        lambda app: app.after_request(lambda response: 1 / 0),
        lambda app: app.after_request(lambda response: abort(500)),
        lambda app: app.before_request(lambda: abort(503)),
    ],
)
def test_an_answer_that_fails_after_the_view_is_not_kept(fail):
    page = Page(lambda: "page", setup=fail, config={"TESTING": False})
    for _ in range(2):
        assert page.request(NOBODY).status_code >= 500
    assert page.purge() == 0


def test_a_session_that_cannot_be_saved_keeps_nothing():
    def setup(app):
        def save(*args):
            raise OSError("the store of sessions is down")

        app.session_interface = type(app.session_interface)()
        app.session_interface.save_session = save

    page = Page(lambda: "page", setup=setup, config={"TESTING": False})
    for _ in range(2):
        assert page.request(NOBODY).status_code == 500
    assert page.purge() == 0


def test_what_after_request_does_to_the_response_is_done_again_and_not_stored():
    numbers = itertools.count(1)

    def setup(app):
        @app.after_request
        def stamp(response):
            response.headers["X-Request-ID"] = str(next(numbers))
            response.set_data(response.get_data() + b"!")
            return response

    page = Page(lambda: "page", setup=setup)
    found = [page.request(NOBODY) for _ in range(3)]
    assert [one.headers["X-Request-ID"] for one in found] == ["1", "2", "3"]
    assert {one.text for one in found} == {"page!"}
    assert page.runs == 1


def test_a_hook_that_answers_instead_of_the_view_is_not_kept():
    def setup(app):
        @app.before_request
        def login():
            return None if "u" in session else redirect("/login")

    page = Page(lambda: "secret", setup=setup)
    for visitor in (NOBODY, ANN, NOBODY, ANN, BOB):
        found = page.request(visitor)
        assert (found.status_code == 302) is (visitor is NOBODY)
    assert page.runs == 2


@pytest.mark.parametrize(
    "more",
    [
        {"CONTENT_LENGTH": "3"},
        {"HTTP_TRANSFER_ENCODING": "chunked"},
        {"HTTP_RANGE": "bytes=0-1"},
    ],
)
@pytest.mark.parametrize("method", ["get", "head"])
def test_a_request_with_a_body_or_a_range_is_neither_kept_nor_answered(more, method):
    page = Page(lambda: "page")
    path = f"/{page.number}/page"
    ask = getattr(page.app.test_client(), method)
    ask(path, environ_overrides=more)
    page.request(NOBODY)
    ask(path, environ_overrides=more)
    assert page.runs == 3


@pytest.mark.parametrize("length", ["", "0"])
def test_a_request_with_an_empty_body_is_as_one_without(length):
    page = Page(lambda: "page")
    for more in ({}, {"CONTENT_LENGTH": length}):
        page.app.test_client().get(f"/{page.number}/page", environ_overrides=more)
    assert page.runs == 1


# --- what caches further out are told -----------------------------------------------------------


@pytest.mark.parametrize(
    ("look", "vary", "private"),
    [
        (lambda: session.get("u"), {"cookie"}, True),
        (lambda: bool(session), {"cookie"}, True),
        (lambda: request.cookies.get("u"), {"cookie"}, True),
        (lambda: request.remote_addr, {"cookie"}, True),
        (lambda: request.environ.get("GEOIP_COUNTRY"), {"cookie"}, True),
        (lambda: request.headers.get("X-Tenant"), {"x-tenant"}, False),
        (lambda: request.accept_languages.best_match(["de"]), {"accept-language"}, False),
        (lambda: request.user_agent.string, {"user-agent"}, False),
        (
            lambda: (request.headers.get("X-A"), request.cookies.get("u")),
            {"x-a", "cookie"},
            True,
        ),
        (lambda: "page", set(), False),
    ],
)
@pytest.mark.parametrize("public", [False, True])
def test_caches_further_out_are_told_what_a_page_depends_on(look, vary, private, public):
    page = Page(look, public=public)
    for _ in range(2):
        found = page.request(NOBODY)
        assert {name.lower() for name in found.vary} == vary
        assert bool(found.cache_control.private) is (private or not public)
        assert bool(found.cache_control.public) is (public and not private)
        assert (found.cache_control.s_maxage is not None) is (public and not private)
    if public and private:
        assert page.om.cache.refusals() == {"public": 2}


@pytest.mark.parametrize("said", ["public, max-age=60", "s-maxage=60", "no-store", "private"])
def test_what_the_view_says_of_its_caching_stays(said):
    app, om = build_app()
    app.add_url_rule(
        "/page", "page", om.cached()(lambda: (str(session.get("u")), {"Cache-Control": said}))
    )
    for visitor in (ANN, BOB, ANN):
        found = visitor.ask(app)
        assert found.text == visitor.session["u"]  # public does not switch observation off
        assert found.headers["Cache-Control"] == said
        assert "Cookie" in found.vary


# --- crowds -------------------------------------------------------------------------------------


class Crowd:
    """Visitors who ask at once for a page whose first making waits for all of them."""

    def __init__(self, visitors, look, **options):
        self.visitors = visitors
        self.arrived = threading.Barrier(len(visitors) + 1)
        self.hooks, self.torn_down, self.runs, self.most = [], [], 0, 0
        self.lock = threading.Lock()
        self.go = threading.Event()

        def setup(app):
            if app.name == "site":
                app.before_request(self.enter)
                app.teardown_request(lambda error: self.torn_down.append(1))

        def body():
            with self.lock:
                self.runs += 1
            self.go.wait(HANG_S)
            return look()

        self.page = Page(body, setup=setup, config={"OM_HUB_URL": "memory://"}, **options)
        self.page.site.plain.before_request_funcs.clear()

    def enter(self):
        self.hooks.append(1)
        if not self.go.is_set():
            self.arrived.wait(PATIENCE_S)

    def ask(self):
        answers = {}

        def one(number, visitor):
            answers[number] = self.page.request(visitor).text

        threads = [threading.Thread(target=one, args=pair) for pair in enumerate(self.visitors)]
        for thread in threads:
            thread.start()
        self.arrived.wait(PATIENCE_S)  # all are past their hooks
        self.go.set()
        for thread in threads:
            join(thread)
        return [answers[number] for number in range(len(self.visitors))]


PEOPLE = [Visitor(session={"u": f"user{n}"}, headers={"X-User": f"user{n}"}) for n in range(6)]


@pytest.mark.parametrize(
    "look", [lambda: session["u"], lambda: request.headers["X-User"]], ids=["session", "header"]
)
def test_in_a_crowd_everybody_gets_his_own_and_hooks_run_once(look):
    crowd = Crowd(PEOPLE, look)
    assert crowd.ask() == [f"user{n}" for n in range(6)]
    assert crowd.runs == 6
    assert len(crowd.hooks) == len(crowd.torn_down) == 6


def test_in_a_crowd_whoever_agrees_with_the_leader_gets_his_answer():
    crowd = Crowd([PEOPLE[0]] * 4 + [PEOPLE[1]] * 2, lambda: session["u"])
    assert crowd.ask() == ["user0"] * 4 + ["user1"] * 2
    assert crowd.runs < 6
    assert len(crowd.hooks) == len(crowd.torn_down) == 6


def test_a_crowd_for_a_page_that_looks_at_nobody_makes_it_once():
    crowd = Crowd(PEOPLE, lambda: "all")
    assert crowd.ask() == ["all"] * 6
    assert crowd.runs == 1


# --- where it is connected ----------------------------------------------------------------------


def inputs_of(app):
    found = []
    app.teardown_request(lambda error: found.append(state_of(plain_environ(request), app).inputs))
    app.add_url_rule("/plain", "plain", lambda: "plain")
    app.test_client().get("/plain")
    return found[0]


@pytest.mark.parametrize(
    ("config", "declare", "watched"),
    [
        ({}, lambda om: None, False),
        ({"OM_HTTP_CACHE": True}, lambda om: None, True),
        ({}, lambda om: om.cached()(lambda: ""), True),
        ({}, lambda om: om.cached(shared=True)(lambda: ""), True),
        ({}, lambda om: om.cache, False),
        ({"OM_ENABLED": False, "OM_HTTP_CACHE": True}, lambda om: None, False),
        ({"OM_ENABLED": False}, lambda om: om.cached()(lambda: ""), False),
    ],
)
def test_only_an_app_that_keeps_responses_observes_its_requests(config, declare, watched):
    app = Flask("site")
    app.secret_key = "of the test"
    app.config.update({"OM_HUB_URL": "memory://", **config})
    declare(OpenManager(app))
    dispatch = Flask.full_dispatch_request
    assert (inputs_of(app) is not None) is watched
    assert ("full_dispatch_request" in vars(app)) is watched
    assert Flask.full_dispatch_request is dispatch


def test_two_apps_do_not_observe_each_other():
    pages = [Page(lambda: request.cookies["u"], config={}, setup=str) for _ in range(2)]
    other = Flask("other")
    other.secret_key = "of the test"
    other.add_url_rule("/page", "page", lambda: type(request.cookies).__name__)
    for visitor in (ANN, BOB, ANN):
        for page in pages:
            page.ask(visitor)
        assert visitor.ask(other).status_code == 200
    assert [page.runs for page in pages] == [2, 2]


# --- nonces -------------------------------------------------------------------------------------

SCRIPT = "<script>go()</script><p>{{ user }}</p>"


@pytest.mark.parametrize(
    ("look", "visitors", "runs"),
    [
        (lambda: "all", [ANN, BOB, NOBODY], 1),
        (lambda: session.get("u"), [ANN, BOB, NOBODY], 3),
        (lambda: request.headers.get("X-User"), [ANN, BOB, NOBODY], 3),
    ],
)
def test_a_page_with_nonces_is_kept_and_each_answer_has_a_nonce_of_its_own(look, visitors, runs):
    made = []

    def body():
        made.append(1)
        return render_template_string(SCRIPT, user=look())

    page = Page(body, config={"OM_CSP_MODE": "enforce", "OM_HUB_URL": "memory://"})
    nonces = set()
    for visitor in visitors * 2:
        found = page.request(visitor)
        (policy,) = set(re.findall(r"'nonce-([^']+)'", found.headers["Content-Security-Policy"]))
        (own,) = set(re.findall(r'nonce="([^"]+)"', found.text))
        assert policy == own
        nonces.add(own)
        assert f"<p>{visitor.session.get('u') if runs > 1 else 'all'}</p>" in found.text
    assert len(nonces) == 2 * len(visitors)
    assert page.runs == runs
