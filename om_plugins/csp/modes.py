"""The policies of a response: from the mode, the preset, the settings, the path and the view.

A page may have several enforced and several report-only policies; a browser applies all of them.
Presets, ``OM_CSP``, views and plugins change the first policy. The others are sent as they are
written in the settings.

Mode ``adopt``, the default, enforces only what cannot break a page that works today. No directive
passes this test: ``object-src`` stops the site's own drawings and documents, ``base-uri`` a
``<base>`` to another host, ``frame-ancestors`` pages that other sites show, and the policy of data
what scripts write into a window that shows data. Therefore the mode only reports, and protection
begins with ``enforce``. :data:`~om_plugins.headers.companions.DEFAULTS` applies the same test to
the other headers.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import ConfigError
from ..settings.paths import explain_placeholder
from .override import Override
from .policy import (
    Policy,
    add_sources,
    find_ignored,
    needs_nonces,
    read_policy,
    read_policy_changes,
    replace_directives,
)
from .presets import API, FRAME_ANCESTORS, STRICT
from .sources import HASHES_SOURCE, NONCE_SOURCE

OBSERVING = frozenset({"adopt", "learn"})
"""Modes that only report: what they enforce, the owner has asked for by name."""

_OF_PAGES = (NONCE_SOURCE, HASHES_SOURCE)

_Directives = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Sent:
    """One policy of a response.

    Attributes:
        policy: its directives.
        enforced: browsers enforce it; otherwise they only report on it.
    """

    policy: Policy
    enforced: bool


class PolicyRules:
    """The policies that an application's settings describe. They are checked once, at start.

    Args:
        mode: ``adopt``, ``enforce``, ``learn`` or ``off``.
        base: the preset.
        own: directives that replace those of the preset; ``None`` removes one.
        enforce_also: policies to enforce beside the first one.
        report_also: policies to report on beside the first one.
        api: the policy of responses that are not pages; empty for none.
        extra: sources to add to the first policy, from plugins; they can only allow more.

    Attributes:
        ignored: which of the plugins' sources browsers ignore, in a sentence; "" for none.

    Raises:
        ConfigError: names the key, the value and a correct value.
    """

    def __init__(
        self,
        *,
        mode: str,
        base: _Directives = STRICT,
        own: _Directives | str | None = None,
        enforce_also: Sequence[_Directives | str] = (),
        report_also: Sequence[_Directives | str] = (),
        api: _Directives | str = API,
        extra: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        self.mode = mode
        self.own, self._gone = read_policy_changes(own or {}, "OM_CSP")
        self._base = self._apply_own(read_policy(base, "OM_CSP_PRESET"))
        _check_dynamic(self._base)
        self._enforce_also = _read_policies(enforce_also, "OM_CSP_ENFORCE_ALSO")
        self._report_also = _read_policies(report_also, "OM_CSP_REPORT_ALSO")
        if self.lists_hashes:
            _check_hashes(self._base, "OM_CSP")
            for number, one in enumerate(self._enforce_also):
                _check_hashes(one, f"OM_CSP_ENFORCE_ALSO[{number}]")
            for number, one in enumerate(self._report_also):
                _check_hashes(one, f"OM_CSP_REPORT_ALSO[{number}]")
        self._api = read_policy(api, "OM_CSP_API")
        # two plugins may well ask for the same source
        once = {name: tuple(dict.fromkeys(sources)) for name, sources in (extra or {}).items()}
        self._extra = read_policy(once, "om_csp")
        self.ignored = find_ignored(add_sources(self._base, self._extra), self._extra)
        self.framing: tuple[str, ...] = ()

    @property
    def wants_nonces(self) -> bool:
        """Return whether every page needs its nonces, even in a mode that only observes.

        A policy asks for reports by itself, or one more policy is enforced.
        """
        policies = (self._base, *self._report_also, *self._enforce_also)
        return any(
            name in policy for policy in policies for name in ("report-uri", "report-to")
        ) or any(NONCE_SOURCE in sources for one in self._enforce_also for sources in one.values())

    @property
    def strict(self) -> Policy:
        """Return the first policy of a page that changes nothing: the preset with ``OM_CSP``."""
        return dict(self._base)

    @property
    def lists_hashes(self) -> bool:
        """Return whether a policy lists the hashes that its page used."""
        return any(
            HASHES_SOURCE in sources
            for policy in (self._base, *self._report_also, *self._enforce_also)
            for sources in policy.values()
        )

    def frame_by(self, value: str) -> None:
        """Make the shipped ``frame-ancestors`` say what ``X-Frame-Options: value`` says.

        Browsers that know both use ``frame-ancestors`` only.
        """
        sources = FRAME_ANCESTORS.get(value.upper())
        if sources and "frame-ancestors" not in (*self.own, *self._gone):
            self.framing = sources

    def policies(
        self, changes: Sequence[Override] = (), extra: Sequence[Policy] = ()
    ) -> list[Sent]:
        """Return the policies of a page.

        Args:
            changes: of its path and its view, in order.
            extra: sources that the callables of plugins returned for this response.
        """
        mode = self._find_mode(changes)
        if mode == "off":
            return []
        strict = dict(self._base)
        if self.framing:
            framing = {"frame-ancestors": self.framing}
            strict = replace_directives(strict, framing, only_present=True)
        reported = list(self._report_also)
        for change in changes:
            strict = change.apply(strict)
            reported += change.reported
        for one in (self._extra, *extra):
            strict = add_sources(strict, one)
        enforcing = mode != "learn"
        sent = [Sent(strict, enforced=mode not in OBSERVING)]
        sent += [Sent(one, enforced=enforcing) for one in self._enforce_also]
        sent += [Sent(one, enforced=False) for one in reported]
        return [one for one in sent if one.policy]

    def api(self, changes: Sequence[Override] = ()) -> Policy:
        """Return the policy of a response that is not a page; empty for none.

        Args:
            changes: of its path and its view, in order.
        """
        if self._find_mode(changes) != "enforce" or not self._api:
            return {}
        policy = self._api
        if self.framing:
            policy = replace_directives(
                policy, {"frame-ancestors": self.framing}, only_present=True
            )
        for change in changes:
            policy = change.apply(policy)
        # data has no tags to put a nonce on, so that its headers stay constant
        return {
            name: tuple(one for one in sources if one not in _OF_PAGES) or (sources and ("'none'",))
            for name, sources in policy.items()
        }

    def _apply_own(self, policy: Mapping[str, tuple[str, ...]]) -> Policy:
        """A shipped policy with the owner's changes."""
        changed = replace_directives(dict(policy), self.own)
        return {name: value for name, value in changed.items() if name not in self._gone}

    def _find_mode(self, changes: Sequence[Override]) -> str:
        mode = self.mode
        for change in changes:
            if change.exempt:
                return "off"
            if change.report_only is not None and mode != "off":
                mode = "learn" if change.report_only else "enforce"
        return mode


