"""The rules of the settings: routes left out, with times of their own, or without a query."""

from __future__ import annotations

import pytest
from flask import Flask

from om_plugins import OpenManager
from om_plugins.errors import ConfigError
from om_plugins.http_cache.context import RouteRule
from om_plugins.http_cache.rfc9111 import StorageOptions
from tests.http_cache.world import World


def test_a_route_can_be_left_out():
    world = World(routes=(RouteRule("/private/*", store=False),))
    world.get("/private/x")
    assert world.number("/private/x") == 2
    world.get("/public")
    assert world.number("/public") == 3


def test_a_route_can_have_a_freshness_of_its_own():
    world = World(routes=(RouteRule("/news/*", options=StorageOptions(default_s=30)),))
    world.origin.headers = []
    world.get("/news/1")
    assert world.number("/news/1") == 1
    world.get("/other")
    assert world.number("/other") == 3


def test_a_route_can_ignore_its_query():
    world = World(routes=(RouteRule("/page", query=False),))
    world.get("/page?utm=1")
    assert world.number("/page?utm=2") == 1
    assert world.number("/page") == 1
    world.get("/page", method="POST")
    assert world.number("/page?utm=3") == 3


@pytest.mark.parametrize("path", ["news", "*", "/news/*/old"])
def test_a_path_that_can_never_match_is_refused(path):
    app = Flask("app")
    app.config.update(OM_HUB_URL="memory://", OM_HTTP_CACHE_ROUTES={path: {"store": False}})
    with pytest.raises(ConfigError, match=r"OM_HTTP_CACHE_ROUTES.*begins with '/'"):
        OpenManager(app)
