"""An installed plugin is looked at once in a process, and again when it was changed."""

from __future__ import annotations

import types

import pytest

from om_plugins import hookimpl
from om_plugins.plugins import inspection
from om_plugins.plugins.inspection import HookManager


@hookimpl
def om_startup(context):
    return "first"


@hookimpl
def om_shutdown(context):
    return "last"


def make_module(**names):
    module = types.ModuleType("plugin")
    vars(module).update(names)
    return module


class Plain:
    @hookimpl
    def om_startup(self, context):
        return "of a class"


class Slotted:
    __slots__ = ("om_startup",)


class Listed(Plain):
    def __dir__(self):
        return ["om_startup"]


class Equal(Plain):
    def __eq__(self, other):
        return True

    __hash__ = None


@pytest.fixture
def looks(monkeypatch):
    """The plugins that were looked at."""
    found = []
    look = HookManager._inspect

    def counted(self, plugin):
        found.append(plugin)
        return look(self, plugin)

    monkeypatch.setattr(HookManager, "_inspect", counted)
    monkeypatch.setattr(inspection, "_kept", type(inspection._kept)())
    return found


def inspect(plugin, *, keep=True):
    return HookManager().inspect(plugin, keep=keep)


def call(*plugins):
    """Register the plugins, and call the hook of each."""
    manager = HookManager()
    for number, plugin in enumerate(plugins):
        manager.add(str(number), manager.inspect(plugin, keep=True))
    return [one.function(None) for one in reversed(manager.hook.om_startup.get_hookimpls())]


@pytest.mark.parametrize(
    "make", [lambda: make_module(om_startup=om_startup), Plain, Equal, lambda: Plain]
)
def test_a_plugin_is_looked_at_once(looks, make):
    plugin = make()
    first = inspect(plugin)
    assert [one.hook for one in first.functions] == ["om_startup"]
    assert inspect(plugin) is first
    assert len(looks) == 1


def test_the_plugin_of_one_application_is_not_kept(looks):
    plugin = Plain()
    for _ in range(2):
        inspect(plugin, keep=False)
    assert len(looks) == 2
    assert not inspection._kept


@pytest.mark.parametrize("make", [Slotted, Listed, lambda: make_module(__dir__=list)])
def test_a_plugin_that_computes_its_attributes_is_always_looked_at(looks, make):
    plugin = make()
    for _ in range(2):
        inspect(plugin)
    assert len(looks) == 2


def replace(module):
    module.om_startup = hookimpl(lambda: "second")


def add(module):
    module.om_shutdown = om_shutdown


def remove(module):
    del module.om_startup


def unmark(module):
    module.om_startup = lambda: None


def mark_another(module):
    module.om_shutdown = module.__dict__.pop("om_startup")


@pytest.mark.parametrize("change", [replace, add, remove, unmark, mark_another])
def test_a_changed_module_is_looked_at_again(looks, change):
    plugin = make_module(om_startup=om_startup)
    before = inspect(plugin)
    change(plugin)
    after = inspect(plugin)
    assert after is not before
    assert len(looks) == 2
    assert inspect(plugin) is after


@pytest.mark.parametrize("where", ["instance", "class", "base"])
def test_a_changed_object_is_looked_at_again(looks, where):
    base = type("Base", (), {})
    cls = type("Plugin", (base,), {"om_startup": hookimpl(lambda self: "old")})
    plugin = cls()
    inspect(plugin)
    target = {"instance": plugin, "class": cls, "base": base}[where]
    target.om_shutdown = hookimpl(lambda *context: "new")
    assert {one.hook for one in inspect(plugin).functions} == {"om_startup", "om_shutdown"}
    assert len(looks) == 2


def test_equal_plugins_are_not_taken_for_each_other(looks):
    one, other = Equal(), Equal()
    other.om_shutdown = om_shutdown
    assert len(inspect(one).functions) == 1
    assert len(inspect(other).functions) == 2
    assert call(one, other) == ["of a class", "of a class"]


def test_what_is_kept_has_a_bound(looks, monkeypatch):
    monkeypatch.setattr(inspection, "_MOST_KEPT", 3)
    plugins = [make_module(om_startup=om_startup) for _ in range(5)]
    for plugin in plugins:
        inspect(plugin)
    assert len(inspection._kept) == 3


def test_one_plugin_under_two_names_is_refused():
    plugin = Plain()
    with pytest.raises(ValueError, match="already registered under a different name"):
        call(plugin, plugin)


def test_a_hook_may_have_any_function_name(looks):
    names = {
        name: hookimpl(specname="om_startup")(lambda context, name=name: name)
        for name in ("_names", "_plugin", "__dict", "self", "plugin")
    }
    assert sorted(call(make_module(**names))) == sorted(names)


def test_what_raises_when_it_is_read_is_not_kept(looks, monkeypatch):
    plugin = Plain()
    monkeypatch.setattr(inspection, "find_unmarked", lambda plugin, marks: 1 / 0)
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            inspect(plugin)
    assert len(looks) == 2
