"""A feature: one folder of this package, or a third party's, with all that belongs to it.

A feature is a plugin that brings more: its table of ``OM_`` settings, a WSGI layer, endpoints below
``OM_PREFIX``, commands of ``flask om``, a card on the console, metrics, and findings for the
doctor. :mod:`om_plugins.features` lists the shipped ones; the hook ``om_features`` brings a third
party's::

    from om_plugins import Feature, FeatureSpec, hookimpl

    class Greeting(Feature):
        name = "greeting"

        def build(self, kit, keys):
            return {"asked": 0}

        def endpoints(self, kit, part):
            return {"/greeting": greet}

    @hookimpl
    def om_features():
        return [FeatureSpec(Greeting(), after="headers")]
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from ..errors import suggest
from ..settings.callbacks import explain_callback
from ..settings.compose import PREFIX
from ..settings.table import Check, NoKeys, Table
from .kit import Card, Finding, Kit, Metric

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication
    from click import Command


Part = TypeVar("Part")
_Answer = TypeVar("_Answer")
Keys = TypeVar("Keys", bound=Table)


class Feature(Generic[Part, Keys]):
    """The base class of a feature. Each method but :meth:`build` has a default.

    ``is_needed``, ``layer``, ``endpoints``, ``commands``, ``start`` and ``close`` are asked when
    the application is built, started or closed; ``card``, ``metrics`` and ``findings`` whenever the
    console, a scrape or the doctor asks.

    Attributes:
        name: lower-case letters, digits and ``_``; unique in an application.
        keys: the table of the feature's settings.
    """

    name: ClassVar[str] = ""
    keys: ClassVar[type[Table]] = NoKeys

    def build(self, kit: Kit, keys: Keys) -> Part | None:
        """Make the feature's part for one application.

        Open nothing and start nothing here. Import the feature's modules here, so that an
        application without the feature does not pay for them.

        Args:
            kit: what the application gives to its features.
            keys: the feature's settings, checked.

        Returns:
            What the other methods get; ``None`` switches the feature off for this application.

        Raises:
            ConfigError: a setting cannot work.
        """
        raise NotImplementedError(f"{type(self).__name__}.build(kit, keys) is missing")

    def is_needed(self, kit: Kit, keys: Keys) -> bool:
        """Tell whether an application needs the part from its start; it does by default.

        If not, the part is built when somebody asks for it: a view, another feature, the console
        or the doctor. A part that is not built has no layer and no findings on names. This is asked
        when the layers are composed, so again when views declare something later.

        Args:
            kit: what the application gives to its features.
            keys: the feature's settings, checked.

        Raises:
            ConfigError: a setting cannot work. What ``build`` refuses must stop the start, so
                refuse it here, or return ``True``.
        """
        return True

    def layer(self, kit: Kit, part: Part, app: WSGIApplication) -> WSGIApplication | None:
        """Wrap the application in the feature's WSGI layer; ``None`` for no layer."""
        return None

    def endpoints(self, kit: Kit, part: Part) -> Mapping[str, WSGIApplication]:
        """WSGI apps by their path below ``OM_PREFIX``, such as ``{"/csp": reports}``."""
        return {}

    def commands(self) -> Iterable[Command]:
        """Click commands below ``flask om``; ``click.pass_obj`` gives them the :class:`Kit`."""
        return ()

    def start(self, kit: Kit, part: Part) -> None:
        """The application's first request in this process is about to be answered."""

    def close(self, kit: Kit, part: Part) -> None:
        """Give back what was opened in this process."""

    def card(self, kit: Kit, part: Part) -> Card | None:
        """What the console shows of the feature."""
        return None

    def metrics(self, kit: Kit, part: Part) -> Iterable[Metric]:
        """This process's numbers."""
        return ()

    def findings(self, kit: Kit, part: Part) -> Iterable[Finding]:
        """What the doctor should say; read only: open, ask and change nothing."""
        return ()

    def name_findings(self, kit: Kit, part: Part) -> Iterable[Finding]:
        """What the doctor should say of names in settings: of engines, chains and routes.

        What they name may come after the settings were read. So the first request writes these
        findings into the log as well, those that are not ``ok``.
        """
        return ()


