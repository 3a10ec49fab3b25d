"""Tells which routes of an app the doctor may open, and by which addresses."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from flask import Flask
from werkzeug.exceptions import HTTPException
from werkzeug.routing import BuildError, RoutingException, Rule

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

_PACKAGES = frozenset({"dist-packages", "node_modules", "site-packages"})
_MOST_FILES = 20_000


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
    path: str = environ["PATH_INFO"].encode("latin-1").decode("utf-8", "replace")
    try:
        rule, _ = app.url_map.bind_to_environ(environ).match(return_rule=True)
    except (HTTPException, RoutingException, ValueError):
        return path
    if "<" not in rule.rule or rule.endpoint.rpartition(".")[2] == "static":
        return path  # beside a page of a folder may be files of users
    return f"{rule.rule.partition('<')[0]}*"


def find_static_pages(app: Flask) -> Iterator[str]:
    """Yield the paths of the HTML files in the folders ``static`` of the application.

    Folders of installed packages are left out: their HTML files are documents and examples.
    """
    urls = app.url_map.bind("localhost")
    for name, owner in [("", app), *app.blueprints.items()]:
        folder = Path(owner.static_folder or "")
        if not owner.static_folder or _PACKAGES.intersection(folder.parts):
            continue
        for file in _find_html(folder):
            with contextlib.suppress(BuildError):
                endpoint = f"{name}.static" if name else "static"
                yield urls.build(endpoint, {"filename": file.relative_to(folder).as_posix()})


def _find_html(folder: Path) -> Iterator[Path]:
    """Yield HTML files below a folder, in order; of a large one, those among its first files."""
    left = _MOST_FILES
    for root, folders, names in os.walk(folder):
        folders[:] = sorted(set(folders) - _PACKAGES)
        for name in sorted(names):
            if name.lower().endswith((".html", ".htm")):
                yield Path(root, name)
        left -= len(names)
        if left <= 0:
            return


def may_change(path: str, endpoint: str) -> bool:
    """Return whether a word of a route's path or endpoint is one of :data:`_CHANGING`."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", f"{path} {endpoint}").lower()
    words = [one for one in re.split(r"[^a-z0-9]+", spaced) if one]
    pairs = map("".join, itertools.pairwise(words))
    return any(_CHANGING.fullmatch(word) for word in (*words, *pairs))
