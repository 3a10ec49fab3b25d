"""What ``flask om doctor`` finds on the pages of an app."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from flask import (
    Flask,
    Response,
    redirect,
    render_template_string,
    request,
    session,
    stream_with_context,
)
from flask.cli import FlaskGroup
from markupsafe import Markup

from om_plugins import OpenManager
from om_plugins.cli import pages

SCRIPT = "<!doctype html><script>start()</script>"


def make_app(**config: Any) -> tuple[Flask, list[str]]:
    app = Flask("site")
    app.config.update(TESTING=True, SECRET_KEY="k" * 32, OM_PLUGINS=(), OM_CSP_MODE="enforce")
    app.config.update(config)
    opened: list[str] = []

    @app.before_request
    def note() -> None:
        opened.append(request.full_path.rstrip("?"))

    return app, opened


def run(app: Flask, *words: str) -> Result:
    group = FlaskGroup(create_app=lambda: app)
    return CliRunner().invoke(group, ["om", "doctor", *words], catch_exceptions=False)


def found(app: Flask, *words: str) -> list[dict[str, str]]:
    """Findings about pages, the summary included."""
    result = json.loads(run(app, "--json", *words).output)
    return [one for one in result if one["subject"].startswith(("GET ", "pages"))]


def summary(app: Flask, *words: str, level: str = "ok") -> str:
    (one,) = [one for one in found(app, *words) if one["subject"] == "pages"]
    assert one["level"] == level
    return one["message"]


def test_each_page_of_python_and_of_a_template_is_looked_at() -> None:
    app, opened = make_app()
    app.add_url_rule("/python", "python", lambda: SCRIPT)
    app.add_url_rule("/template", "template", lambda: render_template_string(SCRIPT))
    app.add_url_rule(
        "/value", "value", lambda: render_template_string("{{ html }}", html=Markup(SCRIPT))
    )
    OpenManager(app)
    result = run(app)
    assert result.exit_code == 1
    assert "fail  GET /python: Mode enforce stops 1 script without a nonce, on a page" in (
        result.output
    )
    assert "OM_CSP_HTML_NONCES = ['/python']" in result.output
    assert "fail  GET /value: Mode enforce stops 1 script" in result.output
    assert "{{ value|om_trusted }}" in result.output
    assert "/template" not in result.output
    assert opened.count("/template") == 2


def test_what_was_said_mends_the_page() -> None:
    app, _ = make_app(OM_CSP_HTML_NONCES=["/python"])
    app.add_url_rule("/python", "python", lambda: SCRIPT)
    app.add_url_rule(
        "/value",
        "value",
        lambda: render_template_string("{{ html|om_trusted }}", html=Markup(SCRIPT)),
    )
    OpenManager(app)
    assert [one["subject"] for one in found(app)] == ["pages"]


@pytest.mark.parametrize(("mode", "code"), [("adopt", 0), ("learn", 0), ("enforce", 1)])
def test_before_enforce_it_is_a_warning(mode: str, code: int) -> None:
    app, _ = make_app(OM_CSP_MODE=mode)
    app.add_url_rule("/", "index", lambda: SCRIPT)
    OpenManager(app)
    result = run(app)
    assert "GET /: Mode enforce stops 1 script" in result.output
    assert result.exit_code == code


def test_what_a_cache_keeps_of_the_first_response_is_seen_in_the_second() -> None:
    app, _ = make_app()
    kept: list[str] = []

    @app.get("/")
    def index() -> str:
        if not kept:
            kept.append(render_template_string("<script>start()</script>"))
        return render_template_string("{{ part }}", part=Markup(kept[0]))

    OpenManager(app)
    (trouble, _) = found(app)
    assert "1 script with the nonce of another response" in trouble["message"]


def test_the_policy_of_each_response_counts() -> None:
    app, _ = make_app(OM_CSP_PATHS={"/path": {"exempt": True}})
    om = OpenManager(app)
    own = {"Content-Security-Policy": "script-src 'self' 'unsafe-inline'"}
    app.add_url_rule("/own", "own", lambda: (SCRIPT, own))
    app.add_url_rule("/path", "path", lambda: SCRIPT)
    changed = om.csp(update={"script-src": ["'unsafe-inline'"]})
    app.add_url_rule("/view", "view", changed(lambda: SCRIPT))
    (weak, _) = found(app)
    assert (weak["level"], weak["subject"]) == ("warn", "GET /own, /view")


def test_nothing_that_may_change_something_is_opened() -> None:
    app, opened = make_app(OM_CSP_DOCTOR_EXCEPT=["/export/*"])
    changing = (
        "/logout",
        "/posts/like",
        "/theme/toggle",
        "/Account/unFollow",
        "/auth/sign-out",
        "/items/delete-all",
        "/admin/clearCache",
        "/run",
        "/x",
    )
    harmless = ("/blog", "/stories", "/runners", "/outlog", "/export")
    for path in (*changing, *harmless, "/export/all", "/item/<int:number>"):
        endpoint = "reset_everything" if path == "/x" else path.strip("/").replace("/", "_") + "_"
        app.add_url_rule(path, endpoint, lambda **values: "x")
    app.add_url_rule("/save", "save", lambda: "x", methods=["POST"])
    app.add_url_rule("/page", "page", lambda number: f"{number}", defaults={"number": 1})
    OpenManager(app)
    said = summary(app)
    assert set(opened) == {*harmless, "/page"}
    names, reason, _ = said.partition(" (its name says that it may change something)")
    assert reason
    assert set(changing) <= set(re.findall(r"/[^ ,]+", names))
    assert "/export/all (OM_CSP_DOCTOR_EXCEPT names it)" in said


def test_what_gives_no_page_is_named_with_the_reason() -> None:
    app, _ = make_app(PROPAGATE_EXCEPTIONS=False)
    app.add_url_rule("/private", "private", lambda: redirect("/login?next=/private"))
    app.add_url_rule("/broken", "broken", lambda: str(1 / 0))
    app.add_url_rule("/data", "data", lambda: {"a": 1})
    OpenManager(app)
    said = summary(app, level="warn")
    assert said.startswith("Looked at 0 pages")
    assert "/private (302 FOUND, to /login?next=/private)" in said
    assert "/broken (500 INTERNAL SERVER ERROR)" in said
    assert "/data" not in said


def test_an_exception_that_leaves_the_app_ends_nothing() -> None:
    app, _ = make_app()
    app.add_url_rule("/broken", "broken", lambda: str(1 / 0))
    app.add_url_rule("/whole", "whole", lambda: SCRIPT)
    OpenManager(app)
    (trouble, said) = found(app)
    assert trouble["subject"] == "GET /whole"
    assert "/broken (ZeroDivisionError" in said["message"]


@pytest.mark.parametrize("error", [SystemExit(3), GeneratorExit(), MemoryError()])
def test_nothing_that_a_view_raises_ends_the_command(error: BaseException) -> None:
    app, _ = make_app()

    def broken() -> str:
        raise error

    app.add_url_rule("/broken", "broken", broken)
    app.add_url_rule("/whole", "whole", lambda: SCRIPT)
    OpenManager(app)
    (trouble, said) = found(app)
    assert trouble["subject"] == "GET /whole"
    assert f"/broken ({type(error).__name__} in " in said["message"]


def test_what_a_view_prints_is_no_finding(capsys: pytest.CaptureFixture[str]) -> None:
    app, _ = make_app()
    app.add_url_rule("/", "index", lambda: print("printed") or SCRIPT)
    OpenManager(app)
    group = FlaskGroup(create_app=lambda: app)
    with pytest.raises(SystemExit):
        group.main(["om", "doctor", "--json"])
    said = capsys.readouterr()
    assert json.loads(said.out)
    assert "printed" in said.err


def test_pages_of_errors_are_looked_at_too() -> None:
    app, opened = make_app()
    app.add_url_rule("/gone", "gone", lambda: (SCRIPT, 410))
    OpenManager(app)
    (trouble, said) = found(app)
    assert trouble["subject"] == "GET /gone"
    assert (said["level"], "/gone (410 GONE)" in said["message"]) == ("warn", True)
    assert opened == ["/gone"]


def test_html_files_of_the_app_are_looked_at(tmp_path: Path) -> None:
    (tmp_path / "a b").mkdir()
    (tmp_path / "a b" / "report.html").write_text(SCRIPT)
    (tmp_path / "plain.htm").write_text("<p>")
    app, _ = make_app()
    app.static_folder = str(tmp_path)
    OpenManager(app)
    (trouble, said) = found(app)
    assert trouble["subject"] == "GET /static/a%20b/report.html"
    assert "OM_CSP_HTML_NONCES = ['/static/a b/report.html']" in trouble["way_out"]
    assert "Looked at 2 pages" in said["message"]
    assert "1 others came first" in summary(app, "--pages", "1")
    mended, _ = make_app(OM_CSP_HTML_NONCES=["/static/a b/report.html"])
    mended.static_folder = str(tmp_path)
    OpenManager(mended)
    assert [one["subject"] for one in found(mended)] == ["pages"]


def test_scripts_of_drawings_are_named_and_what_was_said_mends_them() -> None:
    app, _ = make_app()
    drawing = "<svg xmlns='http://www.w3.org/2000/svg'><script>start()</script></svg>"
    app.add_url_rule("/chart.svg", "chart", lambda: Response(drawing, mimetype="image/svg+xml"))
    app.add_url_rule("/plain.svg", "p", lambda: Response("<svg/>", mimetype="image/svg+xml"))
    OpenManager(app)
    (trouble, said) = found(app)
    assert (trouble["level"], trouble["subject"]) == ("warn", "GET /chart.svg")
    assert "OM_CSP_PATHS = {'/chart.svg': {'exempt': True}}" in trouble["way_out"]
    assert "Looked at 0 pages" in said["message"]
    mended, _ = make_app(OM_CSP_PATHS={"/chart.svg": {"exempt": True}})
    mended.add_url_rule("/chart.svg", "chart", lambda: Response(drawing, mimetype="image/svg+xml"))
    OpenManager(mended)
    assert [one["subject"] for one in found(mended)] == ["pages"]


def test_a_policy_that_the_app_sends_itself_is_not_taken_for_that_of_enforce() -> None:
    app, _ = make_app()

    @app.after_request
    def send(response: Response) -> Response:
        response.headers["Content-Security-Policy"] = "script-src 'self'"
        return response

    app.add_url_rule("/", "page", lambda: render_template_string(SCRIPT))
    OpenManager(app)
    trouble = found(app)[0]
    assert trouble["level"] == "warn"
    assert trouble["message"].startswith("The application's own Content-Security-Policy stops 1 ")
    assert "OM_CSP_HTML_NONCES" not in trouble["way_out"]


def test_of_a_page_without_bounds_the_beginning_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "_MAX_BYTES", 2**18)
    app, _ = make_app()
    closed: list[str] = []

    def stream() -> Iterator[str]:
        try:
            yield SCRIPT
            while True:
                yield "<p>" + "x" * 2**14
        finally:
            closed.append("yes")

    app.add_url_rule("/huge", "huge", lambda: Response(stream(), mimetype="text/html"))
    OpenManager(app)
    (trouble, said) = found(app)
    assert trouble["subject"] == "GET /huge"
    assert "of /huge, only the first 0.25 MiB were read" in said["message"]
    assert closed == ["yes"] * 2


def test_a_page_that_the_app_compressed_is_named() -> None:
    app, _ = make_app()
    sent = {"Content-Encoding": "gzip"}
    app.add_url_rule("/", "index", lambda: (SCRIPT, sent))
    OpenManager(app)
    assert "/ (the application compressed it)" in summary(app, level="warn")


def test_the_same_page_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    app, opened = make_app()
    app.add_url_rule("/", "index", lambda: render_template_string(SCRIPT))
    app.add_url_rule("/new", "new", lambda: f"<p>{len(opened)}")
    OpenManager(app)
    looked: list[str] = []
    examine = pages.examine_pages

    def note(given: Any, *words: Any, **more: Any) -> Any:
        looked.extend(one.path for one in given)
        return examine(given, *words, **more)

    monkeypatch.setattr(pages, "examine_pages", note)
    found(app)
    assert (looked, opened) == (["/", "/new", "/new"], ["/", "/", "/new", "/new"])


@pytest.mark.parametrize(
    ("to", "level"),
    [
        ("/home", "ok"), ("home", "ok"), ("http://localhost/home#top", "ok"),
        ("/sign-in?next=/", "warn"), ("https://other.example/", "warn"), ("/", "warn"),
        ("/login", "warn"), ("/users/signin", "warn"), ("/home?next=%2F", "warn"),
        ("/home?next=http://localhost/", "warn"), ("/home?tab=1", "ok"),
        ("/catalog-index", "ok"),
    ],
)  # fmt: skip
def test_what_leads_to_a_page_that_was_looked_at_is_in_order(to: str, level: str) -> None:
    app, _ = make_app()
    app.add_url_rule("/", "index", lambda: redirect(to))
    for path in ("/home", "/login", "/users/signin", "/catalog-index"):
        app.add_url_rule(path, path, lambda: "<p>")
    OpenManager(app)
    (said,) = found(app)
    assert said["level"] == level
    assert ("Nobody has looked at /." in said["way_out"]) is (level == "warn")


def test_pages_behind_a_session_are_opened_with_one() -> None:
    app, _ = make_app()
    seen: list[object] = []

    @app.get("/private")
    def private() -> Any:
        seen.append(dict(session))
        return SCRIPT if session.get("user_id") == 7 else redirect("/sign-in")

    OpenManager(app)
    assert "/private (302 FOUND, to /sign-in)" in summary(app, level="warn")
    words = ("--session", "user_id=7", "--session", "name=Jo=e", "--session", "tags=[1]")
    (trouble, said) = found(app, *words)
    assert trouble["subject"] == "GET /private"
    assert (said["level"], "with the session of --session" in said["message"]) == ("ok", True)
    assert seen[-1] == {"user_id": 7, "name": "Jo=e", "tags": [1]}
    result = run(app, "--session", "user_id")
    assert (result.exit_code, "write it as 'user_id=7'" in result.output) == (2, True)


def test_a_page_that_a_cookie_opens_is_no_longer_missing() -> None:
    app, _ = make_app()

    @app.get("/private")
    def private() -> Any:
        return "<p>" if request.cookies.get("a") == "1" else ("<p>", 401)

    OpenManager(app)
    assert "/private (401" in summary(app, "--url", "/private?b=1", level="warn")
    assert "/private (401" in summary(app, "--url", "/private?b=1", "--cookie", "a=1")


def test_without_a_secret_key_there_is_no_session() -> None:
    app, _ = make_app(SECRET_KEY=None)
    app.add_url_rule("/", "index", lambda: "<p>")
    OpenManager(app)
    result = run(app, "--session", "user_id=7")
    assert (result.exit_code, "--session: The session is unavailable" in result.output) == (2, True)


@pytest.mark.parametrize(
    ("url", "pattern"),
    [("/item/7?tab=2", "/item/*"), ("/search?q=tea", "/search"), ("/none?x=1", "/none")],
)
def test_a_setting_for_a_page_names_its_path(url: str, pattern: str) -> None:
    app, _ = make_app()
    app.add_url_rule("/item/<int:number>", "item", lambda number: SCRIPT)
    app.add_url_rule("/search", "search", lambda: SCRIPT)
    app.register_error_handler(404, lambda error: (SCRIPT, 404))
    OpenManager(app)
    trouble = found(app, "--pages", "0", "--url", url)[0]
    assert trouble["subject"] == f"GET {url}"
    assert f"OM_CSP_HTML_NONCES = ['{pattern}']" in trouble["way_out"]


ASK = "<button onclick=\"return confirm('Sure?')\">x</button>"


def test_a_question_that_the_policy_stops_after_all_is_a_failure() -> None:
    app, _ = make_app()
    kept: list[str] = []

    @app.get("/stream")
    def stream() -> Any:
        def parts() -> Iterator[str]:
            yield "<!doctype html>"
            yield render_template_string(ASK)

        return Response(stream_with_context(parts()), mimetype="text/html")

    @app.get("/kept")
    def keep() -> str:
        if not kept:
            kept.append(render_template_string(ASK))
        return kept[0]

    app.add_url_rule("/python", "python", lambda: ASK)
    app.add_url_rule("/template", "template", lambda: render_template_string(ASK))
    OpenManager(app)
    (trouble, _) = found(app)
    assert (trouble["level"], trouble["subject"]) == ("fail", "GET /kept, /python, /stream")
    assert "what depends on it happens unasked" in trouble["message"]


def test_a_page_that_holds_a_whole_library_is_read_to_its_end() -> None:
    library = f"/*{'x' * 5_000_000}*/ document.createElement('style')"
    app, _ = make_app(OM_CSP_HTML_NONCES="trusted")
    app.add_url_rule("/", "chart", lambda: f"<!doctype html><script>{library}</script>")
    OpenManager(app)
    trouble, said = found(app)
    assert "Scripts insert styles here" in trouble["message"]
    assert "only the first" not in said["message"]


def test_what_was_said_of_inserted_styles_mends_the_page() -> None:
    script = "document.head.append(document.createElement('style'))"

    def make(**config: Any) -> Flask:
        app, _ = make_app(**config)
        html = "<script src=/lib.js></script>"
        app.add_url_rule("/board/", "board", lambda: render_template_string(html))
        app.add_url_rule("/lib.js", "lib", lambda: Response(script, mimetype="text/javascript"))
        OpenManager(app)
        return app

    (trouble, _) = found(make())
    assert (trouble["level"], trouble["subject"]) == ("warn", "GET /board/")
    change = {"update": {"style-src": ["'unsafe-inline'"]}}
    assert f"OM_CSP_PATHS = {{'/board/*': {change}}}." in trouble["way_out"]
    assert [one["subject"] for one in found(make(OM_CSP_PATHS={"/board/*": change}))] == ["pages"]


@pytest.mark.parametrize(("mode", "level"), [("enforce", "fail"), ("adopt", "warn")])
def test_a_script_that_is_sent_with_a_wrong_type_is_named(mode: str, level: str) -> None:
    app, _ = make_app(OM_CSP_MODE=mode)
    html = (
        "<script src='/config.js?v=1'></script><link rel=stylesheet href=/main.css>"
        "<script src=/right.js></script><script src=/gone.js></script>"
        "<script src=/broken.js></script>"
    )
    app.add_url_rule("/", "index", lambda: render_template_string(html))
    app.add_url_rule("/config.js", "config", lambda: "a = 1")
    app.add_url_rule("/main.css", "main", lambda: ("p {}", {"Content-Type": "text/plain"}))
    app.add_url_rule("/right.js", "right", lambda: ("", {"Content-Type": "text/javascript"}))
    app.add_url_rule("/broken.js", "broken", lambda: str(1 / 0))
    OpenManager(app)
    troubles = [one for one in found(app) if one["subject"] != "pages"]
    assert [(one["level"], one["subject"]) for one in troubles] == [
        (level, "GET /config.js?v=1"),
        (level, "GET /main.css"),
    ]
    assert "refuse this script of /: its type is text/html." in troubles[0]["message"]
    assert "mimetype='text/javascript'" in troubles[0]["way_out"]


def test_only_gets_are_made() -> None:
    app, _ = make_app()
    methods: list[str] = []

    @app.before_request
    def note() -> None:
        methods.append(request.method)

    app.add_url_rule("/both", "both", lambda: "<p>", methods=["GET", "POST", "PUT"])
    app.add_url_rule("/post", "post", lambda: "<p>", methods=["POST", "DELETE"])
    OpenManager(app)
    found(app)
    assert methods == ["GET", "GET"]


def test_a_page_that_never_ends_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "_ONE_S", 0.2)
    app, _ = make_app()

    @app.get("/endless")
    def endless() -> tuple[Iterator[str], dict[str, str]]:
        def stream() -> Iterator[str]:
            while True:
                yield "x"
                time.sleep(0.01)

        return stream(), {"Content-Type": "text/html"}

    app.add_url_rule("/slow", "slow", lambda: time.sleep(60))
    OpenManager(app)
    assert "/endless, /slow (it takes more than" in summary(app, level="warn")


def test_the_number_of_pages_has_a_bound_and_can_be_none() -> None:
    app, opened = make_app()
    for number in range(5):
        app.add_url_rule(f"/{number}", f"view{number}", lambda: "<p>")
    OpenManager(app)
    assert "/2, /3, /4 (2 others came first)" in summary(app, "--pages", "2")
    assert set(opened) == {"/0", "/1"}
    opened.clear()
    assert found(app, "--pages", "0") == []
    assert opened == []


def test_further_addresses_are_opened_with_cookies_and_headers() -> None:
    app, opened = make_app()

    @app.get("/search")
    def search() -> str:
        return SCRIPT if request.cookies.get("a") == "1" and request.headers["X"] == "y" else "<p>"

    @app.get("/item/<int:number>")
    def item(number: int) -> str:
        return "<p onclick='go()'>"

    OpenManager(app)
    words = ("--url", "/search?q=1", "--url", "/item/3", "--cookie", "a=1", "--header", "X: y")
    subjects = [one["subject"] for one in found(app, *words, "--pages", "0")]
    assert subjects == ["GET /search?q=1", "GET /item/3", "pages"]
    assert "/search?q=1" in opened
    result = run(app, "--url", "search")
    assert (result.exit_code, "'search' is no path" in result.output) == (2, True)


def test_no_session_is_sent_and_the_app_answers_by_its_own_name() -> None:
    app, _ = make_app(SERVER_NAME="site.example", OM_FORCE_HTTPS=True)
    seen: list[object] = []

    @app.get("/")
    def index() -> str:
        seen.append((dict(session), request.url))
        return "<p>"

    OpenManager(app)
    assert summary(app).startswith("Looked at 1 page of")
    assert seen == [({}, "https://site.example/")] * 2


@pytest.mark.parametrize("config", [{"OM_CSP_MODE": "off"}, {"OM_ENABLED": False}])
def test_where_no_policy_is_sent_no_page_is_opened(config: dict[str, Any]) -> None:
    app, opened = make_app(**config)
    app.add_url_rule("/", "index", lambda: SCRIPT)
    OpenManager(app)
    assert found(app) == []
    assert opened == []
