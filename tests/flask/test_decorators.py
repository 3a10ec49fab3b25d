import functools

import pytest
from flask import Blueprint, Flask
from flask.views import MethodView
from werkzeug.test import create_environ

from om_plugins import OpenManager
from om_plugins.errors import ConfigError
from om_plugins.flask.decorators import read_https_wish


@pytest.fixture
def om():
    return OpenManager()


def warnings(om, app, caplog):
    caplog.clear()
    om.init_app(app)
    app.test_client().get("/nowhere")
    return [one.message for one in caplog.records if "has no effect" in one.message]


def make_app():
    app = Flask(__name__)
    app.config["TESTING"] = True
    return app


DECORATORS = ["cached", "csp", "headers", "fallback"]


@pytest.mark.parametrize("name", DECORATORS)
def test_a_decorator_above_the_route_is_told(om, caplog, name):
    app = make_app()
    decorator = getattr(om, name)(*["stale"] * (name == "fallback"))

    @decorator
    @app.get("/")
    def index():
        return ""

    (told,) = warnings(om, app, caplog)
    assert f"@om.{name} has no effect on the view 'index': it stands above the route" in told


def test_it_is_told_for_blueprints_too_also_when_nobody_keeps_what_was_made(om, caplog):
    app = make_app()
    shop = Blueprint("shop", __name__)

    def define():
        @om.csp(exempt=True)
        @shop.get("/shop")
        def index():
            return ""

    define()
    app.register_blueprint(shop)
    (told,) = warnings(om, app, caplog)
    assert "'shop.index'" in told


def test_a_decorator_below_the_route_is_fine_whatever_stands_between(om, caplog):
    app = make_app()

    def other(view):
        @functools.wraps(view)
        def around(*args, **kwargs):
            return view(*args, **kwargs)

        return around

    @app.get("/")
    @other
    @om.csp(exempt=True)
    @other
    @om.headers({"X-A": "b"})
    @om.cached()
    def index():
        return ""

    class Page(MethodView):
        decorators = (om.csp(exempt=True),)

        @om.headers({"X-A": "b"})
        def get(self):
            return ""

    app.add_url_rule("/page", view_func=Page.as_view("page"))

    def twice():
        return ""

    app.add_url_rule("/a", "a", twice)
    app.add_url_rule("/b", "b", om.csp(exempt=True)(twice))
    assert warnings(om, app, caplog) == []


# --- HTTPS --------------------------------------------------------------------------------------


def answer(*args, **kwargs):
    return "answer"


@pytest.fixture
def make():
    def make_app(**config):
        app = Flask(__name__)
        app.config.update(TESTING=True, **config)
        return app, OpenManager(app)

    return make_app


def ask(app, path, **more):
    more.setdefault("base_url", "http://shop.example")
    return app.test_client().open(path, **more).status_code


def test_a_view_may_be_open_to_plain_http(make):
    app, om = make(OM_FORCE_HTTPS=True)

    @app.route("/up", methods=["GET", "POST"])
    @om.headers({"X-Frame-Options": "DENY"}, force_https=False)
    @om.csp(update={"img-src": ["data:"]})
    def up():
        return "up"

    app.add_url_rule("/other", view_func=answer)
    assert [ask(app, "/up"), ask(app, "/up", method="HEAD"), ask(app, "/other")] == [200, 200, 302]
    assert ask(app, "/up", method="POST") == 200
    assert ask(app, "/up/") == ask(app, "/nowhere") == 302
    response = app.test_client().get("/up", base_url="http://shop.example")
    assert response.headers["X-Frame-Options"] == "DENY"


def test_a_view_may_be_for_https_alone(make):
    app, om = make()
    app.add_url_rule("/pay", view_func=om.headers(force_https=True)(answer), methods=["POST"])
    app.add_url_rule("/", "index", answer)
    assert ask(app, "/") == 200
    assert ask(app, "/pay", method="POST") == 307
    assert ask(app, "/pay", method="POST", base_url="https://shop.example") == 200
    assert ask(app, "/pay") == 405


def test_a_blueprint_speaks_for_its_views_and_they_come_first(make):
    app, om = make(OM_FORCE_HTTPS=True)
    inner = Blueprint("inner", __name__, url_prefix="/inner")
    inner.add_url_rule("/", view_func=answer)
    outer = Blueprint("outer", __name__, url_prefix="/outer")
    outer.add_url_rule("/", view_func=answer)
    outer.add_url_rule(
        "/pay", view_func=om.headers(force_https=True)(lambda: "pay"), endpoint="pay"
    )
    outer.register_blueprint(om.headers(force_https=False)(inner))
    app.register_blueprint(om.headers(force_https=False)(outer))
    app.add_url_rule("/", view_func=answer)
    asked = ["/outer/", "/outer/inner/", "/outer/pay", "/"]
    assert [ask(app, path) for path in asked] == [200, 200, 302, 302]


def test_views_of_classes_and_addresses_with_values(make):
    app, om = make(OM_FORCE_HTTPS=True)

    class View(MethodView):
        decorators = (om.headers(force_https=False),)

        def get(self, number):
            return f"{number}"

    app.add_url_rule("/item/<int:number>", view_func=View.as_view("item"))
    assert [ask(app, "/item/7"), ask(app, "/item/x")] == [200, 302]


def test_asking_the_routing_leaves_nothing_in_the_environ(make):
    app, om = make(OM_FORCE_HTTPS=True)
    app.add_url_rule("/up", view_func=om.headers(force_https=False)(answer))
    environ = create_environ("/up", "http://shop.example")
    before = dict(environ)
    assert read_https_wish(app)(environ) is False
    assert environ == before


def test_who_asks_for_a_host_that_is_not_trusted_gets_no_exemption(make):
    app, om = make(OM_FORCE_HTTPS=True, TRUSTED_HOSTS=["shop.example"])
    app.add_url_rule("/up", view_func=om.headers(force_https=False)(answer))
    assert ask(app, "/up") == 200
    assert ask(app, "/up", base_url="http://evil.example") == 400


def test_debug_mode_redirects_nothing(make):
    app, om = make(DEBUG=True)
    app.add_url_rule("/pay", view_func=om.headers(force_https=True)(answer))
    assert ask(app, "/pay") == 200


@pytest.mark.parametrize("wrong", ["no", 0, []])
def test_another_value_is_an_error(make, wrong):
    _, om = make()
    with pytest.raises(ConfigError, match=r"headers\(force_https\).*must be True or False"):
        om.headers(force_https=wrong)
