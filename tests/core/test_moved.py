"""Imports of old paths fail with the new name, and every new name is there."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys

import pytest

import om_plugins
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
    "from om_plugins.security.nonce import nonce": "from om_plugins import nonce",
    "from om_plugins.security import nonce": "from om_plugins import nonce",
    "from om_plugins.resilience.chain import EngineChain": (
        "from om_plugins import ChainPolicy, EngineChain"
    ),
    "from om_plugins.routes import EngineRoutes": "from om_plugins import EngineRoutes",
    "from om_plugins.settings import Settings": "from om_plugins import Settings",
    "from om_plugins.settings import RouteOptions": "from om_plugins import RouteOptions",
    "import om_plugins.settings as s; s.Settings": "from om_plugins import Settings",
    "from om_plugins.testing.hub_contract import HubContract": (
        "from om_plugins.testing import HubContract"
    ),
}


@pytest.mark.parametrize("statement", OLD_IMPORTS)
def test_an_old_import_says_what_to_write(statement):
    with pytest.raises(ImportError) as caught:
        exec(statement, {})
    assert str(caught.value).endswith(f" is no longer there; write: {OLD_IMPORTS[statement]}")
    exec(OLD_IMPORTS[statement], {})


@pytest.mark.parametrize("old", moved.MOVED)
def test_every_old_module_is_refused_and_what_is_said_instead_works(old):
    with pytest.raises(ImportError, match=rf"^om_plugins\.{re.escape(old)} is no longer there"):
        if old.startswith("settings."):
            getattr(importlib.import_module("om_plugins.settings"), old.partition(".")[2])
        else:
            importlib.import_module(f"om_plugins.{old}")
    if moved.MOVED[old].startswith("from "):
        exec(moved.MOVED[old], {})


@pytest.mark.parametrize(
    "name", ["om_plugins.nothing", "om_plugins.security.nothing", "om_plugins.builtin.nothing"]
)
def test_other_modules_that_are_not_there_are_told_as_python_does(name):
    with pytest.raises(ModuleNotFoundError, match=f"No module named '{name}'"):
        importlib.import_module(name)


def test_other_names_of_the_settings_are_told_as_python_does():
    with pytest.raises(ImportError, match="cannot import name 'Nothing'"):
        exec("from om_plugins.settings import Nothing", {})


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
