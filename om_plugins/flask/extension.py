"""``OpenManager``: the Flask extension, the one line that an app adds.

Only wiring: the app's configuration becomes :class:`~om_plugins.settings.Settings`, a
:class:`~om_plugins.runtime.Runtime` is built for each app and kept in ``app.extensions``, and
``app.wsgi_app`` is wrapped. One ``OpenManager`` may serve several apps; it keeps no state of any
of them, only what was registered on it (engines, plugins), which every app gets.
"""

from __future__ import annotations

import functools
import logging
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, Unpack, cast, overload

from flask import (
    Blueprint,
    Flask,
    current_app,
    got_request_exception,
    has_app_context,
)

from ..builtin.engines.callable import CallableEngine
from ..cache.cache import Memoized, MemoizeOptions, SmartCache, memoize
from ..chains.live_settings import DEFAULT_LASTS_S
from ..csp.override import Override, add_override
from ..errors import ConfigError
from ..fallback.options import FallbackOptions
from ..headers.companions import read_changes
from ..runtime import Runtime
from ..types import EngineSpec
from .app_state import KEY, Entry, hear_of_wrong_methods, runtime_of
from .app_state__flask_https import say
from .app_state__flask_order import Decorated
from .current import current_state
from .templates import prepare_templates
from .views import cached

if TYPE_CHECKING:
    from ..chains.chain import EngineChain
    from ..http_cache.cache import HttpCache
    from ..monitoring.alerts import Alerts
    from ..monitoring.monitoring import Monitoring
    from ..notifications.notifications import Notifications
    from ..notifications.problem_reports import ProblemReports
    from ..protocols import Hub

__all__ = ["OpenManager"]

F = TypeVar("F", bound=Callable[..., Any])
P = ParamSpec("P")
V = TypeVar("V")

logger = logging.getLogger("om_plugins")


