from unittest import mock

import pytest
from flask import Flask, render_template_string

from om_plugins import OpenManager
from om_plugins.core.stand_ins.methods import get_late


class Base:
    def greet(self, word="hello"):
        return f"{word} of {type(self).__name__}"


class Owner(Base):
    pass


def replace(owner):
    call = get_late(owner, "greet")
    owner.greet = lambda *args, **kwargs: f"({call(*args, **kwargs)})"
    return owner


def test_the_method_of_the_class_is_called_as_it_is_then():
    owner = replace(Owner())
    assert owner.greet(word="hi") == "(hi of Owner)"
    with mock.patch.object(Base, "greet", lambda self: f"patched {type(self).__name__}"):
        assert owner.greet() == "(patched Owner)"
    with mock.patch.object(Owner, "greet", mock.Mock(return_value="mocked")) as mocked:
        assert owner.greet(1) == "(mocked)"
        mocked.assert_called_once_with(1)  # what is no function is not bound
    assert owner.greet() == "(hello of Owner)"


def test_an_attribute_of_the_instance_is_called_as_it_was():
    owner = Owner()
    owner.greet = lambda: "own"
    with mock.patch.object(Base, "greet", lambda self: "patched"):
        assert replace(owner).greet() == "(own)"


@pytest.mark.parametrize(
    "patched",
    [
        "wsgi_app",
        "create_jinja_environment",
        "full_dispatch_request",
        "raise_routing_exception",
        "dispatch_request",
    ],
)
def test_a_tracer_that_patches_flask_after_the_line_sees_all(patched):
    app = Flask("traced")
    app.testing = True
    OpenManager(app)
    app.add_url_rule("/", view_func=lambda: render_template_string("x"))
    seen = []
    original = getattr(Flask, patched)

    def trace(self, *args, **kwargs):
        seen.append(self)
        return original(self, *args, **kwargs)

    with mock.patch.object(Flask, patched, trace):
        app.test_client().get("/")
        app.test_client().post("/")
    assert set(seen) == {app}
