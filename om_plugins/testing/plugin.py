"""The contract of a plugin, as pytest tests that load it into a real application."""

# ruff: noqa: S101 - these are tests

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from ..features import Settings
from ..hookspecs import HOOK_API
from ..plugins.checks import HOOKS, check_engine
from ..plugins.kit import Host
from ..runtime import Runtime
from ..types import PluginStatus

__all__ = ["PluginContract"]


_ANSWERING = [h for h in HOOKS if h not in ("om_plugin_info", "om_startup", "om_shutdown")]


class PluginContract:
    """Inherit, and return your plugin from a fixture::

        class TestWiki(PluginContract):
            config = {"language": "ko"}

            @pytest.fixture
            def plugin(self):
                return om_plugins_wiki

    Attributes:
        config: its configuration, as in ``OM_PLUGIN_CONFIG``.
    """

    config: Mapping[str, Any] = {}

    @pytest.fixture
    def plugin(self) -> object:
        """The plugin: a module or an object."""
        raise NotImplementedError("return your plugin from a fixture named 'plugin'")

    @pytest.fixture
    def runtime(self, plugin: object) -> Iterator[Runtime]:
        """The parts of a real application with this plugin and the shipped ones, in strict mode."""
        settings = Settings(plugins=(), plugin_config={_NAME: dict(self.config)}, strict=True)
        runtime = Runtime(settings, host=Host(testing=True), plugins=[(plugin, _NAME)])
        yield runtime
        runtime.close()

    def test_it_is_loaded(self, runtime: Runtime) -> None:
        status = _find_status(runtime)
        assert (status.state, status.reason) == ("active", "")
        assert status.hooks

    def test_it_says_what_it_is(self, runtime: Runtime) -> None:
        assert _find_status(runtime).summary, "om_plugin_info should return PluginInfo(summary=…)"

    @pytest.mark.parametrize("hook", _ANSWERING)
    def test_its_hooks_answer(self, runtime: Runtime, hook: str) -> None:
        before = _find_status(runtime).failures
        for _, result in runtime.plugins.collect(hook):
            if hook == "om_engines":
                for spec in result:
                    check_engine(spec, spec.chain)
        assert _find_status(runtime).failures == before

    def test_it_starts_and_ends(self, runtime: Runtime) -> None:
        runtime.start()
        runtime.close()
        assert _find_status(runtime).failures == 0

    def test_an_unknown_setting_is_told(self, plugin: object) -> None:
        wrong = Settings(plugins=(), plugin_config={_NAME: {**self.config, "no-such-key": 1}})
        runtime = Runtime(wrong, plugins=[(plugin, _NAME)])
        try:
            status = _find_status(runtime)
            assert (status.state, "OM_PLUGIN_CONFIG" in status.reason) == ("failed", True)
        finally:
            runtime.close()

    def test_it_is_written_for_a_hook_api_that_exists(self, plugin: object) -> None:
        info = getattr(plugin, "om_plugin_info", None)
        assert info is None or 1 <= info().hook_api <= HOOK_API


_NAME = "under-test"


def _find_status(runtime: Runtime) -> PluginStatus:
    return next(status for status in runtime.plugins.get_statuses() if status.name == _NAME)
