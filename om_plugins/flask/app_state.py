"""The state of one Flask app: its ``wsgi_app``, its parts, and what it reports of requests."""

from __future__ import annotations

import functools
import logging
import threading
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from flask import (
    Flask,
    Request,
    current_app,
    request,
)
from werkzeug.exceptions import HTTPException, MethodNotAllowed
from werkzeug.middleware.proxy_fix import ProxyFix

from ..cache.feature import CacheKeys
from ..core.fork import renew_after_fork
from ..core.request_state import state_of
from ..core.stand_ins.methods import get_late
from ..errors import ConfigError
from ..fallback.feature import FallbackKeys
from ..fallback.options import FallbackOptions
from ..features import Settings
from ..headers.feature import HeaderKeys
from ..plugins.kit import Host
from ..runtime import Runtime
from ..settings.general import GeneralKeys
from ..types import EngineSpec
from ..wsgi import LayeredApp, TransparentApp, redirect
from .current import current_environ, current_state, plain_environ
from .decorators import DecoratedViews, read_https_wish
from .inner_middleware import find_unknown_middleware
from .templates import before_first_request

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

    from ..core.inputs import InputRules
    from ..core.observed import ObservedInputs

KEY = "om_plugins"
"""The key of the parts in ``app.extensions``."""

logger = logging.getLogger("om_plugins")


