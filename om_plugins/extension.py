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
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, ParamSpec, TypeVar, cast

from flask import (
    Blueprint,
    Flask,
    Request,
    current_app,
    got_request_exception,
    has_app_context,
    request,
)
from werkzeug.exceptions import HTTPException, MethodNotAllowed
from werkzeug.middleware.proxy_fix import ProxyFix

from .builtin.engine_callable import CallableEngine
from .caching.memoize import Memoized, memoize
from .errors import ConfigError
from .flask_templates import current_environ, prepare_templates
from .flask_views import cached
from .live import LASTS_S
from .resilience.fingerprint import fingerprint
from .runtime import Runtime
from .security.companions import CHANGED, changes
from .security.override import Override, override
from .settings import Settings, ShieldOptions
from .shield import RAISED, SHIELD
from .types import EngineSpec
from .wsgi import OpenManagerMiddleware

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

    from .caching.http_cache import HttpCache
    from .caching.smart import SmartCache
    from .notifying.centre import NotificationCentre
    from .protocols import Hub
    from .resilience.chain import EngineChain

__all__ = ["OpenManager"]

KEY = "om_plugins"
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
        self._shields: list[ShieldOptions] = []
        self._shares: list[bool] = []  # filled once a view is shared
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
        entry = _Entry(self, app)
        app.extensions[KEY] = entry.build()
        app.wsgi_app = entry  # type: ignore[method-assign]
        self._apps.add(app)
        prepare_templates(app, lambda: _runtime(app))
        # weak: the entry lives as long as the app, and must not keep it alive
        got_request_exception.connect(entry.failed, sender=app)
        _hear_of_wrong_methods(app)

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
            _runtime(app).add_engine(spec)
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
    ) -> Callable[[Callable[P, Any]], Callable[P, Any]]:
        """Answer a view's GET and HEAD requests from the smart cache.

        Put it below the route: ``@app.get("/report")``, then ``@om.cached(stale_time=300)``. The
        arguments and what is stored are described at :func:`om_plugins.flask_views.cached`.
        """
        if shared:
            self._shares.append(True)
            for app in list(self._apps):
                _runtime(app).http_cache.wanted = True
        return cached(
            self._cache_if_enabled,
            stale_time=stale_time,
            cache_time=cache_time,
            tags=tags,
            scope=scope,
            query=query,
            shared=shared,
            vary=vary,
        )

    def memoize(
        self,
        *,
        stale_time: float | None = None,
        cache_time: float | None = None,
        retry: int = 0,
        dedupe_time: float = 1.0,
        tags: Iterable[str] = (),
        scope: str | Callable[[], str] = "",
        negative_time: float | None = None,
    ) -> Callable[[Callable[..., Any]], Memoized]:
        """Cache what a function returns, by its arguments.

        See :func:`om_plugins.caching.memoize.memoize`.
        """
        return memoize(
            self._cache_if_enabled,
            stale_time=stale_time,
            cache_time=cache_time,
            retry=retry,
            dedupe_time=dedupe_time,
            tags=tags,
            scope=scope,
            negative_time=negative_time,
        )

    def csp(
        self,
        *,
        update: Mapping[str, object] | None = None,
        replace: Mapping[str, object] | None = None,
        exempt: bool = False,
        report_only: bool | Mapping[str, object] | str | None = None,
    ) -> Callable[[V], V]:
        """Change the Content-Security-Policy of one view's responses, or of a blueprint's.

        The arguments are those of :class:`om_plugins.security.override.Override`. Put it below
        the route; a blueprint is given to what this returns: ``om.csp(exempt=True)(blueprint)``.

        Raises:
            ConfigError: a directive or source is not allowed (when the view is defined).
        """
        change = Override(update=update, replace=replace, exempt=exempt, report_only=report_only)
        return _before_each(lambda: override(request.environ, change))

    def shield(self, *answers: str, chain: str = "", **options: Any) -> Callable[[V], V]:
        """Have something else answer when this view, or a blueprint's, raises or answers 5xx.

        Put it below the route, or give a blueprint to what this returns. ``OM_SHIELD`` does the
        same for whole paths; a view's own shield comes before a blueprint's and theirs.

        Args:
            answers: what answers instead, in this order: ``stale``, or names of chains.
            chain: the same as one more name at their end.
            options: other fields of :class:`~om_plugins.settings.ShieldOptions`.

        Raises:
            ConfigError: an option is unknown or not allowed (when the view is defined).

        Example::

            @app.get("/report")
            @om.shield("stale", chain="reports")
            def report(): ...
        """
        if chain:
            answers = (*answers, chain)
        if answers:
            options["answers"] = answers
        shield = ShieldOptions.from_mapping(options, where="shield: ")
        self._shields.append(shield)

        def bring() -> None:
            request.environ[SHIELD] = shield

        return _before_each(bring)

    def headers(
        self,
        headers: Mapping[str, str | None] | None = None,
        *,
        permissions_policy: Mapping[str, Sequence[str]] | None = None,
    ) -> Callable[[V], V]:
        """Change the companion headers of one view's responses, or of a blueprint's.

        What the view itself sets on its response is kept.

        Args:
            headers: from a name to its value, or ``None`` to leave it out.
            permissions_policy: in place of ``OM_PERMISSIONS_POLICY``; ``{}`` sends none.

        Raises:
            ConfigError: a name or value is not allowed (when the view is defined).

        Example::

            @app.get("/embed")
            @om.headers({"X-Frame-Options": None, "Cross-Origin-Resource-Policy": "cross-origin"})
            def embed(): ...
        """
        changed = changes(headers or {}, permissions_policy)

        def act() -> None:
            environ = request.environ
            environ[CHANGED] = (*environ.get(CHANGED, ()), *changed)

        return _before_each(act)

    def _cache_if_enabled(self) -> SmartCache | None:
        runtime = self.runtime
        return runtime.cache if runtime.settings.enabled else None

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
                return _runtime(app)
            if not self._apps:
                raise RuntimeError("this app is not bound: call om.init_app(app) first")
            raise RuntimeError(
                f"the current app {app.name!r} is not bound to this OpenManager: "
                "call om.init_app(app) on it"
            )
        apps = list(self._apps)
        if len(apps) == 1:
            return _runtime(apps[0])
        if apps:
            names = ", ".join(sorted(repr(app.name) for app in apps))
            raise RuntimeError(
                f"this OpenManager serves {len(apps)} apps ({names}): say which one is meant "
                "with 'with app.app_context():'"
            )
        raise RuntimeError("no app is bound: call OpenManager(app) or om.init_app(app) first")

    def chain(self, name: str) -> EngineChain:
        """The chain of that name; ask it with ``.call(payload)``."""
        return self.runtime.chain(name)

    def configure(self, chain: str, *, lasts_s: float = LASTS_S, **options: object) -> None:
        """Change a chain while the app runs, in every worker.

        ``om.configure("assistant", timeout=3, engines={"model": {"enabled": False}})``; the
        arguments are those of :meth:`om_plugins.live.LiveSettings.configure`, and
        ``om.runtime.live.reset("assistant")`` takes the changes back.
        """
        self.runtime.live.configure(chain, lasts_s=lasts_s, **options)

    @property
    def cache(self) -> SmartCache:
        """The smart cache: ``om.cache.query("servers", fetch_servers)``."""
        return self.runtime.cache

    @property
    def http_cache(self) -> HttpCache:
        """The shared HTTP cache: ``om.http_cache.purge("/report")``."""
        return self.runtime.http_cache

    @property
    def notify(self) -> NotificationCentre:
        """Tells people something: ``om.notify.success("Saved")``.

        In a request it goes to the browser that asked, else to the operators; ``to="everyone"``,
        ``to="user:7"`` or ``to="role:editor"`` says otherwise.
        """
        return self.runtime.notify

    @property
    def hub(self) -> Hub:
        """What this app's workers share."""
        return self.runtime.hub


