"""``om`` in an app's own commands, which ``app.test_cli_runner()`` uses."""

from __future__ import annotations

import subprocess
import sys

import click
import pytest
from flask import Flask

from om_plugins import OpenManager


@pytest.fixture
def app():
    app = Flask("shop")
    app.config.update(TESTING=True, SECRET_KEY="x" * 32, OM_HUB_URL="memory://")
    OpenManager(app)
    return app


@pytest.mark.parametrize(
    ("args", "shown"),
    [
        (["om", "settings"], "OM_PREFIX"),
        (["om", "plugins"], "monitor-log"),
        (["om", "--help"], "doctor"),
        (["om", "csp", "--help"], "lint"),
        (["om", "doctor", "--json"], '"subject"'),
        (["--help"], "Look at om_plugins"),
    ],
)
def test_the_runner_of_an_app_knows_om(app, args, shown):
    result = app.test_cli_runner().invoke(args=args)
    assert result.exit_code in (0, 1)  # 1: the doctor found something
    assert shown in result.output


def test_an_unknown_command_below_om_is_an_error(app):
    result = app.test_cli_runner().invoke(args=["om", "docter"])
    assert result.exit_code == 2
    assert "docter" in result.output


def test_a_command_that_the_app_has_stays():
    app = Flask("shop")

    @app.cli.command("om")
    def own():
        click.echo("the app's own")

    OpenManager(app)
    assert app.test_cli_runner().invoke(args=["om"]).output == "the app's own\n"


def test_binding_an_app_imports_no_commands():
    code = (
        "import sys; from flask import Flask; from om_plugins import OpenManager; "
        "OpenManager(Flask('a')); print('om_plugins.cli.main' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout == "False\n"
