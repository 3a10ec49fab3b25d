from pathlib import Path
from typing import Any

import pytest
from flask import Blueprint, Flask

from om_plugins.cache.responses.why import build_request
from om_plugins.cli import routes
from om_plugins.cli.routes import find_path, find_pattern, find_static_pages, may_change


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
        ("/folder", "/folder"), ("/gr%C3%B6%C3%9Fe", "/größe"), ("/a%20b", "/a b"),
        ("/both/a/b", "/both/*"),
    ],
)  # fmt: skip
def test_settings_name_a_path_by_what_its_route_has_in_common(path: str, pattern: str) -> None:
    app = Flask("site")
    for rule in ("/größe", "/item/<int:number>", "/search", "/folder/", "/both/<one>/<two>"):
        app.add_url_rule(rule, rule, answer)
    assert find_pattern(app, build_request(path)) == pattern


def test_html_files_in_folders_of_the_app_are_pages(tmp_path: Path) -> None:
    for name in ("a.html", "in/b.HTM", "c.js", "node_modules/d.html", "site-packages/e.html"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("<p>")
    app = Flask("site", static_folder=str(tmp_path))
    app.register_blueprint(Blueprint("shop", "site", static_folder=tmp_path / "in"))
    app.register_blueprint(
        Blueprint("pack", "site", static_folder=tmp_path / "site-packages", url_prefix="/pack")
    )
    folder = f"/{tmp_path.name}"
    assert list(find_static_pages(app)) == [f"{folder}/a.html", f"{folder}/in/b.HTM", "/in/b.HTM"]
    assert find_pattern(app, build_request(f"/{tmp_path.name}/a.html")) == (
        f"/{tmp_path.name}/a.html"
    )
    assert list(find_static_pages(Flask("bare", static_folder=None))) == []


def test_of_a_large_folder_the_first_files_are_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(routes, "_MOST_FILES", 3)
    for number in range(5):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "a.html").write_text("<p>")
    app = Flask("site", static_folder=str(tmp_path), static_url_path="/s")
    assert list(find_static_pages(app)) == ["/s/0/a.html", "/s/1/a.html", "/s/2/a.html"]
