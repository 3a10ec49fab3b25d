"""``flask om csp``: what it prints."""

from __future__ import annotations

import json
from typing import Any

import pytest
from click.testing import CliRunner, Result
from flask import Blueprint, Flask
from flask.cli import FlaskGroup

from om_plugins import OpenManager


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
    assert "→ In a script: the element.addEventListener('click', …)." in result.output
    assert "admin/list.html:1: note style-attribute" in result.output
    assert "mail.txt" not in result.output
    assert result.output.endswith("1 errors, 1 notes.\n")


def test_lint_for_machines(shop: Flask) -> None:
    found = json.loads(run(shop, "lint", "--errors", "--json").output)
    assert [(one["line"], one["rule"]) for one in found] == [(2, "event-handler")]


def test_lint_is_content_with_notes(shop: Flask, tmp_path: Any) -> None:
    (tmp_path / "templates/index.html").write_text("<p style='a'>")
    assert run(shop, "lint").exit_code == 0
