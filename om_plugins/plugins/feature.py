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

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from ..settings.table import NoKeys, Table
from .kit import Card, Finding, Kit, Metric

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication
    from click import Command


Part = TypeVar("Part")
_Answer = TypeVar("_Answer")
Keys = TypeVar("Keys", bound=Table)


class Feature(Generic[Part, Keys]):
    """The base class of a feature. Each method but :meth:`build` returns nothing by default.

    ``layer``, ``endpoints``, ``commands``, ``start`` and ``close`` are asked once when the
    application is built, started or closed; ``card``, ``metrics`` and ``findings`` whenever the
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


_BASE = frozenset(name for name in vars(Feature) if not name.startswith("_"))


def check_feature(feature: object) -> Feature[Any, Any]:
    """Refuse what cannot be a feature, before anything of it is used.

    Raises:
        TypeError: it is no :class:`Feature`, its name or table is wrong, or it has a public
            attribute that the base class does not have.
    """
    if not isinstance(feature, Feature):
        raise TypeError(f"{feature!r} is no om_plugins.Feature: derive its class from Feature")
    cls = type(feature)
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,63}", feature.name):
        raise TypeError(
            f"{cls.__name__}.name is {feature.name!r}: it must be 1 to 64 lower-case letters, "
            "digits and '_', and begin with a letter"
        )
    if not (isinstance(feature.keys, type) and issubclass(feature.keys, Table)):
        raise TypeError(f"{cls.__name__}.keys is {feature.keys!r}: it must be a class of Table")
    for name in sorted({n for one in cls.__mro__ if one is not object for n in vars(one)}):
        if not name.startswith("_") and name not in _BASE:
            near = difflib.get_close_matches(name, sorted(_BASE), n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"begin it with '_': '_{name}'"
            raise TypeError(f"a feature has no {name!r} ({cls.__name__}.{name}); {hint}")
    return feature


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
    return specs


def nearest(name: str, known: Iterable[str]) -> str:
    """``Did you mean …?`` with the known name that is nearest; "" when none is near."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"Did you mean {near[0]!r}?" if near else ""