def _before_each(act: Callable[[], None]) -> Callable[[V], V]:
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

        return cast("V", acting)

    return decorate


class _Entry:
    """The app's ``wsgi_app``: builds anew when settings were changed before the first request."""

    def __init__(self, om: OpenManager, app: Flask) -> None:
        self._engines = om._engines
        self._plugins = om._plugins
        self._shields = om._shields
        self._shares = om._shares
        self._app = app
        self._wsgi_app = app.wsgi_app
        self._seen: dict[str, object] = {}
        self._middleware: OpenManagerMiddleware | None = None

    def failed(self, app: Flask, *, exception: BaseException, **extra: object) -> None:
        """A view raised what nobody handled."""
        runtime = _runtime(app)
        if runtime.settings.enabled:
            rule = request.url_rule
            subject = f"route:{rule.rule if rule else '<unmatched>'}"
            request.environ[RAISED] = id(exception), fingerprint(exception, subject)
            runtime.recovery.note(subject, exception)

    def build(self) -> Runtime:
        """Make the app's runtime from its configuration as it is now."""
        app = self._app
        self._seen = _relevant(app.config)
        runtime = Runtime(
            Settings.from_mapping(app.config),
            sender=app,
            testing=bool(app.testing),
            debug=bool(app.debug),
            instance_path=Path(app.instance_path),
            secret_key=lambda: app.secret_key,
            trusted_hosts=app.config.get("TRUSTED_HOSTS"),
            host_context=app.request_context,
            work_context=app.app_context,
            current_environ=current_environ,
            route_of=functools.partial(_route_of, weakref.ref(app)),
            name=app.name,
            plugins=self._plugins,
        )
        for spec in self._engines:
            runtime.add_engine(spec)
        runtime.http_cache.wanted = runtime.http_cache.wanted or bool(self._shares)
        _explain_inner_proxy_fix(self._wsgi_app, runtime.settings)
        # composed now, so that a wrong route stops the start, too
        self._composed = self._compose(runtime)
        return runtime

    def _compose(self, runtime: Runtime) -> OpenManagerMiddleware:
        self._shielded = bool(self._shields)
        self._caching = runtime.http_cache.wanted
        return OpenManagerMiddleware(self._wsgi_app, runtime=runtime, views_shielded=self._shielded)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        middleware = self._middleware or self._first()
        return middleware(environ, start_response)

    def _first(self) -> OpenManagerMiddleware:
        now = _relevant(self._app.config)
        if now != self._seen:
            changed = sorted(
                k for k in now.keys() | self._seen.keys() if now.get(k) != self._seen.get(k)
            )
            logger.debug("%s changed after init_app: built anew", ", ".join(changed))
            old = _runtime(self._app)
            self._app.extensions[KEY] = self.build()
            old.close()
        caching = _runtime(self._app).http_cache.wanted
        # views may have been decorated after init_app
        if bool(self._shields) != self._shielded or caching != self._caching:
            self._composed = self._compose(_runtime(self._app))
        settings = _runtime(self._app).settings
        if settings.enabled and settings.secure_cookies:
            _secure_cookies(self._app)
        self._middleware = self._composed
        return self._middleware


