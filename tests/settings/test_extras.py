"""A setting or an engine whose optional package is missing stops the start, with the way out."""

from __future__ import annotations

import sys

import pytest
from flask import Flask

from om_plugins import HttpEngine, OpenAIEngine, OpenManager, ProxyEngine
from om_plugins.errors import MissingExtra
from om_plugins.settings.extras import EXTRAS, check_installed, install_command


def bind(**config):
    app = Flask("shop")
    app.config.update({"OM_HUB_URL": "memory://", **config})
    OpenManager(app)


@pytest.mark.parametrize(
    ("extra", "start"),
    [
        ("prometheus", lambda: bind(OM_METRICS=True)),
        ("redis", lambda: bind(OM_CACHE_URL="redis://localhost/0")),
        ("redis", lambda: bind(OM_HUB_URL="redis://localhost/0")),
        ("memcached", lambda: bind(OM_CACHE_URL="memcached://localhost")),
        ("http", lambda: HttpEngine("a", "https://api.example/")),
        ("http", lambda: OpenAIEngine("a", "https://api.example/", "model")),
        ("http", lambda: ProxyEngine("a", "https://api.example/")),
        (
            "http",
            lambda: bind(
                OM_STRICT=True,
                OM_PLUGIN_CONFIG={"notifier-webhook": {"url": "https://hooks.example/1"}},
            ),
        ),
    ],
    ids=["metrics", "redis", "hub", "memcached", "http", "openai", "proxy", "webhook"],
)
def test_a_missing_package_stops_the_start(monkeypatch, extra, start):
    for module in [name for name in sys.modules if name.partition(".")[0] == EXTRAS[extra]]:
        monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setitem(sys.modules, EXTRAS[extra], None)
    for module in [name for name in sys.modules if name.startswith("om_plugins.builtin.http.")]:
        monkeypatch.delitem(sys.modules, module)  # those that have h11 already
    with pytest.raises(Exception, match=rf"pip install 'om-plugins\[{extra}\]'"):
        start()


def test_what_is_installed_passes():
    check_installed("OM_METRICS", True, "prometheus")


def test_the_error_is_that_of_a_missing_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "redis", None)
    with pytest.raises(MissingExtra) as caught:
        check_installed("OM_CACHE_URL", "redis://localhost", "redis")
    assert caught.value.extra == "redis"
    assert install_command("redis") in str(caught.value)
