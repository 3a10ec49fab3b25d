"""Tells which routes of an app the doctor may open, and by which addresses."""

from __future__ import annotations

import itertools
import re
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from flask import Flask
from werkzeug.exceptions import HTTPException
from werkzeug.routing import BuildError, RoutingException, Rule
from werkzeug.wsgi import get_current_url

from ..headers.feature import HeaderKeys
from ..plugins.kit import Kit

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

_CHANGING = re.compile(
    r"(log|sign)(out|off)|accept|activate|approve|backup|ban|buy|callback|cancel|charge|"
    r"checkout|clear|cron|deactivate|decline|delete|destroy|disable|dismiss|downvote|drop|"
    r"enable|erase|execute|flush|follow|generate|impersonate|import|kill|like|lock|merge|"
    r"migrate|pay|publish|purchase|purge|reboot|rebuild|refund|regenerate|reject|reload|"
    r"remove|renew|resend|reset|restart|restore|retry|revoke|rotate|run|save|seed|send|"
    r"shutdown|stop|submit|sync|terminate|toggle|trigger|truncate|undo|unfollow|unlike|"
    r"unlock|unsubscribe|update|upgrade|upvote|vote|webhook|wipe"
)
"""Words in the name of a route that may change something although it is a GET (RFC 9110, section
9.2.1, says that it must not)."""


def find_path(app: Flask, rule: Rule) -> str:
    """Return the path of a route that a GET without arguments opens; "" for any other one."""
    if (
        "GET" not in (rule.methods or ())
        or rule.arguments - set(rule.defaults or ())
        or rule.websocket
        or rule.build_only
        or rule.redirect_to is not None
        or rule.subdomain
        or rule.host
        or rule.endpoint.rpartition(".")[2] == "static"
    ):
        return ""
    urls = app.url_map.bind("localhost")
    try:
        return urls.build(rule.endpoint, rule.defaults) if rule.defaults else rule.rule
    except BuildError:
        return ""


def find_host(app: Flask, kit: Kit) -> str:
    """Return scheme and host by which the app answers, as ``https://example.com``."""
    scheme = "https" if kit.settings.of(HeaderKeys).force_https.all else "http"
    trusted = [one.lstrip("*.") for one in kit.trusted_hosts or ()]
    return f"{scheme}://{app.config.get('SERVER_NAME') or next(iter(trusted), 'localhost')}"


def find_pattern(app: Flask, environ: WSGIEnvironment) -> str:
    """Return a path as settings name it: ``/item/*`` for a route with arguments."""
    path = urlsplit(get_current_url(environ)).path
    try:
        rule, _ = app.url_map.bind_to_environ(environ).match(return_rule=True)
    except (HTTPException, RoutingException, ValueError):
        return path
    return f"{rule.rule.partition('<')[0]}*" if "<" in rule.rule else path


def may_change(path: str, endpoint: str) -> bool:
    """Return whether a word of a route's path or endpoint is one of :data:`_CHANGING`."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", f"{path} {endpoint}").lower()
    words = [one for one in re.split(r"[^a-z0-9]+", spaced) if one]
    pairs = map("".join, itertools.pairwise(words))
    return any(_CHANGING.fullmatch(word) for word in (*words, *pairs))