class OpenManager:
    """Keeps a Flask app answering.

    Args:
        app: the app; leave it out in a factory and call :meth:`init_app` there.

    Raises:
        ConfigError: an ``OM_`` key of ``app.config`` is unknown or its value is not allowed.

    Example::

        app = Flask(__name__)
        om = OpenManager(app)
    """

    def __init__(self, app: Flask | None = None) -> None:
        self._apps: weakref.WeakSet[Flask] = weakref.WeakSet()
        self._engines: list[EngineSpec] = []
        self._plugins: list[tuple[object, str | None]] = []
        self._declared: dict[str, list[object]] = {}
        self._decorated = Decorated()
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Bind to ``app``: read its ``OM_`` settings and wrap its ``wsgi_app``.

        Nothing is opened or started here.

        Raises:
            ConfigError: a setting is wrong.
            RuntimeError: the app has an ``OpenManager`` already.
        """
        if KEY in app.extensions:
            raise RuntimeError(
                "this app has an OpenManager already: call OpenManager(app) or init_app(app) once"
            )
        entry = Entry(
            app,
            engines=self._engines,
            plugins=self._plugins,
            declared=self._declared,
            decorated=self._decorated,
        )
        app.extensions[KEY] = entry.build()
        app.wsgi_app = entry  # type: ignore[method-assign]
        self._apps.add(app)
        prepare_templates(app, lambda: runtime_of(app))
        # weak: the entry lives as long as the app, and must not keep it alive
        got_request_exception.connect(entry.failed, sender=app)
        hear_of_wrong_methods(app)

    # --- registering --------------------------------------------------------------------------

    def engine(self, name: str, *, chain: str, tier: int = 1, **traits: Any) -> Callable[[F], F]:
        """Make a function an engine: it gets the :class:`~om_plugins.types.Call` and answers.

        Args:
            name: the engine's name, unique in its chain.
            chain: the chain's name.
            tier: lower tiers are asked first, from 1.
            traits: fields of :class:`~om_plugins.types.EngineTraits`, such as
                ``idempotent=True`` or ``local=True``.

        Example::

            @om.engine("local", chain="assistant", tier=3, local=True)
            def local_answer(call):
                return {"answer": "The assistant is resting."}
        """

        def register(function: F) -> F:
            self.add_engine(CallableEngine(name, function, **traits), chain=chain, tier=tier)
            return function

        return register

    def add_engine(self, engine: object, *, chain: str, tier: int = 1, weight: float = 1.0) -> None:
        """Add an engine object to a chain of every app that this ``OpenManager`` serves."""
        spec = EngineSpec(engine, chain, tier, weight)
        for app in list(self._apps):
            runtime_of(app).add_engine(spec)
        self._engines.append(spec)

    def register_plugin(self, plugin: object, name: str | None = None) -> None:
        """Use a plugin that is not installed as an entry point.

        Call it before :meth:`init_app`: hooks are asked when an app is bound.

        Raises:
            RuntimeError: an app is bound already.
        """
        if self._apps:
            raise RuntimeError("register plugins before init_app(app): an app is bound already")
        self._plugins.append((plugin, name))

    def declare(self, feature: str, value: object) -> None:
        """Tell a feature what a decorator of views declared, before the first request.

        The feature finds it in ``kit.host.declared[feature]``; its layer is composed anew when
        views declare something after :meth:`init_app`.
        """
        self._declared.setdefault(feature, []).append(value)

    # --- for views and functions --------------------------------------------------------------

    def cached(
        self,
        *,
        stale_time: float | None = None,
        cache_time: float | None = None,
        tags: Iterable[str] = (),
        scope: str | Callable[[], object] | None = None,
        query: bool = True,
        shared: bool = False,
        vary: Iterable[str] = (),
        negative_time: float | None = None,
    ) -> Callable[[Callable[P, Any]], Callable[P, Any]]:
        """Answer a view's GET and HEAD requests from the smart cache.

        Put it below the route: ``@app.get("/report")``, then ``@om.cached(stale_time=300)``. The
        arguments and what is stored are described at :func:`om_plugins.flask.views.cached`.
        """
        if shared:
            self.declare("http_cache", True)
        decorate = cached(
            self._cache_if_enabled,
            stale_time=stale_time,
            cache_time=cache_time,
            tags=tags,
            scope=scope,
            query=query,
            shared=shared,
            vary=vary,
            negative_time=negative_time,
        )

        def decorate_and_keep(view: Callable[P, Any]) -> Callable[P, Any]:
            decorated = decorate(view)
            self._decorated.keep("cached", view, decorated)
            return decorated

        return decorate_and_keep

    @overload
    def memoize(self, function: Callable[..., Any], /) -> Memoized: ...
    @overload
    def memoize(
        self,
        function: None = None,
        /,
        *,
        scope: str | Callable[[], str] = "",
        **options: Unpack[MemoizeOptions],
    ) -> Callable[[Callable[..., Any]], Memoized]: ...
    def memoize(
        self,
        function: Callable[..., Any] | None = None,
        /,
        *,
        scope: str | Callable[[], str] = "",
        **options: Unpack[MemoizeOptions],
    ) -> Memoized | Callable[[Callable[..., Any]], Memoized]:
        """Cache the values of a function by its arguments: ``@om.memoize``, or with keywords.

        The keywords are those of :func:`om_plugins.cache.cache.memoize`, as
        ``@om.memoize(stale_time=60, tags=["prices"])``.
        """
        decorate = memoize(self._cache_if_enabled, scope=scope, **options)
        return decorate if function is None else decorate(function)

    def csp(
        self,
        *,
        update: Mapping[str, object] | str | None = None,
        replace: Mapping[str, object] | str | None = None,
        exempt: bool = False,
        report_only: bool | Mapping[str, object] | str | None = None,
    ) -> Callable[[V], V]:
        """Change the Content-Security-Policy of one view's responses, or of a blueprint's.

        The arguments are those of :class:`om_plugins.csp.override.Override`. Put it below
        the route; a blueprint is given to what this returns: ``om.csp(exempt=True)(blueprint)``.

        Raises:
            ConfigError: a directive or source is not allowed (when the view is defined).
        """
        change = Override(update=update, replace=replace, exempt=exempt, report_only=report_only)
        return self._before_each("csp", lambda: add_override(current_state(), change))

    def fallback(self, *answers: str, chain: str = "", **options: Any) -> Callable[[V], V]:
        """Have something else answer when this view, or a blueprint's, raises or answers 5xx.

        Put it below the route, or give a blueprint to what this returns. ``OM_FALLBACK`` does the
        same for whole paths; a view's own fallback comes before a blueprint's and theirs.

        Args:
            answers: what answers instead, in this order: ``stale``, or names of chains.
            chain: the same as one more name at their end.
            options: other fields of :class:`~om_plugins.settings.FallbackOptions`.

        Raises:
            ConfigError: an option is unknown or not allowed (when the view is defined).

        Example::

            @app.get("/report")
            @om.fallback("stale", chain="reports")
            def report(): ...
        """
        if chain:
            answers = (*answers, chain)
        if answers:
            options["answers"] = answers
        fallback = FallbackOptions.from_mapping(options, where="fallback: ")
        self.declare("fallback", fallback)

        def bring() -> None:
            current_state().fallback = fallback

        return self._before_each("fallback", bring)

    def headers(
        self,
        headers: Mapping[str, str | None] | None = None,
        *,
        permissions_policy: Mapping[str, Sequence[str] | str] | None = None,
        force_https: bool | None = None,
    ) -> Callable[[V], V]:
        """Change the companion headers of one view's responses, or of a blueprint's.

        What the view itself sets on its response is kept. Given a blueprint, it is for all of the
        blueprint's views: ``om.headers(force_https=False)(blueprint)``.

        Args:
            headers: from a name to its value, or ``None`` to leave it out. ``X-Frame-Options``
                also decides the policy's ``frame-ancestors``.
            permissions_policy: in place of ``OM_PERMISSIONS_POLICY``; ``{}`` sends none.
            force_https: ``False`` answers over plain HTTP, too, ``True`` redirects to HTTPS,
                whatever ``OM_FORCE_HTTPS`` says (except in debug mode).

        Raises:
            ConfigError: a name or value is not allowed (when the view is defined).

        Example::

            @app.get("/embed")
            @om.headers({"X-Frame-Options": None, "Cross-Origin-Resource-Policy": "cross-origin"})
            def embed(): ...
        """
        changed = read_changes(headers or {}, permissions_policy)

        def act() -> None:
            state = current_state()
            state.header_changes = (*state.header_changes, *changed)

        decorate: Callable[[V], V] = self._before_each("headers", act)
        if force_https is None:
            return decorate
        if not isinstance(force_https, bool):
            raise ConfigError("headers(force_https)", force_https, "must be True or False")
        self.declare("https", force_https)

        def decorate_and_say(view: V) -> V:
            decorated = decorate(view)
            say(decorated, force_https)
            return decorated

        return decorate_and_say

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            if name == "shield":
                raise AttributeError("OpenManager.shield was renamed to OpenManager.fallback")
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def _before_each(self, what: str, act: Callable[[], None]) -> Callable[[V], V]:
        """A decorator of views and blueprints that acts before each of their requests."""

        def decorate(view: V) -> V:
            if isinstance(view, Blueprint):
                view.before_request(act)
                return view

            called = cast("Callable[..., Any]", view)

            @functools.wraps(called)
            def acting(*args: Any, **kwargs: Any) -> Any:
                act()
                return current_app.ensure_sync(called)(*args, **kwargs)

            self._decorated.keep(what, called, acting)
            return cast("V", acting)

        return decorate

    def _cache_if_enabled(self) -> SmartCache | None:
        runtime = self.runtime
        cache: SmartCache = runtime.part_of("cache")
        return cache if runtime.keys.enabled else None

    # --- the parts of the current app ---------------------------------------------------------

    @property
    def runtime(self) -> Runtime:
        """The parts of the current app.

        Raises:
            RuntimeError: it is not clear which app is meant, or it is not bound.
        """
        if has_app_context():
            app = current_app._get_current_object()  # type: ignore[attr-defined]
            if app in self._apps:
                return runtime_of(app)
            if not self._apps:
                raise RuntimeError("this app is not bound: call om.init_app(app) first")
            raise RuntimeError(
                f"the current app {app.name!r} is not bound to this OpenManager: "
                "call om.init_app(app) on it"
            )
        apps = list(self._apps)
        if len(apps) == 1:
            return runtime_of(apps[0])
        if apps:
            names = ", ".join(sorted(repr(app.name) for app in apps))
            raise RuntimeError(
                f"this OpenManager serves {len(apps)} apps ({names}): say which one is meant "
                "with 'with app.app_context():'"
            )
        raise RuntimeError("no app is bound: call OpenManager(app) or om.init_app(app) first")

    def chain(self, name: str) -> EngineChain:
        """The chain of that name; ask it with ``.call(payload)``."""
        chain: EngineChain = self.runtime.part_of("chains").get(name)
        return chain

    def configure(self, chain: str, *, lasts: float = DEFAULT_LASTS_S, **options: object) -> None:
        """Change a chain while the app runs, in every worker.

        ``om.configure("assistant", timeout=3, engines={"model": {"enabled": False}})``; the
        arguments are those of :meth:`om_plugins.chains.live_settings.LiveSettings.configure`, and
        ``om.runtime.live.reset("assistant")`` takes the changes back.
        """
        self.runtime.part_of("chains").live.configure(chain, lasts=lasts, **options)

    @property
    def cache(self) -> SmartCache:
        """The smart cache: ``om.cache.query("servers", fetch_servers)``."""
        cache: SmartCache = self.runtime.part_of("cache")
        return cache

    @property
    def http_cache(self) -> HttpCache:
        """The shared HTTP cache: ``om.http_cache.purge("/report")``."""
        http_cache: HttpCache = self.runtime.part_of("http_cache").cache
        return http_cache

    @property
    def notify(self) -> Notifications:
        """Tells people something: ``om.notify.success("Saved")``.

        In a request it goes to the browser that asked, else to the operators; ``to="everyone"``,
        ``to="user:7"`` or ``to="role:editor"`` says otherwise.
        """
        notify: Notifications = self.runtime.part_of("notifications")
        return notify

    @property
    def alerts(self) -> Alerts:
        """Silences alerts: ``om.alerts.silence("response_time", 3600)``."""
        alerts: Alerts = self.runtime.part_of("monitoring").alerts
        return alerts

    @property
    def monitoring(self) -> Monitoring:
        """Counts requests: ``om.monitoring.overview()`` is what all workers counted."""
        monitoring: Monitoring = self.runtime.part_of("monitoring")
        return monitoring

    @property
    def problem_reports(self) -> ProblemReports:
        """What people reported: ``om.problem_reports.read(limit=20)``."""
        reports: ProblemReports = self.runtime.part_of("notifications").problem_reports
        return reports

    @property
    def hub(self) -> Hub:
        """What this app's workers share."""
        return self.runtime.hub
