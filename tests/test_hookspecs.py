"""The hooks: each documented in the code and for authors, with an example that can be used."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path
from typing import Any

import pluggy
import pytest

from om_plugins import hookimpl, hookspecs
from om_plugins.plugins.checks import HOOKS

PAGE = (Path(__file__).parent.parent / "docs" / "plugins.md").read_text("utf-8")
SECTIONS = {
    found[1]: found[0]
    for found in re.finditer(r"^### (\w+)\(.*?(?=^##|\Z)", PAGE, re.MULTILINE | re.DOTALL)
}


def signature(hook: str) -> str:
    """As the source writes it, on one line."""
    tree = ast.parse(inspect.getsource(hookspecs))
    (spec,) = [n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == hook]
    assert spec.returns is not None
    return f"{hook}({ast.unparse(spec.args)}) -> {ast.unparse(spec.returns)}"


def test_the_hooks_are_those_of_the_design() -> None:
    assert sorted(HOOKS) == [
        "om_caches",
        "om_csp",
        "om_engines",
        "om_features",
        "om_hubs",
        "om_monitors",
        "om_notifiers",
        "om_plugin_info",
        "om_recovery_steps",
        "om_shutdown",
        "om_startup",
    ]


@pytest.mark.parametrize("hook", HOOKS)
def test_every_hook_has_a_heading_with_its_exact_signature(hook: str) -> None:
    assert f"\n### {signature(hook)}\n" in PAGE


@pytest.mark.parametrize("hook", HOOKS)
def test_every_hook_has_an_example_for_authors(hook: str) -> None:
    blocks = re.findall(r"```python\n(.*?)```", SECTIONS[hook], re.DOTALL)
    assert any(f"@hookimpl\ndef {hook}(" in block for block in blocks)


def test_no_hook_is_documented_that_does_not_exist() -> None:
    assert set(SECTIONS) == set(HOOKS)


@pytest.mark.parametrize("hook", HOOKS)
def test_every_docstring_has_an_example_that_pluggy_accepts(hook: str) -> None:
    doc = inspect.getdoc(getattr(hookspecs, hook)) or ""
    example = inspect.cleandoc(doc.partition("Example::")[2])
    namespace: dict[str, Any] = {"hookimpl": hookimpl}
    exec(compile(example, hook, "exec"), namespace)

    class Plugin:
        pass

    setattr(Plugin, hook, staticmethod(namespace[hook]))
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    manager.register(Plugin(), "example")
    manager.check_pending()
    assert len(getattr(manager.hook, hook).get_hookimpls()) == 1


def test_hooks_that_are_called_before_the_parts_are_there_get_nothing_all_others_the_context() -> (
    None
):
    early = {"om_plugin_info", "om_features"}
    for hook, arguments in HOOKS.items():
        assert arguments == (() if hook in early else ("context",))