class AppEntry:
    """Answers the requests of an app until its parts are ready for the first one.

    It builds the parts again when settings were changed before the first request.

    Args:
        app: the app, whose own ``wsgi_app`` this wraps.
        engines, plugins: the engines and plugins of the ``OpenManager``. They are read when the
            parts are built, so that the lists may grow until then.
        declared: what decorators declared, by the feature's name. It may grow until the first
            request.
        decorated: the views that the ``OpenManager`` decorated.

    Attributes:
        wsgi_app: takes the place of the app's ``wsgi_app``.
    """

    def __init__(
        self,
        app: Flask,
        *,
        engines: Sequence[EngineSpec],
        plugins: Sequence[tuple[object, str | None]],
        declared: Mapping[str, Sequence[object]],
        decorated: DecoratedViews,
    ) -> None:
        self._engines = engines
        self._plugins = plugins
        self._declared = declared
        self._decorated = decorated
        self._app = app
        self._inner = get_late(app, "wsgi_app")
        self._wsgi_app = app.wsgi_app
        self.wsgi_app = FlaskEntry(self._wsgi_app, self)
        self._seen: dict[str, object] = {}
        self._config_size = 0
        self._ready: LayeredApp | None = None
        self.after_fork()
        renew_after_fork(self)

    def after_fork(self) -> None:
        """Renew the lock in a child process: a thread of the parent may hold it."""
        self._lock = threading.RLock()

    def record_failure(self, app: Flask, *, exception: BaseException, **extra: object) -> None:
        """Record an error of a view that no handler caught."""
        from ..cache.responses.decisions import describe_error, find_report
        from ..policies.error_table import asked_wait_s
        from ..recovery.fingerprint import fingerprint

        runtime = runtime_of(app)
        report = find_report(plain_environ(request))
        if report is not None:
            report.error = describe_error(exception)
        if runtime.keys.enabled:
            rule = request.url_rule
            subject = f"route:{rule.rule if rule else '<unmatched>'}"
            state_of(plain_environ(request), app).raised = (
                id(exception),
                fingerprint(exception, subject),
                asked_wait_s(exception),
            )
            runtime.part_of("recovery").recovery.note(subject, exception)

    def build(self, **settings: object) -> Runtime:
        """Build the app's runtime from its present configuration.

        Args:
            settings: keys of the configuration that have other values for once.
        """
        app = self._app
        self._seen, self._config_size = _read_relevant(app.config), len(app.config)
        read = Settings.read({**app.config, **settings})
        readers = read.of(CacheKeys).cache_readers
        unobserved = find_unknown_middleware(app, self._wsgi_app, readers)
        host = Host(
            testing=bool(app.testing),
            debug=bool(app.debug),
            name=app.name,
            instance_path=Path(app.instance_path),
            secret_key=lambda: app.secret_key,
            trusted_hosts=app.config.get("TRUSTED_HOSTS"),
            request_context=app.request_context,
            work_context=app.app_context,
            environ=current_environ,
            route_of=functools.partial(_find_route, weakref.ref(app)),
            rules=functools.partial(_list_rules, weakref.ref(app)),
            https_wish=read_https_wish(app),
            jinja_environment=lambda: app.jinja_env,
            declared=self._declared,
            observes=not unobserved,
            unobserved=unobserved,
            observe_fetch=_observe_fetch,
            observe_context=_observe_context,
            isolate=functools.partial(_isolate, weakref.ref(self)),
        )
        runtime = Runtime(read, sender=app, host=host, plugins=self._plugins)
        runtime.renew = functools.partial(_renew, weakref.ref(self))
        for spec in self._engines:
            runtime.add_engine(spec)
        _check_inner_proxy_fix(self._wsgi_app, runtime.keys)
        # compose now, so that a wrong route stops the start
        self._composed = self._compose(runtime)
        return runtime

    def _compose(self, runtime: Runtime) -> LayeredApp:
        self._composed_with = self._count_declared()
        return LayeredApp(self._inner, runtime)

    def _count_declared(self) -> dict[str, int]:
        return {name: len(declared) for name, declared in self._declared.items()}

    def answer(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer the first request; the layers answer those that come later."""
        return self._prepare_first_request().answer(environ, start_response)

    def _prepare_first_request(self) -> LayeredApp:
        with self._lock:  # the first requests may come at once
            return self._ready or self._prepare_late()

    def _prepare_late(self) -> LayeredApp:
        self._build_if_changed()
        return self._prepare()

    def renew(self) -> Runtime:
        """Return the runtime for code that uses it, maybe before the first request."""
        config = self._app.config
        if self._ready is None and not (
            len(config) == self._config_size
            and all(config.get(name) is value for name, value in self._seen.items())
        ):
            with self._lock:
                if self._ready is None:
                    self._build_if_changed()
        return runtime_of(self._app)

    def _build_if_changed(self) -> None:
        now = _read_relevant(self._app.config)
        self._config_size = len(self._app.config)
        if now != self._seen:
            changed = sorted(
                k for k in now.keys() | self._seen.keys() if now.get(k) != self._seen.get(k)
            )
            logger.debug("%s changed after init_app: built again", ", ".join(changed))
            old = runtime_of(self._app)
            self._app.extensions[KEY] = self.build()
            old.close()

    def isolate(self, *, observe: bool = True, **settings: object) -> WSGIApplication:
        """See :attr:`om_plugins.plugins.kit.Host.isolate`."""
        app, old = self._app, runtime_of(self._app)
        settings = {"OM_CACHE_URL": "memory://", "OM_HUB_URL": "memory://", **settings}
        app.extensions[KEY] = self.build(**settings)
        old.close()
        self._prepare(observe=observe)
        return app

    def _prepare(self, *, observe: bool = False) -> LayeredApp:
        runtime = runtime_of(self._app)
        if self._count_declared() != self._composed_with:  # views were decorated after init_app
            self._composed = self._compose(runtime)
        if runtime.keys.enabled and runtime.settings.of(HeaderKeys).secure_cookies:
            _set_cookie_flags(self._app)
        in_front = _has_cache_in_front(runtime, self._declared)
        if observe or in_front or _has_cached_views(runtime, self._declared):
            from .observation.dispatch import observe_requests

            rules = runtime.part_of("cache").internals.inputs
            observe_requests(self._app, rules, in_front=in_front)
        before_first_request(self._app)
        self._decorated.warn(self._app)
        runtime.renew = None
        self._ready = self._composed
        redirect(self.wsgi_app, self._ready)
        return self._ready


class FlaskEntry(TransparentApp):
    """The ``wsgi_app`` of an app."""

    __slots__ = ("_om_entry",)
    _om_entry: AppEntry

    def __init__(self, replaced: WSGIApplication, entry: AppEntry) -> None:
        super().__init__(replaced, entry)
        object.__setattr__(self, "_om_entry", entry)  # which signals refer to weakly


def _has_cached_views(runtime: Runtime, declared: Mapping[str, Sequence[object]]) -> bool:
    """Whether a view of an app is cached in the data cache.

    Args:
        runtime: of the app.
        declared: what decorators of views declared, by the feature's name.
    """
    return bool(runtime.keys.enabled and declared.get("cache"))


def _has_cache_in_front(runtime: Runtime, declared: Mapping[str, Sequence[object]]) -> bool:
    """Whether a layer in front of an app keeps responses: the HTTP cache, or last good answers.

    Args:
        runtime: of the app.
        declared: what decorators of views declared, by the feature's name.
    """
    if not runtime.keys.enabled:
        return False
    pages = runtime.kit.find_built("http_cache")
    if declared.get("http_cache") or (pages is not None and pages.wanted):
        return True
    fallbacks = [*runtime.settings.of(FallbackKeys).fallback.values()]
    fallbacks += [one for one in declared.get("fallback", ()) if isinstance(one, FallbackOptions)]
    return any("stale" in one.answers for one in fallbacks)


def _observe_fetch(fetch: Callable[[], Any]) -> tuple[Any, str]:
    from .observation.fetch import run_observed

    return run_observed(fetch)


def _observe_context(context: Any, rules: InputRules) -> ObservedInputs | None:
    from .observed import observe_context

    return observe_context(context, rules)


def _renew(entry: weakref.ref[AppEntry]) -> Runtime:
    living = entry()
    if living is None:
        raise RuntimeError("the app is gone")
    return living.renew()


def _isolate(
    entry: weakref.ref[AppEntry], *, observe: bool = True, **settings: object
) -> WSGIApplication:
    living = entry()
    if living is None:
        raise RuntimeError("the app is gone")
    return living.isolate(observe=observe, **settings)


def count_wrong_methods(app: Flask) -> None:
    """Count 405 responses where Flask raises its routing error: other requests pay nothing."""
    raise_it: Callable[[Request], NoReturn] = get_late(app, "raise_routing_exception")

    def raise_routing_exception(asked: Request) -> NoReturn:
        error = asked.routing_exception
        if isinstance(error, MethodNotAllowed) and error.valid_methods:
            _record_wrong_method(runtime_of(app), asked, error.valid_methods)
        raise_it(asked)

    app.raise_routing_exception = raise_routing_exception  # type: ignore[method-assign, assignment]


def _record_wrong_method(runtime: Runtime, asked: Request, allowed: Iterable[str]) -> None:
    allowed = list(allowed)
    try:
        adapter = current_app.create_url_adapter(asked)
        if adapter is not None and runtime.keys.enabled:
            rule, _ = adapter.match(method=allowed[0], return_rule=True)
            current_state().wrong_method_counted = True
            runtime.part_of("recovery").wrong_methods.note(rule.rule, asked.method, allowed)
    except HTTPException:
        logger.debug("no rule is known for a 405", exc_info=True)


def current_runtime(app: Flask) -> Runtime:
    """Return the parts of a bound app as its settings are now, also before its first request."""
    runtime = runtime_of(app)
    return runtime if runtime.renew is None else runtime.renew()


def runtime_of(app: Flask) -> Runtime:
    """Return the parts of a bound app."""
    runtime = app.extensions[KEY]
    assert isinstance(runtime, Runtime)  # noqa: S101 - for mypy; only init_app writes it
    return runtime


def _find_route(app: weakref.ref[Flask], host: str, path: str) -> str:
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


def _list_rules(app: weakref.ref[Flask]) -> list[str]:
    living = app()
    return [] if living is None else [rule.rule for rule in living.url_map.iter_rules()]


def _set_cookie_flags(app: Flask) -> None:
    """Set the flags of the session cookie and of Flask-Login's; keep what the app chose itself."""
    config = app.config
    over_https = not (app.debug or app.testing)
    config["SESSION_COOKIE_SECURE"] = config["SESSION_COOKIE_SECURE"] or over_https
    config["SESSION_COOKIE_SAMESITE"] = config["SESSION_COOKIE_SAMESITE"] or "Lax"
    config.setdefault("REMEMBER_COOKIE_SECURE", over_https)
    config.setdefault("REMEMBER_COOKIE_HTTPONLY", True)
    config.setdefault("REMEMBER_COOKIE_SAMESITE", "Lax")


def _read_relevant(config: Mapping[str, object]) -> dict[str, object]:
    names = ("DEBUG", "TESTING", "TRUSTED_HOSTS")
    return {k: v for k, v in config.items() if k.startswith("OM_") or k in names}


def _check_inner_proxy_fix(app: object, keys: GeneralKeys) -> None:
    if not isinstance(app, ProxyFix):
        return
    if keys.proxies:
        raise ConfigError(
            "OM_PROXIES",
            keys.proxies,
            "this app applies ProxyFix itself, so X-Forwarded-* would be read twice; "
            "remove app.wsgi_app = ProxyFix(...) or OM_PROXIES",
        )
    logger.warning(
        "ProxyFix is inside OpenManager, whose layers see the proxy's address: remove "
        "app.wsgi_app = ProxyFix(...) and set OM_PROXIES to the number of proxies, "
        "or apply ProxyFix after OpenManager(app)"
    )