@dataclass(frozen=True, slots=True)
class FeatureSpec:
    """A feature and its place among the layers.

    Attributes:
        feature: an instance.
        before: the name of the feature whose layer is the next one inside; "" when it does not
            matter.
        after: the name of the feature whose layer is the next one outside.
    """

    feature: Feature[Any, Any]
    before: str = ""
    after: str = ""


_UNREAD = frozenset({"build", "start", "close"})
"""The methods whose result nobody looks at: one that yields would do nothing, and nobody knew."""
_BASE = frozenset(name for name in vars(Feature) if not name.startswith("_"))


def check_feature(feature: object) -> Feature[Any, Any]:
    """Refuse what cannot be a feature, before anything of it is used.

    Raises:
        TypeError: it is no :class:`Feature`, its name or table is wrong, it has a public attribute
            that the base class does not have, or a method is an ``async def``.
    """
    if not isinstance(feature, Feature):
        raise TypeError(f"{feature!r} is no om_plugins.Feature: derive its class from Feature")
    cls = type(feature)
    if not (isinstance(feature.name, str) and re.fullmatch(r"[a-z][a-z0-9_]{0,63}", feature.name)):
        raise TypeError(
            f"{cls.__name__}.name is {feature.name!r}: it must be 1 to 64 lower-case letters, "
            "digits and '_', and begin with a letter"
        )
    for name in sorted({n for one in cls.__mro__ if one is not object for n in vars(one)}):
        if name.startswith("_"):
            continue
        if name not in _BASE:
            hint = suggest(name, sorted(_BASE), f"begin it with '_': '_{name}'")
            raise TypeError(f"a feature has no {name!r} ({cls.__name__}.{name}); {hint}")
        method = getattr(feature, name)
        if name in ("name", "keys"):
            continue
        if not callable(method):
            raise TypeError(f"{cls.__name__}.{name} is {method!r}: it must be a method")
        if inspect.iscoroutinefunction(method) or inspect.isasyncgenfunction(method):
            raise TypeError(f"{cls.__name__}.{name} is an async def: write it with a plain def")
        given = len(inspect.signature(getattr(Feature, name)).parameters) - 1
        problem = explain_callback(method, given, may_yield=name not in _UNREAD)
        if problem:
            raise TypeError(f"{cls.__name__}.{name} cannot be called: {problem}")
    _check_table(cls.__name__, feature.keys)
    return feature


def _check_table(owner: str, table: object) -> None:
    """Refuse a table whose keys cannot be read.

    Raises:
        TypeError: names the class and the field.
    """
    if not (isinstance(table, type) and issubclass(table, Table)):
        raise TypeError(f"{owner}.keys is {table!r}: it must be a class of Table")
    where = f"{owner}.keys is {table.__name__}"
    if "__dataclass_fields__" not in vars(table):
        raise TypeError(f"{where}: mark it with @dataclass(frozen=True, slots=True, kw_only=True)")
    for field in fields(table):  # type: ignore[arg-type]
        shown = f"{where}, whose field {field.name!r}"
        check = field.metadata.get("check")
        if not isinstance(check, Check):
            raise TypeError(f"{shown} has no check: give it a value of key(default, check, doc)")
        if table.PREFIX != PREFIX:
            raise TypeError(
                f"{shown} would be the setting {table._written(field.name)!r}: set its PREFIX to "
                f"{PREFIX!r}, not {table.PREFIX!r}"
            )
        made = field.default_factory
        default = field.default if made is MISSING else made()
        if default is None:
            continue
        try:
            check.read(default)
        except (ValueError, TypeError) as error:
            why = f" ({error})" if str(error) else ""
            raise TypeError(
                f"{shown} has the default {default!r}: it must be {check.allowed}{why}"
            ) from None


def check_specs(found: object) -> list[FeatureSpec]:
    """Refuse what a plugin returned for ``om_features`` unless each is a sound feature.

    Raises:
        TypeError: see :func:`check_feature`.
    """
    specs: list[Any] = list(found) if isinstance(found, Iterable) else [found]
    for spec in specs:
        if not isinstance(spec, FeatureSpec):
            raise TypeError(f"om_features returned {spec!r}, which is no om_plugins.FeatureSpec")
        check_feature(spec.feature)
        for word, place in (("before", spec.before), ("after", spec.after)):
            if not isinstance(place, str):
                raise TypeError(
                    f"the feature {spec.feature.name!r} has {word}={place!r}: it must be the name "
                    "of a feature"
                )
    return specs