class Paths:
    """Changes by path: ``{"/admin/*": {"replace": {…}}, "/embed": {"exempt": True}}``.

    ``*`` matches any characters. When several patterns match, all apply, the longest one last.

    Args:
        table: from a pattern to the arguments of :class:`Override`.

    Raises:
        ConfigError: names the pattern, the value and a correct value.
    """

    def __init__(self, table: Mapping[str, Mapping[str, Any]]) -> None:
        self._rules: list[tuple[re.Pattern[str], Override]] = []
        for pattern in sorted(table, key=len):
            key = f"OM_CSP_PATHS[{pattern!r}]"
            if not pattern.startswith(("/", "*")):
                raise ConfigError(key, table[pattern], "a path begins with '/'")
            problem = explain_placeholder(pattern)
            if problem:
                raise ConfigError(key, table[pattern], problem)
            try:
                change = Override(**table[pattern])
            except TypeError:
                raise ConfigError(
                    key, table[pattern], "known are update, replace, exempt and report_only"
                ) from None
            except ConfigError as error:
                raise ConfigError(f"{key}: {error.key}", error.value, error.reason) from None
            # as PATH_INFO has it (PEP 3333)
            plain = _escape_wildcards(pattern).encode().decode("latin-1")
            self._rules.append((re.compile(fnmatch.translate(plain)), change))

    def __bool__(self) -> bool:
        return bool(self._rules)

    def all_changes(self) -> list[Override]:
        """Return the changes for all paths."""
        return [change for _, change in self._rules]

    def changes(self, path: str) -> tuple[Override, ...]:
        """Return the changes for one path (``PATH_INFO``), in order."""
        return tuple(change for pattern, change in self._rules if pattern.match(path))


def _check_dynamic(policy: Policy) -> None:
    """Refuse a policy under which no script can run."""
    for name in ("script-src", "script-src-elem", "default-src"):
        sources = policy.get(name, ())
        if "'strict-dynamic'" in sources and not any(
            one in _OF_PAGES or one.startswith(("'sha", "'url-sha")) for one in sources
        ):
            raise ConfigError(
                f"OM_CSP[{name!r}]",
                sources,
                "beside 'strict-dynamic' only what has a nonce or a hash runs: add \"'nonce'\"",
            )


def _check_hashes(policy: Policy, where: str) -> None:
    """Refuse a policy that needs nonces on tags for which the page notes hashes instead."""
    name = needs_nonces(policy)
    if name and "'strict-dynamic'" in policy[name]:
        raise ConfigError(
            f"{where}[{name!r}]",
            policy[name],
            "beside 'strict-dynamic' browsers do not look at \"'self'\", by which the site's files "
            "are allowed where hashes are listed: take OM_CSP_PRESET = 'strict', or leave it out",
        )
    if name:
        raise ConfigError(
            f"{where}[{name!r}]",
            policy[name],
            "tags whose hash is listed get no nonce: write \"'hashes'\" beside \"'nonce'\", or "
            "take another OM_CSP_PRESET than 'hash'",
        )


def _escape_wildcards(pattern: str) -> str:
    """Escape all wildcards of ``fnmatch`` but ``*``."""
    return "".join(f"[{one}]" if one in "?[" else one for one in pattern)


def _read_policies(policies: Sequence[_Directives | str], where: str) -> list[Policy]:
    return [read_policy(policy, f"{where}[{number}]") for number, policy in enumerate(policies)]
