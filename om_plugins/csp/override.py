"""The changes of a view to the Content-Security-Policy of its response."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..core.request_state import RequestState, state_of
from ..errors import ConfigError
from .policy import (
    Policy,
    add_sources,
    needs_nonces,
    read_additions,
    read_policy,
    read_policy_changes,
    replace_directives,
)
from .sources import NONCE_SOURCE

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment


class Override:
    """A change of a policy. It is checked when it is made, so that a wrong decorator fails at
    import.

    Args:
        update: sources to add to directives, where each gets its effect: see
            :func:`~.policy.add_sources`. A missing directive begins as a copy of the one that it
            falls back to (``img-src`` of ``default-src``), or empty.
        replace: directives to replace as a whole; ``None`` removes one.
        exempt: send no policy at all with this response.
        report_only: ``True`` only reports on the strict policy for this response, ``False``
            enforces it, in every ``OM_CSP_MODE`` but ``off``. A policy is reported on beside what
            is sent anyway.

    Raises:
        ConfigError: a directive or source is not allowed.
    """

    __slots__ = ("_key", "always_sent", "exempt", "needs_nonces", "remove", "replace",
                 "report_only", "reported", "update")  # fmt: skip

    def __init__(
        self,
        *,
        update: Mapping[str, object] | str | None = None,
        replace: Mapping[str, object] | str | None = None,
        exempt: bool = False,
        report_only: bool | Mapping[str, object] | str | None = None,
    ) -> None:
        if not isinstance(exempt, bool):
            raise ConfigError("csp(exempt)", exempt, "must be True or False")
        if exempt and (update or replace or report_only is not None):
            raise ConfigError("csp(exempt)", exempt, "leaves nothing to change; use it alone")
        self.update: Policy = read_additions(update or {}, "csp(update)")
        self.replace, self.remove = read_policy_changes(replace or {}, "csp(replace)")
        self.exempt = exempt
        self.report_only = report_only if isinstance(report_only, bool) else None
        self.reported: tuple[Policy, ...] = ()
        if report_only is not None and not isinstance(report_only, bool):
            self.reported = (read_policy(report_only, "csp(report_only)"),)
        # what is added to sources leaves their hashes there
        added = {
            name: [one for one in value if one != NONCE_SOURCE]
            for name, value in self.update.items()
        }
        self.needs_nonces = any(map(needs_nonces, (added, self.replace, *self.reported)))
        # in a mode that only reports, other responses get a policy only when they ask for reports
        self.always_sent = self.report_only is False or any(
            name in policy
            for policy in (self.update, self.replace, *self.reported)
            for name in ("report-uri", "report-to")
        )
        self._key = (
            tuple(self.update.items()),
            tuple(self.replace.items()),
            self.remove,
            exempt,
            self.report_only,
            tuple(tuple(policy.items()) for policy in self.reported),
        )

    def apply(self, policy: Policy) -> Policy:
        """Return ``policy`` with these changes."""
        policy = replace_directives(policy, self.replace)
        policy = {name: value for name, value in policy.items() if name not in self.remove}
        return add_sources(policy, self.update, owner=True)

    def as_data(self) -> dict[str, object]:
        """Return its arguments as JSON-like data that :meth:`from_data` reads."""
        replace: dict[str, object] = {name: list(value) for name, value in self.replace.items()}
        return {
            "update": {name: list(value) for name, value in self.update.items()},
            "replace": replace | dict.fromkeys(self.remove),
            "exempt": self.exempt,
            "report_only": self.reported[0] if self.reported else self.report_only,
        }

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Override:
        """Return the override that :meth:`as_data` described.

        Raises:
            ConfigError: a directive or source is not allowed.
        """
        return cls(**data)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Override) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)


def override(
    environ: WSGIEnvironment,
    change: Override | None = None,
    *,
    update: Mapping[str, object] | str | None = None,
    replace: Mapping[str, object] | str | None = None,
    exempt: bool = False,
    report_only: bool | Mapping[str, object] | str | None = None,
) -> None:
    """Change the policy of the response to one request; call it before the response starts.

    Several changes to one response apply in the order of the calls.

    Args:
        environ: the WSGI environ of the request.
        change: a change that was made beforehand; otherwise the arguments of :class:`Override`.

    Raises:
        ConfigError: a directive or source is not allowed.
    """
    if change is None:
        change = Override(update=update, replace=replace, exempt=exempt, report_only=report_only)
    add_override(state_of(environ), change)


def add_override(state: RequestState, change: Override) -> None:
    """Change the policy of the response to one request, as :func:`override` does."""
    state.overrides = (*state.overrides, change)
