"""``flask om cache purge``: what another process takes back."""

from __future__ import annotations

import json

from click.testing import CliRunner
from flask import Flask
from flask.cli import FlaskGroup

from om_plugins import OpenManager
from om_plugins.console.doctor import examine


def purge(app, *arguments):
    """As the ``flask`` command runs it: the group is found by its entry point."""
    group = FlaskGroup(create_app=lambda: app)
    return CliRunner().invoke(group, ["om", "cache", "purge", *arguments])


def worker(hub_url):
    app = Flask("served")
    app.testing = True
    app.config["OM_HUB_URL"] = hub_url
    om = OpenManager(app)
    app.add_url_rule("/page", "page", om.cached(shared=True, tags=["news"])(lambda: "page"))
    return app, om


def test_a_purge_reaches_the_workers_over_the_hub(tmp_path):
    hub_url = f"sqlite:///{tmp_path}/hub.sqlite3"
    app, om = worker(hub_url)
    client = app.test_client()
    for arguments in (["--url", "/page"], ["--prefix", "/pa"], ["--tag", "news"]):
        client.get("/page")
        assert om.http_cache.stats().entries == 1
        said = purge(worker(hub_url)[0], *arguments)
        assert said.exit_code == 0, said.output
        assert "Purged" in said.output
        om.runtime.part_of("cache").internals.bus.read()
        assert om.http_cache.stats().entries == 0


def test_it_tells_machines_what_it_did(tmp_path):
    app, _ = worker(f"sqlite:///{tmp_path}/hub.sqlite3")
    said = purge(app, "--tag", "a", "--tag", "b", "--soft", "--json")
    assert json.loads(said.output) == {"url": "", "prefix": None, "tags": ["a", "b"], "soft": True}


def test_a_purge_that_nobody_could_hear_fails():
    said = purge(worker("memory://")[0], "--url", "/page")
    assert said.exit_code == 1
    assert "OM_HUB_URL" in said.output


def test_a_purge_must_say_what(tmp_path):
    said = purge(worker(f"sqlite:///{tmp_path}/hub.sqlite3")[0])
    assert said.exit_code == 1
    assert "say what to purge" in said.output


def found(**config):
    """The doctor's findings about the cache, by subject."""
    app = Flask("examined")
    app.testing = True
    app.config.update(config)
    om = OpenManager(app)
    return {
        f.subject: f.level for f in examine(om.runtime.kit) if f.subject.startswith("OM_HTTP_C")
    }


def test_the_doctor_looks_at_the_cache():
    assert found() == {}
    assert found(OM_HTTP_CACHE=True) == {"OM_HTTP_CACHE": "warn"}
    assert found(OM_HTTP_CACHE=True, TRUSTED_HOSTS=["a.example"]) == {"OM_HTTP_CACHE": "ok"}
    assert found(OM_HTTP_CACHE={"all": False}) == {}
