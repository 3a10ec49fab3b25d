import functools

import pytest
from flask import Blueprint, Flask
from flask.views import MethodView

from om_plugins import OpenManager


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
