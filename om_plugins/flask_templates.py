"""What an app's templates get: nonces on literal tags, ``csp_nonce()`` and ``om_head()``."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from flask import Flask, has_request_context, request
from markupsafe import Markup

from .flask_static import static_helper
from .runtime import Runtime
from .security.jinja_nonce import install
from .security.nonce import tag_nonce

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment
    from flask.templating import Environment as Env


def prepare_templates(app: Flask, runtime: Callable[[], Runtime]) -> None:
    """Add nonces and globals when the app makes its Jinja environment, which may be never.

    Args:
        app: the app.
        runtime: gives the app's parts as they are at that moment.
    """

    def prepare(environment: Env) -> Env:
        settings = runtime().settings
        nonces = settings.enabled and settings.csp_mode != "off" and settings.csp_auto_nonce
        install(
            environment,
            environ=current_environ,
            head=partial(_head, runtime),
            automatic=nonces,
            hashes=runtime().header_policy.rules.lists_hashes,
            attributes=settings.csp_hash_attributes,
        )
        environment.globals.setdefault("om_static", static_helper())
        return environment

    if "jinja_env" in app.__dict__:
        prepare(app.jinja_env)
        return
    make = app.create_jinja_environment

    app.create_jinja_environment = lambda: prepare(make())  # type: ignore[method-assign]


def current_environ() -> WSGIEnvironment | None:
    """The WSGI environ of the request under way, ``None`` outside one."""
    return request.environ if has_request_context() else None


def _head(runtime: Callable[[], Runtime], environ: WSGIEnvironment) -> str:
    """What ``{{ om_head() }}`` puts into a page's head: the browser module.

    ``data-om-live`` tells it that there are notifications to ask for, ``data-om-watch`` that it
    shows what the policy stops.
    """
    settings = runtime().settings
    if not settings.enabled:
        return Markup()
    source = environ.get("SCRIPT_NAME", "") + settings.prefix + "/static/om.js"
    value = tag_nonce(environ)
    attributes = Markup() if value is None else Markup(' nonce="{}"').format(value)
    if runtime().debug:
        attributes += Markup(" data-om-watch")
    return Markup('<script type="module" src="{}"{} data-om-live></script>').format(
        source, attributes
    )
