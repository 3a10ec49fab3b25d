"""What operators ask of the cache: purges, what is stored, counters. And rules for paths."""

from __future__ import annotations

import pytest
from flask import Flask

from om_plugins import OpenManager
from om_plugins.errors import ConfigError
from om_plugins.http_cache.cache import RouteRule
from om_plugins.http_cache.rfc9111 import StorageOptions
from tests.http_cache.world import World


def filled():
    world = World()
    for path in ("/a", "/a?x=1", "/a?x=2", "/ab", "/b/1", "/b/2"):
        world.get(path)
    world.get("/a", host="other.example")
    return world


@pytest.mark.parametrize(
    ("arguments", "count"),
    [
        ({"url": "/a"}, 4),
        ({"url": "/a?x=1"}, 1),
        ({"url": "http://localhost/a"}, 3),
        ({"url": "http://other.example/a"}, 1),
        ({"prefix": "/b/"}, 2),
        ({"prefix": "http://other.example/"}, 1),
        ({"prefix": "/"}, 7),
        ({"url": "/nothing"}, 0),
        ({"tags": ["none"]}, 0),
    ],
)
def test_purging_by_address_and_prefix(arguments, count):
    world = filled()
    assert world.cache.purge(**arguments) == count
    assert world.cache.stats().entries == 7 - count


def test_a_soft_purge_leaves_the_page_while_a_new_one_is_fetched():
    world = World()
    world.origin.headers = [("Cache-Control", "max-age=60, stale-while-revalidate=60")]
    world.get()
    assert world.cache.purge("/", soft=True) == 1
    assert world.number() == 1
    world.run()
    assert world.number() == 2


@pytest.mark.parametrize("arguments", [{}, {"url": "a"}, {"prefix": "ftp://x"}])
def test_a_purge_must_say_what(arguments):
    with pytest.raises(ValueError, match=r"purge|neither"):
        World().cache.purge(**arguments)


def test_what_is_stored_can_be_listed():
    world = filled()
    urls = [one["url"] for one in world.cache.entries()]
    assert "http://localhost/a?x=1" in urls
    assert len(urls) == 7


# --- rules for paths ---


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
    app.config.update(OM_HUB_URL="memory://", OM_HTTP_CACHE={"routes": {path: {"store": False}}})
    with pytest.raises(ConfigError, match=r"OM_HTTP_CACHE\['routes'\].*begins with '/'"):
        OpenManager(app)
