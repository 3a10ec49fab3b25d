"""Old names of modules, attributes and arguments fail with the new one; every new name is there."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys

import pytest
from flask import Flask

import om_plugins
from om_plugins import CallableEngine, OpenManager, StaleEngine
from om_plugins.core import moved

OLD_IMPORTS = {
    "import om_plugins.clock": "from om_plugins import SystemClock",
    "from om_plugins import clock": "from om_plugins import SystemClock",
    "from om_plugins.clock import SystemClock": "from om_plugins import SystemClock",
    "from om_plugins.background import BackgroundScheduler": (
        "from om_plugins import BackgroundScheduler"
    ),
    "from om_plugins.builtin.hub_memory import MemoryHub": "from om_plugins import MemoryHub",
    "from om_plugins.builtin import engine_http": "from om_plugins import HttpEngine",
    "from om_plugins.routes import EngineRoutes": "from om_plugins import EngineRoutes",
    "from om_plugins.settings import Settings": "from om_plugins import Settings",
    "from om_plugins.settings import RouteOptions": "from om_plugins import RouteOptions",
    "import om_plugins.settings as s; s.Settings": "from om_plugins import Settings",
    "from om_plugins.signals import shield_answered": (
        "from om_plugins.signals import fallback_answered"
    ),
    "from om_plugins.testing.hub_contract import HubContract": (
        "from om_plugins.testing import HubContract"
    ),
}

# What the documentation of the first version imported from folders that are gone, and the folders
OLD_FOLDERS = {
    "from om_plugins.notifying.problems import problems": "om.problem_reports.read(limit)",
    "from om_plugins.notifying.words import words": "load_translations",
    "from om_plugins.resilience.chain import ChainPolicy, EngineChain": "ChainPolicy, EngineChain",
    "from om_plugins.resilience.fingerprint import kind_of": "error_kind",
    "from om_plugins.security.headers import HeaderPolicy": "HeaderPolicy, HeadersLayer",
    "from om_plugins.security.jinja_nonce import install": "install_nonces",
    "from om_plugins.security.nonce import nonce": ", nonce,",
    "from om_plugins.security.override import Override, override": "override_csp",
    "import om_plugins.caching": "om.cache",
    "import om_plugins.caching.smart": "om.cache",
    "import om_plugins.notifying": "load_translations",
    "import om_plugins.resilience": "EngineChain",
    "import om_plugins.routes.middleware": "EngineRoutes",
    "import om_plugins.security": "HeaderPolicy",
    "import om_plugins.security.anything": "HeaderPolicy",
    "import om_plugins.shield.layer": "@om.fallback",
}


@pytest.mark.parametrize("statement", OLD_IMPORTS)
def test_an_old_import_says_what_to_write(statement):
    with pytest.raises(ImportError) as caught:
        exec(statement, {})
    assert str(caught.value).endswith(f" is no longer there; write: {OLD_IMPORTS[statement]}")
    exec(OLD_IMPORTS[statement], {})


@pytest.mark.parametrize("statement", OLD_FOLDERS)
def test_an_import_from_an_old_folder_says_which_names_are_public(statement):
    folder = statement.split()[1].split(".")[1]
    with pytest.raises(ImportError) as caught:
        exec(statement, {})
    before, _, now = str(caught.value).partition("; write: ")
    assert before == f"om_plugins.{folder} is no longer there"
    assert OLD_FOLDERS[statement] in now


@pytest.mark.parametrize("old", moved.MOVED)
def test_every_old_module_is_refused_and_what_is_said_instead_works(old):
    with pytest.raises(ImportError, match=rf"^om_plugins\.{re.escape(old)} is no longer there"):
        if old.startswith(("settings.", "signals.")):
            module, _, name = old.partition(".")
            getattr(importlib.import_module(f"om_plugins.{module}"), name)
        else:
            importlib.import_module(f"om_plugins.{old}")
    if moved.MOVED[old].startswith("from "):
        exec(moved.MOVED[old], {})


@pytest.mark.parametrize("name", ["om_plugins.nothing", "om_plugins.builtin.nothing"])
def test_other_modules_that_are_not_there_are_told_as_python_does(name):
    with pytest.raises(ModuleNotFoundError, match=f"No module named '{name}'"):
        importlib.import_module(name)


def test_other_names_of_the_settings_are_told_as_python_does():
    with pytest.raises(ImportError, match="cannot import name 'Nothing'"):
        exec("from om_plugins.settings import Nothing", {})


# What one finds them on, by the class whose attributes they were.
OWNERS = {
    "EngineChain": lambda om: om.chain("assistant"),
    "HttpCache": lambda om: om.http_cache,
    "Monitoring": lambda om: om.monitoring,
    "OpenManager": lambda om: om,
    "Runtime": lambda om: om.runtime,
    "SmartCache": lambda om: om.cache,
}


@pytest.fixture
def om():
    app = Flask(__name__)
    app.config["TESTING"] = True
    manager = OpenManager(app)
    manager.add_engine(CallableEngine("model", str), chain="assistant")
    yield manager
    del app  # kept until here: a manager does not keep its apps alive


@pytest.mark.parametrize(
    ("owner", "old"), [(owner, old) for owner, names in moved.ATTRIBUTES.items() for old in names]
)
def test_an_old_attribute_says_what_to_write_and_counts_as_absent(om, owner, old):
    found, now = OWNERS[owner](om), moved.ATTRIBUTES[owner][old]
    with pytest.raises(AttributeError) as caught:
        getattr(found, old)
    ending = f"is no longer there; write: {now}" if now else "is private now"
    assert str(caught.value) == f"{owner}.{old} {ending}"
    assert not hasattr(found, old)


@pytest.mark.parametrize(
    ("owner", "now"),
    [(owner, now) for owner, names in moved.ATTRIBUTES.items() for now in names.values() if now],
)
def test_what_is_said_instead_of_an_old_attribute_is_there(om, owner, now):
    scope = {"om": om, "chain": om.chain("assistant")}
    for name in re.findall(r"\b(?:om|chain)\.[a-z_.]+", now):
        assert eval(name, scope) is not None


def test_attributes_that_never_were_there_fail_as_in_python(om):
    with pytest.raises(AttributeError, match="object has no attribute 'nothing'"):
        om.nothing  # noqa: B018 - the error is the test


OLD_ARGUMENTS = {
    "query()": (lambda om: om.cache.query("key", str, retry=1), "retry", "retries"),
    "@om.memoize": (lambda om: om.memoize(retry=1), "retry", "retries"),
    "send()": (lambda om: om.notify.info("Hello", duration_s=3), "duration_s", "duration"),
    "configure()": (lambda om: om.configure("assistant", lasts_s=6), "lasts_s", "lasts"),
    "StaleEngine": (lambda om: StaleEngine("old", max_age_s=3), "max_age_s", "max_age"),
    "StaleEngine ": (lambda om: StaleEngine("old", keep_s=3), "keep_s", "keep"),
}


@pytest.mark.parametrize("function", OLD_ARGUMENTS)
def test_an_old_argument_says_the_new_one(om, function):
    use, old, new = OLD_ARGUMENTS[function]
    with pytest.raises(TypeError) as caught:
        use(om)
    assert str(caught.value) == f"{function.strip()} has no argument {old!r}; write {new}="


def test_an_argument_that_never_was_there_is_named(om):
    with pytest.raises(TypeError, match=r"send\(\) has no argument 'nothing'$"):
        om.notify.info("Hello", nothing=1)


def test_the_finder_answers_for_this_package_alone():
    assert moved.MovedModules.find_spec("clock") is None
    assert moved.MovedModules.find_spec("elsewhere.clock") is None
    assert moved.MovedModules.find_spec("om_plugins_clock") is None


def test_the_finder_is_asked_last_and_stands_there_once():
    moved.install()
    assert sys.meta_path.count(moved.MovedModules) == 1
    code = "import om_plugins, sys; assert sys.meta_path[-1] is om_plugins.moved.MovedModules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", om_plugins.__all__)
def test_every_public_name_is_there(name):
    assert getattr(om_plugins, name) is not None