def _hear_of_wrong_methods(app: Flask) -> None:
    """Count 405s where Flask raises what its routing found: other requests pay nothing."""
    raise_it = app.raise_routing_exception

    def raise_routing_exception(asked: Request) -> NoReturn:
        error = asked.routing_exception
        if isinstance(error, MethodNotAllowed) and error.valid_methods:
            _note_wrong_method(_runtime(app), asked, error.valid_methods)
        raise_it(asked)

    app.raise_routing_exception = raise_routing_exception  # type: ignore[method-assign, assignment]


def _note_wrong_method(runtime: Runtime, asked: Request, allowed: Iterable[str]) -> None:
    allowed = list(allowed)
    try:
        adapter = current_app.create_url_adapter(asked)
        if adapter is not None and runtime.settings.enabled:
            rule, _ = adapter.match(method=allowed[0], return_rule=True)
            runtime.wrong_methods.note(rule.rule, asked.method, allowed)
    except HTTPException:
        logger.debug("no rule is known for a 405", exc_info=True)


def _runtime(app: Flask) -> Runtime:
    runtime = app.extensions[KEY]
    assert isinstance(runtime, Runtime)  # noqa: S101 - for mypy; only init_app writes it
    return runtime


def _route_of(app: weakref.ref[Flask], host: str, path: str) -> str:
    living = app()
    if living is None:
        return ""
    urls = living.url_map.bind(host or "localhost")
    for method in ("GET", "POST"):
        try:
            rule, _ = urls.match(path, method, return_rule=True)
        except HTTPException:
            continue
        return rule.rule
    return ""


def _secure_cookies(app: Flask) -> None:
    """Flags of the session cookie and of Flask-Login's; what the app chose itself stays."""
    config = app.config
    over_https = not (app.debug or app.testing)
    config["SESSION_COOKIE_SECURE"] = config["SESSION_COOKIE_SECURE"] or over_https
    config["SESSION_COOKIE_SAMESITE"] = config["SESSION_COOKIE_SAMESITE"] or "Lax"
    config.setdefault("REMEMBER_COOKIE_SECURE", over_https)
    config.setdefault("REMEMBER_COOKIE_HTTPONLY", True)
    config.setdefault("REMEMBER_COOKIE_SAMESITE", "Lax")


def _relevant(config: Mapping[str, object]) -> dict[str, object]:
    names = ("DEBUG", "TESTING", "TRUSTED_HOSTS")
    return {k: v for k, v in config.items() if k.startswith("OM_") or k in names}


def _explain_inner_proxy_fix(app: object, settings: Settings) -> None:
    if not isinstance(app, ProxyFix):
        return
    if settings.proxies:
        raise ConfigError(
            "OM_PROXIES",
            settings.proxies,
            "this app applies ProxyFix itself, so X-Forwarded-* would be read twice; "
            "remove app.wsgi_app = ProxyFix(...) or OM_PROXIES",
        )
    logger.warning(
        "ProxyFix is inside OpenManager, whose layers see the proxy's address: remove "
        "app.wsgi_app = ProxyFix(...) and set OM_PROXIES to the number of proxies, "
        "or apply ProxyFix after OpenManager(app)"
    )
