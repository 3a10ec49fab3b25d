from typing import Any

import pytest
from flask import Flask

from om_plugins.cache.responses.why import build_request
from om_plugins.cli.routes import find_path, find_pattern, may_change


def answer(**values: Any) -> str:
    return "x"


@pytest.mark.parametrize(
    ("path", "endpoint"),
    [
        ("/logout", "a"), ("/sign-out", "a"), ("/posts/like", "a"), ("/admin/clearCache", "a"),
        ("/x", "auth.logout"), ("/x", "deleteAll"), ("/jobs/run_now", "a"), ("/vote", "a"),
        ("/Account/unFollow", "a"),
    ],
)  # fmt: skip
def test_a_word_says_that_a_route_may_change_something(path: str, endpoint: str) -> None:
    assert may_change(path, endpoint)


@pytest.mark.parametrize(
    "path", ["/", "/blog", "/runners", "/stories", "/outlog", "/export", "/likes", "/paying"]
)
def test_other_words_say_nothing(path: str) -> None:
    assert not may_change(path, "index")


@pytest.mark.parametrize(
    ("rule", "options", "path"),
    [
        ("/a", {}, "/a"),
        ("/a/", {"methods": ["GET", "POST"]}, "/a/"),
        ("/page/<int:number>", {"defaults": {"number": 1}}, "/page/1"),
        ("/item/<int:number>", {}, ""),
        ("/a", {"methods": ["POST"]}, ""),
        ("/a", {"subdomain": "b"}, ""),
        ("/a", {"redirect_to": "/b"}, ""),
        ("/a", {"endpoint": "b.static"}, ""),
    ],
)
def test_the_path_of_a_route_is_what_a_get_without_arguments_opens(
    rule: str, options: dict[str, Any], path: str
) -> None:
    app = Flask("site", static_folder=None)
    endpoint = options.pop("endpoint", "view")
    if endpoint == "view":
        app.add_url_rule(rule, endpoint, answer, **options)
    else:
        app.url_map.add(app.url_rule_class(rule, endpoint=endpoint, methods=["GET"]))
    (found,) = app.url_map.iter_rules()
    assert find_path(app, found) == path


@pytest.mark.parametrize(
    ("path", "pattern"),
    [
        ("/item/7?tab=2", "/item/*"), ("/search?q=1", "/search"), ("/none", "/none"),
        ("/folder", "/folder"), ("/both/a/b", "/both/*"),
    ],
)  # fmt: skip
def test_settings_name_a_path_by_what_its_route_has_in_common(path: str, pattern: str) -> None:
    app = Flask("site")
    for rule in ("/item/<int:number>", "/search", "/folder/", "/both/<one>/<two>"):
        app.add_url_rule(rule, rule, answer)
    assert find_pattern(app, build_request(path)) == pattern
