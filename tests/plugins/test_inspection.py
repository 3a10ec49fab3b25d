"""An installed plugin is looked at once in a process, and again when it was changed."""

from __future__ import annotations

import gc
import types
import weakref

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

    def counted(self, plugin, *, keep):
        found.append(plugin)
        return look(self, plugin, keep=keep)

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
    return [one.function(None) for one in manager.find("om_startup")]


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
    with pytest.raises(ValueError, match="registered already, as"):
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


def names_in_order(manager, hook="om_startup"):
    return [one.plugin_name for one in manager.find(hook)]


def manage(plugins, *, keep=True):
    manager = HookManager()
    for name, plugin in plugins.items():
        manager.add(name, manager.inspect(plugin, keep=keep))
    return manager


def make_plugins():
    return {
        name: make_module(om_startup=hookimpl(lambda context: None, **options))
        for name, options in {
            "early": {"tryfirst": True},
            "one": {},
            "late": {"trylast": True},
            "two": {},
            "other": {"specname": "om_shutdown"},
        }.items()
    }


def test_the_order_is_pluggys_also_for_the_next_application():
    plugins = make_plugins()
    for keep in (True, False, True):
        manager = manage(plugins, keep=keep)
        assert names_in_order(manager) == ["early", "two", "one", "late"]
        assert names_in_order(manager, "om_shutdown") == ["other"]
        assert names_in_order(manager, "om_engines") == []


def test_applications_with_the_same_installed_plugins_sort_them_once(monkeypatch):
    plugins = make_plugins()
    names_in_order(manage(plugins))
    monkeypatch.setattr(inspection, "_Registry", None)
    assert names_in_order(manage(plugins)) == ["early", "two", "one", "late"]


def test_a_plugin_that_is_added_later_takes_its_place_and_other_applications_have_none_of_it():
    plugins = make_plugins()
    manager, other = manage(plugins), manage(plugins)
    assert names_in_order(manager) == names_in_order(other)
    manager.add("own", manager.inspect(make_module(om_startup=om_startup), keep=False))
    assert names_in_order(manager) == ["early", "own", "two", "one", "late"]
    assert names_in_order(other) == ["early", "two", "one", "late"]


def test_other_names_and_another_order_of_the_same_plugins_are_told_apart():
    plugins = make_plugins()
    names_in_order(manage(plugins))
    assert names_in_order(manage(dict(reversed(plugins.items())))) == [
        "early",
        "one",
        "two",
        "late",
    ]
    renamed = {f"new {name}": plugin for name, plugin in plugins.items()}
    assert names_in_order(manage(renamed)) == ["new early", "new two", "new one", "new late"]


def test_a_plugin_that_was_changed_is_called_as_it_is_now():
    plugin = make_module(om_startup=om_startup)
    assert call(plugin) == ["first"]
    plugin.om_startup = hookimpl(lambda context: "changed")
    assert call(plugin) == ["changed"]


def test_what_an_application_brings_is_not_held_alive():
    plugin = Plain()
    reference = weakref.ref(plugin)
    assert names_in_order(manage({"own": plugin}, keep=False)) == ["own"]
    del plugin
    gc.collect()
    assert reference() is None
