"""``flask om csp``: what it prints."""

from __future__ import annotations

import json
from typing import Any

import pytest
from click.testing import CliRunner, Result
from flask import Blueprint, Flask
from flask.cli import FlaskGroup

from om_plugins import OpenManager
from om_plugins.csp import commands


def run(app: Flask, *arguments: str) -> Result:
    """As the ``flask`` command runs it: the group is found by its entry point."""
    group = FlaskGroup(create_app=lambda: app)
    return CliRunner().invoke(group, ["om", "csp", *arguments], catch_exceptions=False)


@pytest.fixture
def shop(tmp_path: Any, monkeypatch: Any) -> Flask:
    for name, text in (
        ("templates/index.html", "<p>\n<a onclick='go()'>"),
        ("templates/mail.txt", "<a onclick='go()'>"),
        ("admin/list.html", "<p style='color:red'>"),
    ):
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
    app = Flask("shop", root_path=str(tmp_path))
    app.config.update(TESTING=True, SECRET_KEY="x" * 32, OM_PLUGINS=())
    app.register_blueprint(Blueprint("admin", "admin", template_folder=str(tmp_path / "admin")))
    OpenManager(app)
    monkeypatch.chdir(tmp_path)
    return app


def test_lint_names_file_and_line_and_the_fix(shop: Flask) -> None:
    result = run(shop, "lint")
    assert result.exit_code == 1
    assert "templates/index.html:2: error event-handler: onclick" in result.output
    assert "→ In a script: element.addEventListener('click', …)." in result.output
    assert "admin/list.html:1: note style-attribute" in result.output
    assert "mail.txt" not in result.output
    assert result.output.endswith("1 error, 1 note.\n")


def test_lint_counts_what_is_dangerous_to_stop(shop: Flask, tmp_path: Any) -> None:
    (tmp_path / "templates/index.html").write_text("<form onsubmit='return confirm(1)'>")
    result = run(shop, "lint")
    assert 'error guarding-handler: Dangerous: onsubmit="return confirm(1)"' in result.output
    assert result.output.endswith("1 error (1 dangerous), 1 note.\n")


def test_lint_for_machines(shop: Flask) -> None:
    found = json.loads(run(shop, "lint", "--errors", "--json").output)
    assert [(one["line"], one["rule"]) for one in found] == [(2, "event-handler")]


def test_lint_may_look_at_some_folders_alone(shop: Flask, tmp_path: Any) -> None:
    own = tmp_path / "templates"
    assert "templates/index.html:2" in run(shop, "lint", str(own)).output
    assert "admin/" not in run(shop, "lint", str(own)).output
    (tmp_path / "other").mkdir()
    result = run(shop, "lint", str(tmp_path / "other"))
    assert (result.exit_code, result.output) == (0, "0 errors, 0 notes.\n")


def test_lint_is_content_with_notes(shop: Flask, tmp_path: Any) -> None:
    (tmp_path / "templates/index.html").write_text("<p style='a'>")
    assert run(shop, "lint").exit_code == 0


REPORT = {
    "csp-report": {
        "document-uri": "http://localhost/item/17",
        "effective-directive": "img-src",
        "blocked-uri": "https://pictures.example/a.png?secret=1",
        "source-file": "http://localhost/item/17",
        "line-number": 12,
        "disposition": "report",
    }
}


@pytest.fixture
def learning(shop: Flask) -> Flask:
    @shop.get("/item/<int:number>")
    def item(number: int) -> str:
        return "item"

    shop.config.update(OM_CSP_MODE="learn", OM_CSP={"img-src": ["'self'"]})
    client = shop.test_client()
    assert "report-uri" in client.get("/item/17").headers["Content-Security-Policy-Report-Only"]
    for _ in range(2):
        client.post("/_om/csp", json=REPORT)
    return shop


def test_suggest_shows_what_broke_where_and_the_change(learning: Flask) -> None:
    output = run(learning, "suggest").output
    assert "2 × img-src blocked https://pictures.example on /item/<int:number> (line 12)" in output
    assert "or img-src https://pictures.example" in output
    assert "risk: low. Pictures may come from there" in output
    assert "secret" not in output


def test_suggest_exports_settings_that_work(learning: Flask) -> None:
    output = run(learning, "suggest", "--settings").output
    found: dict[str, Any] = {}
    exec(output, found)
    app = Flask("shop")
    app.config.update(TESTING=True, OM_CSP_MODE="enforce", OM_CSP=found["OM_CSP"])
    OpenManager(app)
    policy = app.test_client().get("/none").headers["Content-Security-Policy"]
    assert "img-src 'self' https://pictures.example" in policy


def test_suggest_says_that_anybody_can_send_reports(
    learning: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = run(learning, "suggest", "--settings").output
    assert output.startswith("# Anybody can send reports: allow only what you know.\nOM_CSP = {")
    monkeypatch.setattr(commands, "MAX_GROUPS", 1)
    output = run(learning, "suggest").output
    assert "# 1 kinds of reports are the most that one process counts" in output


def test_suggest_says_of_which_text_a_hash_is(learning: Flask) -> None:
    text = {
        "document-uri": "http://localhost/item/17", "effective-directive": "style-src-elem",
        "blocked-uri": "inline", "script-sample": "p{}",
    }  # fmt: skip
    learning.test_client().post("/_om/csp", json={"csp-report": text})
    output = run(learning, "suggest", "--settings").output
    assert "# A hash is that of a text without the blanks that may stand around it.\n" in output


def test_suggest_for_machines_and_by_risk(learning: Flask) -> None:
    found = json.loads(run(learning, "suggest", "--json", "--risk", "none").output)
    assert found["OM_CSP"] == {}
    assert found["suggestions"][0]["group"]["route"] == "/item/<int:number>"
    assert "# no change of policy" in run(learning, "suggest", "--risk", "none").output


def test_suggest_has_nothing_to_say_without_reports(shop: Flask) -> None:
    output = run(shop, "suggest").output
    assert "No report" in output
    assert "OM_HUB_URL" in output
