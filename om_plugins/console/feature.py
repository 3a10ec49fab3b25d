"""The console: this package's own pages below ``OM_PREFIX``."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from ..plugins.feature import Feature
from ..plugins.kit import Finding
from ..settings.kinds import ACCESS
from ..settings.table import Table, key

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication
    from click import Command

    from ..plugins.kit import Kit


_GUESSABLE = re.compile(
    r"password|secret|change.?me|letmein|12345|qwerty|admin|token", re.IGNORECASE
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsoleKeys(Table):
    """The settings of the console."""

    PREFIX: ClassVar[str] = "OM_"

    console_auth: Callable[..., Any] | str | None = key(
        None,
        ACCESS,
        "who may open the console: called with the request, in the host's request context, and "
        "only `True` opens it; or a token to sign in with; when not set the console is off, except "
        "for this very machine in debug mode",
        "Monitoring",
    )


class ConsoleFeature(Feature["ConsoleKeys", ConsoleKeys]):
    """``OM_CONSOLE_AUTH``; its layer serves the endpoints of all features."""

    name = "console"
    keys = ConsoleKeys

    def build(self, kit: Kit, keys: ConsoleKeys) -> ConsoleKeys:
        return keys

    def layer(self, kit: Kit, part: ConsoleKeys, app: WSGIApplication) -> WSGIApplication:
        from .prefix import Pages, PrefixLayer

        return PrefixLayer(app, kit.keys.prefix, Pages(kit.endpoints, kit.trusted_hosts))

    def endpoints(self, kit: Kit, part: ConsoleKeys) -> Mapping[str, WSGIApplication]:
        from .app import Console

        kit.part_of("browser").add_folder(__package__)
        return Console(kit, part.console_auth).endpoints()

    def commands(self) -> Iterable[Command]:
        from .commands import engines_command

        return [engines_command]

    def name_findings(self, kit: Kit, part: ConsoleKeys) -> Iterable[Finding]:
        prefix = kit.keys.prefix
        for rule in kit.host.rules() if kit.host.rules is not None else ():
            if rule == prefix or rule.startswith(f"{prefix}/"):
                yield Finding(
                    "warn",
                    f"OM_PREFIX {prefix!r}",
                    f"The app has a view of its own at {rule!r}, which is never called: the pages "
                    "of om_plugins are there.",
                    "Set OM_PREFIX to another path.",
                )

    def findings(self, kit: Kit, part: ConsoleKeys) -> Iterable[Finding]:
        return _check_access(part.console_auth)


def _check_access(access: object) -> Iterator[Finding]:
    subject = "OM_CONSOLE_AUTH"
    if access is None:
        yield Finding(
            "ok",
            subject,
            "The console is off, except for this machine itself in debug mode.",
            "To open it, set a token of at least 16 characters, or a callback.",
        )
    elif not isinstance(access, str):
        yield Finding("ok", subject, "A callback says who may open the console.")
    elif len(set(access)) < 8 or _GUESSABLE.search(access):
        yield Finding(
            "warn",
            subject,
            "The token looks easy to guess, and who has it sees and repairs everything.",
            "Make one: python -c 'import secrets; print(secrets.token_urlsafe(32))'.",
        )
    else:
        yield Finding("ok", subject, "The console asks for a token.")
