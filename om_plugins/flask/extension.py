"""``OpenManager``: the Flask extension, the one line that an app adds.

Only wiring: the app's configuration becomes :class:`~om_plugins.settings.Settings`, a
:class:`~om_plugins.runtime.Runtime` is built for each app and kept in ``app.extensions``, and
``app.wsgi_app`` is wrapped. One ``OpenManager`` may serve several apps; it keeps no state of any
of them, only what was registered on it (engines, plugins), which every app gets.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, Unpack, overload

from flask import Flask, got_request_exception

from ..chains.options import IN_CHAINS
from ..core.engine import FunctionEngineKeywords
from ..core.moved import with_old_names
from ..csp.override import Override
from ..errors import ConfigError
from ..fallback.options import FallbackOptions
from ..plugins.commands import add_commands
from ..settings.arguments import check_arguments
from ..types import EngineSpec
from .app_state import KEY, AppEntry, count_wrong_methods, runtime_of
from .decorators import DecoratedViews, change_csp, change_headers, use_fallback, wish_https
from .parts import CurrentParts
from .templates import prepare_templates

if TYPE_CHECKING:
    from ..cache.memoize.memoized import Memoized, MemoizeOptions
    from ..settings.signatures import FallbackKeywords
    from .views import CachedKeywords

F = TypeVar("F", bound=Callable[..., Any])
P = ParamSpec("P")
V = TypeVar("V")


@with_old_names
class OpenManager(CurrentParts):
    """Connects this package to Flask apps. It has the decorators and the parts that an app uses.

    Args:
        app: the app; in an app factory, leave it out and call :meth:`init_app` there.

    Raises:
        ConfigError: an ``OM_`` key of ``app.config`` is unknown or its value is not allowed.

    Example::

        app = Flask(__name__)
        om = OpenManager(app)
    """

    @check_arguments("OpenManager", usage="OpenManager(app); settings are in app.config")
    def __init__(self, app: Flask | None = None) -> None:
        super().__init__()
        self._engines: list[EngineSpec] = []
        self._plugins: list[tuple[object, str | None]] = []
        self._declared: dict[str, list[object]] = {}
        self._decorated = DecoratedViews()
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Read the ``OM_`` settings of ``app`` and wrap its ``wsgi_app``.

        This opens and starts nothing.

        Raises:
            ConfigError: a setting is wrong, or ``app`` is no Flask app.
            RuntimeError: the app has an ``OpenManager`` already.
        """
        if not isinstance(app, Flask):
            raise ConfigError(
                "OpenManager(app)", app,
                "must be a Flask app; around another WSGI app write OpenManagerMiddleware(app)",
            )  # fmt: skip
        if KEY in app.extensions:
            raise RuntimeError(
                "this app has an OpenManager already: call OpenManager(app) or init_app(app) once"
            )
        entry = AppEntry(
            app,
            engines=self._engines,
            plugins=self._plugins,
            declared=self._declared,
            decorated=self._decorated,
        )
        app.extensions[KEY] = entry.build()
        app.wsgi_app = entry.wsgi_app  # type: ignore[method-assign]
        self._apps.add(app)
        prepare_templates(app, lambda: runtime_of(app))
        # a weak reference: the entry lives as long as the app, and must not keep it alive
        got_request_exception.connect(entry.record_failure, sender=app)
        count_wrong_methods(app)
        add_commands(app.cli)

    # --- registering --------------------------------------------------------------------------

    @check_arguments(
        "@om.engine",
        usage="@om.engine('name', chain='assistant')",
        keywords=FunctionEngineKeywords.__annotations__,
        renamed=IN_CHAINS,
    )
    def engine(
        self, name: str, *, chain: str, tier: int = 1, **traits: Unpack[FunctionEngineKeywords]
    ) -> Callable[[F], F]:
        """Make a function an engine: it takes the :class:`~om_plugins.types.Call` and answers it.

        Args:
            name: the engine's name, unique in its chain.
            chain: the chain's name.
            tier: the chain asks lower tiers first; the lowest is 1.
            traits: fields of :class:`~om_plugins.types.EngineTraits`, such as
                ``idempotent=True`` or ``local=True``; and ``max_threads`` and ``interrupt``, as in
                :class:`~om_plugins.builtin.engines.callable.CallableEngine`.

        Example::

            @om.engine("local", chain="assistant", tier=3, local=True)
            def local_answer(call):
                return {"answer": "The assistant is resting."}
        """

        from ..builtin.engines.callable import CallableEngine

        def register(function: F) -> F:
            self.add_engine(CallableEngine(name, function, **traits), chain=chain, tier=tier)
            return function

        return register

    @check_arguments(
        "om.add_engine", usage="om.add_engine(engine, chain='assistant')", renamed=IN_CHAINS
    )
    def add_engine(self, engine: object, *, chain: str, tier: int = 1, weight: float = 1.0) -> None:
        """Add an engine object to a chain of every app that this ``OpenManager`` serves."""
        spec = EngineSpec(engine, chain, tier, weight)
        for app in list(self._apps):
            runtime_of(app).add_engine(spec)
        self._engines.append(spec)

    def register_plugin(self, plugin: object, name: str | None = None) -> None:
        """Use a plugin that is not installed as an entry point.

        Call it before :meth:`init_app`, which calls the plugins' hooks.

        Raises:
            RuntimeError: an app is bound already.
        """
        if self._apps:
            raise RuntimeError("register plugins before init_app(app): an app is bound already")
        self._plugins.append((plugin, name))

    def declare(self, feature: str, value: object) -> None:
        """Tell a feature what a decorator of views declared, before the first request.

        The feature finds it in ``kit.host.declared[feature]``. When views declare something after
        :meth:`init_app`, the layers are composed again.
        """
        self._declared.setdefault(feature, []).append(value)

    # --- for views and functions --------------------------------------------------------------

    @overload
    def cached(self, view: Callable[P, Any], /) -> Callable[P, Any]: ...
    @overload
    def cached(
        self, view: None = None, /, **options: Unpack[CachedKeywords]
    ) -> Callable[[Callable[P, Any]], Callable[P, Any]]: ...
    def cached(
        self, view: Callable[P, Any] | None = None, /, **options: Unpack[CachedKeywords]
    ) -> Callable[P, Any] | Callable[[Callable[P, Any]], Callable[P, Any]]:
        """Answer a view's GET and HEAD requests from the smart cache.

        Put it below the route: ``@app.get("/report")``, then ``@om.cached``, or
        ``@om.cached(stale_time=300)`` with the keywords of :func:`om_plugins.flask.views.cached`,
        which also says what is stored.
        """
        from .views import cached

        decorate: Callable[..., Callable[P, Any]] = cached(self._cache_if_enabled, **options)
        self.declare("http_cache" if options.get("shared") else "cache", True)

        def decorate_and_add(view: Callable[P, Any]) -> Callable[P, Any]:
            decorated = decorate(view)
            self._decorated.add("cached", view, decorated)
            return decorated

        return decorate_and_add if view is None else decorate_and_add(view)

    @overload
    def memoize(self, function: Callable[..., Any], /) -> Memoized: ...
    @overload
    def memoize(
        self, function: None = None, /, **options: Unpack[MemoizeOptions]
    ) -> Callable[[Any], Memoized]: ...
    def memoize(
        self, function: Callable[..., Any] | None = None, /, **options: Unpack[MemoizeOptions]
    ) -> Memoized | Callable[[Any], Memoized]:
        """Cache the values of a function by its arguments.

        Write ``@om.memoize``, or ``@om.memoize(stale_time=60, tags=["prices"])`` with the keywords
        of :func:`om_plugins.cache.memoize.memoized.memoize`.
        """
        from ..cache.memoize.memoized import memoize

        decorate = memoize(self._cache_if_enabled, **options)
        return decorate if function is None else decorate(function)

    @check_arguments("@om.csp", usage="@om.csp(update={'img-src': ['https://example.com']})")
    def csp(
        self,
        *,
        update: Mapping[str, object] | str | None = None,
        replace: Mapping[str, object] | str | None = None,
        exempt: bool = False,
        report_only: bool | Mapping[str, object] | str | None = None,
    ) -> Callable[[V], V]:
        """Change the Content-Security-Policy of one view's responses, or of a blueprint's.

        Put it below the route, or call the decorator with a blueprint:
        ``om.csp(exempt=True)(blueprint)``. See :class:`om_plugins.csp.override.Override` for the
        arguments.

        Raises:
            ConfigError: a directive or source is not allowed (raised when the view is defined).
        """
        change = Override(update=update, replace=replace, exempt=exempt, report_only=report_only)
        self.declare("csp", change)
        return self._decorated.act_before("csp", lambda: change_csp(change))

    def fallback(
        self, *answers: str, chain: str = "", **options: Unpack[FallbackKeywords]
    ) -> Callable[[V], V]:
        """Answer in another way when this view, or one of a blueprint, raises or answers 5xx.

        Put it below the route, or call the decorator with a blueprint. ``OM_FALLBACK`` does the
        same for paths. The fallback of a view wins over that of its blueprint, and both win over
        ``OM_FALLBACK``.

        Args:
            answers: what answers instead, in this order: ``stale``, or names of chains.
            chain: the name of a chain that comes after ``answers``.
            options: other keys of a fallback: :class:`om_plugins.fallback.options.FallbackOptions`.

        Raises:
            ConfigError: an option is unknown or not allowed (raised when the view is defined).

        Example::

            @app.get("/report")
            @om.fallback("stale", chain="reports")
            def report(): ...
        """
        fallback = FallbackOptions.from_arguments(answers, chain, options)
        self.declare("fallback", fallback)
        return self._decorated.act_before("fallback", lambda: use_fallback(fallback))

    @check_arguments("@om.headers", usage="@om.headers({'X-Frame-Options': None})")
    def headers(
        self,
        headers: Mapping[str, str | None] | None = None,
        *,
        permissions_policy: Mapping[str, Sequence[str] | str] | None = None,
        force_https: bool | None = None,
    ) -> Callable[[V], V]:
        """Change the companion headers of one view's responses, or of a blueprint's.

        Put it below the route, or call the decorator with a blueprint:
        ``om.headers(force_https=False)(blueprint)``. Headers that the view itself sets stay.

        Args:
            headers: from the name of a header to its value, or to ``None`` to leave it out.
                ``X-Frame-Options`` also sets the policy's ``frame-ancestors``.
            permissions_policy: replaces ``OM_PERMISSIONS_POLICY``; ``{}`` sends none.
            force_https: ``False`` also answers over plain HTTP, ``True`` redirects to HTTPS,
                whatever ``OM_FORCE_HTTPS`` says. Debug mode never redirects.

        Raises:
            ConfigError: a name or value is not allowed (raised when the view is defined).

        Example::

            @app.get("/embed")
            @om.headers({"X-Frame-Options": None, "Cross-Origin-Resource-Policy": "cross-origin"})
            def embed(): ...
        """
        act = change_headers(headers or {}, permissions_policy)
        decorate: Callable[[V], V] = self._decorated.act_before("headers", act)
        if force_https is None:
            return decorate
        wish: Callable[[V], V] = wish_https(force_https)
        self.declare("https", force_https)
        return lambda view: wish(decorate(view))
