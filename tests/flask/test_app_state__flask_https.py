import pytest
from flask import Blueprint, Flask
from flask.views import MethodView
from werkzeug.test import create_environ

from om_plugins import OpenManager
from om_plugins.errors import ConfigError
from om_plugins.flask.app_state__flask_https import wish_of


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
    assert wish_of(app)(environ) is False
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
