"""Prepares the templates of an app: nonces on literal tags, ``csp_nonce()`` and ``om_head()``."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from flask import Flask
from markupsafe import Markup

from ..core.request_state import state_of
from ..core.stand_ins.methods import get_late
from ..csp.feature import CspKeys, allows_questions
from ..csp.hashes import OWN, note_hash
from ..csp.modes import OBSERVING
from ..csp.nonce import tag_nonce
from ..runtime import Runtime
from .current import current_environ
from .static import static_helper

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment
    from flask.templating import Environment as Env

logger = logging.getLogger("om_plugins")

_QUERIES = ("query.js", "query_request.js", "query-core.js")


def prepare_templates(app: Flask, runtime: Callable[[], Runtime]) -> None:
    """Add nonces and globals when the app makes its Jinja environment. Some apps never make one.

    Args:
        app: the app.
        runtime: returns the current runtime of the app.
    """

    warned: list[bool] = []

    def prepare(environment: Env) -> Env:
        from ..csp.jinja.extension import install

        keys = runtime().settings.of(CspKeys)
        policy = runtime().keys.enabled and keys.csp_mode != "off"
        install(
            environment,
            environ=current_environ,
            owner=app,
            head=partial(_head, app, runtime, warned),
            plain=partial(_stays_plain, runtime),
            automatic=policy and keys.csp_auto_nonce,
            trusted=policy,
            hashes=_lists_hashes(runtime),
            attributes=keys.csp_hash_attributes,
            questions=policy and allows_questions(keys),
        )
        environment.globals.setdefault("om_static", static_helper(lambda: _lists_hashes(runtime)))
        return environment

    if "jinja_env" in app.__dict__:
        prepare(app.jinja_env)
        return
    make = get_late(app, "create_jinja_environment")

    app.create_jinja_environment = lambda: prepare(make())  # type: ignore[method-assign]


def before_first_request(app: Flask) -> None:
    """Check the environment again: it may have got a bytecode cache after it was prepared."""
    if "jinja_env" in app.__dict__:
        from ..csp.jinja.extension import salt_bytecode

        salt_bytecode(app.jinja_env)


def _head(
    app: Flask,
    runtime: Callable[[], Runtime],
    warned: list[bool],
    environ: WSGIEnvironment,
    *,
    queries: bool = False,
) -> str:
    """Return the HTML of ``{{ om_head() }}``: the tags of the browser module.

    ``data-om-live`` makes the module ask for notifications. ``data-om-watch`` makes it show what
    the policy blocks.

    Args:
        app: the app.
        runtime: returns its current runtime.
        warned: not empty after the log has warned that workers do not share the values of queries.
        environ: the environ of the request.
        queries: the page uses ``query()``: the modules load with the page, not at the first call.
    """
    keys = runtime().keys
    if not keys.enabled:
        return Markup()
    apart = keys.cache_url.startswith("memory:") and environ.get("wsgi.multiprocess")
    if queries and apart and not warned:
        warned.append(True)
        logger.warning(
            "a page uses query(), there are several workers, and with OM_CACHE_URL %r each worker "
            "keeps its own values: after a change in one worker, the others may still send the old "
            "value; use file:///path or redis://host, which workers share",
            keys.cache_url,
        )
    static = environ.get("SCRIPT_NAME", "") + keys.prefix + "/static/"
    # a policy that lists hashes also allows the site's own files
    state = state_of(environ, app, plain=_stays_plain(runtime))
    own = _lists_hashes(runtime) and note_hash(state, OWN)
    value = None if own else tag_nonce(state)
    nonce = Markup() if value is None else Markup(' nonce="{}"').format(value)
    early = Markup('<link rel="modulepreload" href="{}"{}>')
    tags = [early.format(static + name, nonce) for name in _QUERIES] if queries else []
    watch = Markup(" data-om-watch") if runtime().host.debug else Markup()
    script = Markup('<script type="module" src="{}"{}{} data-om-live></script>')
    return Markup().join([*tags, script.format(static + "om.js", nonce, watch)])


def _stays_plain(runtime: Callable[[], Runtime]) -> bool | None:
    """Return ``False`` when mails and pages that are rendered for no response need no nonces.

    Where the policy is only reported on, a response needs them to ask for reports, and there is
    none that could.
    """
    return False if runtime().settings.of(CspKeys).csp_mode in OBSERVING else None


def _lists_hashes(runtime: Callable[[], Runtime]) -> bool:
    found: bool = runtime().part_of("headers").policy.rules.lists_hashes
    return found
