"""What an application gives to its features when they are built.

A :class:`Kit` is to a feature what a :class:`~om_plugins.protocols.PluginContext` is to a plugin.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..protocols import Clock, HostContext, PluginContext
from ..settings.compose import ComposedSettings
from ..settings.general import GeneralKeys
from ..signals import Emit
from ..workers.hub import SharedHub
from ..workers.lazy_store import LazyStore
from ..workers.scheduler import BackgroundScheduler
from ..workers.secret import Secret
from .host import PluginHost
from .parts import PluginParts

if TYPE_CHECKING:
    import logging

    from _typeshed.wsgi import WSGIApplication, WSGIEnvironment
    from click import Command
    from jinja2 import Environment

    from ..core.inputs import InputRules
    from ..core.observed import ObservedInputs


@dataclass(frozen=True, slots=True)
class Finding:
    """One result of ``flask om doctor``.

    Attributes:
        level: ``ok``, ``warn`` (it works, and somebody should look at it) or ``fail`` (it does
            not work).
        subject: the setting, plugin or part that it is about.
        message: what was found, in one plain sentence.
        way_out: what to do; "" when there is nothing to do.
    """

    level: Literal["ok", "warn", "fail"]
    subject: str
    message: str
    way_out: str = ""


@dataclass(frozen=True, slots=True)
class Card:
    """What a feature shows on the console's first page: one table of text and numbers.

    The console asks for it about once a second while somebody looks at the page.

    Attributes:
        title: the heading.
        rows: one sequence of cells for each row; at most 100 are shown. The page sets cells as
            text, never as markup. It writes numbers with thousands separators; text is left as
            it is.
        columns: the headings of the columns; () for none.
        empty: the sentence that is shown when there is no row.
        data: more members of ``overview.json``, as data for JSON; dataclasses become objects. A
            card with data has no table: the page has a renderer of its own for it, or a script
            reads it. A member of the overview's own keeps its value.
    """

    title: str
    rows: Sequence[Sequence[str | int | float]] = ()
    columns: Sequence[str] = ()
    empty: str = "Nothing yet."
    data: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Metric:
    """One number of this process for monitoring systems, such as Prometheus.

    Attributes:
        name: such as ``om_greetings``; letters, digits and ``_``. A counter's name has no
            ``_total``: the text format adds it.
        about: one line of help.
        value: of a counter the count since the process began, of a gauge the present value; not
            negative. Two of the same name and labels are added up.
        labels: at most four names and values that tell it from others of the same name.
        kind: a counter only grows, and what ended workers counted stays in the sum over all
            workers. Of a gauge, the sum is over the workers that run, so give amounts, not ratios.
    """

    name: str
    about: str
    value: float
    labels: Mapping[str, str] | None = None
    kind: Literal["counter", "gauge"] = "counter"


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """What the host application says of itself.

    Attributes:
        testing: no threads, files or sleeps; broken plugins raise.
        debug: every page asks for reports.
        name: the application's, for ``OM_NAMESPACE``.
        instance_path: the folder that the host may write to; ``None`` for none.
        secret_key: the host's own secret, used when ``OM_SECRET_KEY`` is not set.
        trusted_hosts: the host's own list, used when ``OM_TRUSTED_HOSTS`` is not set.
        request_context: opens the host framework's request context for an environ.
        work_context: opened around every background fetch: the host's application context.
        environ: the WSGI environ of the current request, ``None`` outside one.
        route_of: the host's url rule for a host name and a path; "" for none.
        rules: the host's url rules; ``None`` for a host that cannot tell.
        https_wish: what the view of a request wants: HTTPS alone (``True``), plain HTTP as well
            (``False``), or nothing (``None``).
        jinja_environment: gives the Jinja environment of the host's templates; ``None`` for none.
        declared: what decorators of views declared, by the feature's name; it may grow until the
            first request.
        observes: what the code of a request looks at can be observed, so every request that reaches
            the host has ``inputs`` in its state when a cache of responses is on.
        unobserved: the middleware further in, as ``module:name``, because of which that is not so;
            "" for none.
        observe_fetch: runs a function whose value is cached, and returns its value and what it
            looked at of the current request, "" for nothing; ``None`` when that cannot be observed.
        observe_context: observes the request of an opened request context, by the rules given, and
            returns what code looks at from then on; ``None`` when it cannot be observed.
        isolate: makes this package share nothing with other processes, until this one ends, and
            observe every request, unless ``observe`` is false; returns the whole application. Its
            keywords are keys of the configuration that have other values. ``None`` when the code of
            the host cannot be observed.
    """

    testing: bool = False
    debug: bool = False
    name: str = ""
    instance_path: Path | None = None
    secret_key: Callable[[], bytes | str | None] = lambda: None
    trusted_hosts: Sequence[str] | None = None
    request_context: HostContext | None = None
    work_context: Callable[[], AbstractContextManager[object]] = nullcontext
    environ: Callable[[], WSGIEnvironment | None] = lambda: None
    route_of: Callable[[str, str], str] | None = None
    rules: Callable[[], Sequence[str]] | None = None
    https_wish: Callable[[WSGIEnvironment], bool | None] = lambda environ: None
    jinja_environment: Callable[[], Environment | None] = lambda: None
    declared: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    observes: bool = False
    unobserved: str = ""
    observe_fetch: Callable[[Callable[[], Any]], tuple[Any, str]] | None = None
    observe_context: Callable[[Any, InputRules], ObservedInputs | None] | None = None
    isolate: Callable[..., WSGIApplication] | None = None


class Kit(ABC):
    """What one application gives to its features.

    Attributes:
        keys: the general settings, such as ``prefix``.
        settings: the settings of all features; each reads its own table alone.
        host: the host application.
        clock: time.
        hub: what the workers share.
        scheduler: background work.
        secret: the application's secret, when it is called.
        emit: sends a signal; the sender is the application.
        plugins: the loaded plugins, for calls under guard.
        plugin_parts: what the plugins bring: stores, notifiers, monitors, …
        store: the store of ``OM_CACHE_URL``; ``None`` while values stay in memory.
        hub_url: tells where the hub is, once ``auto`` is resolved.
        namespace: names the application in stores that several share.
        trusted_hosts: host names to answer to; ``None`` for all.
        sender: the application, as blinker's signals name it.
        layers: the composed layers by the feature's name; those inside are there before those
            outside are asked for.
        environ: the WSGI environ of the current request, ``None`` outside one.
        is_closed: tells whether the application was closed.
    """

    keys: GeneralKeys
    settings: ComposedSettings
    host: Host
    clock: Clock
    hub: SharedHub
    scheduler: BackgroundScheduler
    secret: Secret
    sender: object
    emit: Emit
    plugins: PluginHost
    plugin_parts: PluginParts
    store: LazyStore | None
    namespace: str
    trusted_hosts: Sequence[str] | None
    environ: Callable[[], WSGIEnvironment | None]
    hub_url: Callable[[], str]
    is_closed: Callable[[], bool]
    layers: dict[str, WSGIApplication]

    @abstractmethod
    def part_of(self, name: str) -> Any:
        """The part of a feature, built first when it is not there yet.

        Args:
            name: the feature's.

        Returns:
            ``None`` when the feature is off.

        Raises:
            ConfigError: no feature has that name.
            PluginError: the features need each other in a circle, or a third party's feature asks
                for an unknown one while it is built.
        """

    @abstractmethod
    def find_built(self, name: str) -> Any:
        """The part of a feature if it is built already; ``None`` if not, or if it is off.

        Args:
            name: the feature's.
        """

    def plugin_context(self, name: str, config: object, log: logging.Logger) -> PluginContext:
        """Make the context of a plugin, or of an engine that asks for one.

        Args:
            name: the plugin's, or the engine's.
            config: the plugin's settings; ``None`` for none.
            log: its logger.
        """
        context = _KitContext.__new__(_KitContext)
        for attribute, value in (
            ("_kit", self),
            ("name", name),
            ("config", config),
            ("clock", self.clock),
            ("hub", self.hub),
            ("scheduler", self.scheduler),
            ("logger", log),
            ("namespace", self.namespace),
            ("outbound_proxy", self.keys.outbound_proxy),
        ):
            object.__setattr__(context, attribute, value)
        return context

    @abstractmethod
    def endpoints(self) -> dict[str, WSGIApplication]:
        """The endpoints of all features by their path below ``OM_PREFIX``."""

    @abstractmethod
    def commands(self, taken: Collection[str] = ()) -> dict[str, Command]:
        """The commands of all features by name.

        Args:
            taken: names that no feature can have.

        Raises:
            PluginError: a third party's feature is broken and ``OM_STRICT`` is on.
        """

    @abstractmethod
    def cards(self, read: Callable[[Card], Any] = lambda card: card) -> dict[str, Any]:
        """The cards of all features, by the feature's name.

        Args:
            read: makes of a card what is returned. What it raises is a failure of the card's
                feature, which is left out.
        """

    @abstractmethod
    def metrics(self) -> list[Metric]:
        """The numbers of all features in this process."""

    @abstractmethod
    def findings(self) -> list[Finding]:
        """What the features say to the doctor."""


class _KitContext(PluginContext):
    """The context of a plugin; parts of features are built when the plugin reads them first."""

    __slots__ = ("_kit",)
    _kit: Kit

    def __getattr__(self, name: str) -> Any:  # only for what is not set yet
        if name == "cache":
            part = self._kit.part_of("cache")
        elif name == "notify":
            part = self._kit.part_of("notifications")
        elif name == "prober":
            part = self._kit.part_of("recovery").recovery.probes
        else:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        object.__setattr__(self, name, part)
        return part
