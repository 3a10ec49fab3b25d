"""The endpoint that browsers send their violation reports to.

Anybody can post to it, so it treats every report as hostile: it limits the body while it reads it,
counts requests, and removes and shortens what it reads. Its answer is always the same. It reads
both formats: the list of the Reporting API (``application/reports+json``) and the object of
``report-uri`` (``application/csp-report``). Source: CSP Level 3, section 5.
"""

from __future__ import annotations

import base64
import hashlib
import logging
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import msgspec

from ..core.body import read_body
from ..core.problem import Refusal
from ..signals import csp_violation_received
from ..types import CspViolation
from .violations import Violations

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

    from ..protocols import Clock, Hub
    from ..signals import Emit

logger = logging.getLogger("om_plugins")

TOPIC = "csp-violations"
"""The hub's topic that violations are published to."""

_MAX_BODY_BYTES = 16 * 1024
_MAX_REPORTS = 10
_MAX_REMEMBERED = 1000
_MAX_URL = 300
_MAX_SAMPLE = 100
_WHOLE_SAMPLE = 40
_MAX_NUMBER = 10_000_000
_SAME_FOR_S = 60.0

_NUMBERED = re.compile(r"/[^/]*[0-9][^/]*")
_DIRECTIVE = re.compile(r"[a-z-]{1,40}")
_WORD = re.compile(r"[a-z][a-z0-9+.-]{0,39}")
_WEB = frozenset({"http", "https", "ws", "wss"})
# what browser extensions and the browser's own pages do is not the site's doing
_NOISE = re.compile(
    r"(about|chrome|edge|resource|safari|webkit-masked-url|(chrome|moz|ms-browser|safari|"
    r"safari-web)-extension)(:.*)?",
    re.IGNORECASE | re.DOTALL,
)


@dataclass(kw_only=True, eq=False, repr=False)
class ReportEndpoint:
    """A WSGI application that takes violation reports and always answers 204.

    A report is published to the topic ``csp-violations`` of the hub and sent through the signal
    ``csp_violation_received``. The first report of its kind is logged at INFO. The same report is
    taken once a minute.

    Args:
        hub: other workers and the console read the reports there; its failures are ignored.
        emit: sends signals.
        clock: the time.
        prefix: where this package's pages are; what stands before it is the application's root.
        route_of: returns the URL rule of a document, from its host and its path below the root; ""
            for none. Reports are counted by rule, and by path where there are no rules.
        rate: how many reports are taken in how many seconds, in this process; the rest is dropped.
    """

    hub: Hub
    emit: Emit
    clock: Clock
    prefix: str = "/_om"
    route_of: Callable[[str, str], str] | None = None
    rate: tuple[int, int] = (100, 60)

    def __post_init__(self) -> None:
        self._violations = Violations(self.hub, self.clock)
        self._limit, self._period_s = self.rate
        # no lock: two threads may let one report too many pass, which harms nothing
        self._window_end = -math.inf
        self._taken = 0
        self._seen: dict[tuple[object, ...], float] = {}
        self._kinds: set[tuple[str, str]] = set()

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if environ.get("REQUEST_METHOD") != "POST":
            refusal = Refusal(405, "Browsers send reports here with POST.", [("Allow", "POST")])
            return refusal.send(environ, start_response)
        try:
            if not self._is_full():
                root = environ.get("SCRIPT_NAME", "").removesuffix(self.prefix)
                self._read_reports(read_body(environ, _MAX_BODY_BYTES), root)
        except Exception:
            # a stranger decides what arrives, so this must not fill the log
            logger.debug("a violation report could not be read", exc_info=True)
        start_response("204 No Content", [("Cache-Control", "no-store")])
        return []

    def _read_reports(self, body: bytes, root: str) -> None:
        if not body:
            return
        for report in _list_reports(msgspec.json.decode(body)):
            violation = _clean_report(report, self.clock.time())
            if violation is None:
                continue
            if self._is_full():
                return
            violation.route = self._find_route(violation, root)
            self._count(violation)
            if self._is_repeated(violation):
                continue
            self._taken += 1
            self._publish(violation)

    def _is_full(self) -> bool:
        now = self.clock.monotonic()
        if now >= self._window_end:
            self._window_end = now + self._period_s
            self._taken = 0
        return self._taken >= self._limit

    def _find_route(self, violation: CspViolation, root: str) -> str:
        parts = urlsplit(violation.document)
        path = parts.path.removeprefix(root) or "/"
        if self.route_of is None:
            return _NUMBERED.sub("/*", path)
        try:
            return self.route_of(parts.netloc, path) or "<unmatched>"
        except Exception:  # noqa: BLE001 - a stranger's host name may be no host name
            return "<unmatched>"

    def _count(self, violation: CspViolation) -> None:
        try:
            self._violations.count(violation)
        except Exception:
            logger.debug("a violation report could not be counted", exc_info=True)

    def _is_repeated(self, one: CspViolation) -> bool:
        now = self.clock.monotonic()
        key = (one.directive, one.blocked, one.document, one.source_file, one.line, one.disposition)
        last = self._seen.get(key)
        if last is not None and now - last < _SAME_FOR_S:
            return True
        if len(self._seen) >= _MAX_REMEMBERED:
            self._seen = {k: at for k, at in list(self._seen.items()) if now - at < _SAME_FOR_S}
            if len(self._seen) >= _MAX_REMEMBERED:
                self._seen = {}
        self._seen[key] = now
        return False

    def _publish(self, violation: CspViolation) -> None:
        kind = (violation.directive, violation.blocked)
        if kind not in self._kinds and len(self._kinds) < _MAX_REMEMBERED:
            self._kinds.add(kind)
            logger.info(
                "a browser reports (%s): %s does not allow %s on %s%s",
                violation.disposition,
                violation.directive,
                violation.blocked or "something",
                violation.document or "an unknown page",
                f" ({violation.source_file}:{violation.line})" if violation.source_file else "",
            )
        try:
            self.hub.publish(TOPIC, asdict(violation))
        except Exception:
            logger.debug("a violation report could not be published", exc_info=True)
        self.emit(csp_violation_received, violation=violation)


def _list_reports(data: object) -> Iterator[Mapping[str, object]]:
    """Return the single reports of either format, with the field names of ``report-uri``."""
    if isinstance(data, dict):
        report = data.get("csp-report")
        if isinstance(report, dict):
            yield report
    elif isinstance(data, list):
        for entry in data[:_MAX_REPORTS]:
            if not isinstance(entry, dict) or entry.get("type") != "csp-violation":
                continue
            body = entry.get("body")
            if isinstance(body, dict):
                yield {
                    "document-uri": body.get("documentURL") or entry.get("url"),
                    "effective-directive": body.get("effectiveDirective"),
                    "blocked-uri": body.get("blockedURL"),
                    "source-file": body.get("sourceFile"),
                    "line-number": body.get("lineNumber"),
                    "column-number": body.get("columnNumber"),
                    "script-sample": body.get("sample"),
                    "disposition": body.get("disposition"),
                }


def _clean_report(report: Mapping[str, object], now: float) -> CspViolation | None:
    """Return a report without anything harmful; ``None`` for one that says nothing about the
    site.
    """
    words = _clean_text(report.get("effective-directive") or report.get("violated-directive"), 200)
    directive = words.split(" ")[0].lower()
    if not _DIRECTIVE.fullmatch(directive):
        return None
    for name in ("blocked-uri", "source-file", "document-uri"):
        if _NOISE.fullmatch(_clean_text(report.get(name), 100).strip()):
            return None
    return CspViolation(
        directive=directive,
        blocked=_clean_address(report.get("blocked-uri")),
        document=_clean_address(report.get("document-uri")),
        source_file=_clean_address(report.get("source-file")),
        line=_clean_number(report.get("line-number")),
        column=_clean_number(report.get("column-number")),
        sample=_clean_text(report.get("script-sample"), _MAX_SAMPLE),
        hash=_find_hash(report.get("script-sample")),
        disposition="enforce" if report.get("disposition") == "enforce" else "report",
        at=now,
    )


def _find_hash(sample: object) -> str:
    """Return the hash of an inline text when the report has all of it: browsers send 40
    characters.
    """
    if not isinstance(sample, str) or not 0 < len(sample) < _WHOLE_SAMPLE:
        return ""
    digest = hashlib.sha256(sample.encode("utf-8", "replace")).digest()
    return f"sha256-{base64.b64encode(digest).decode()}"


def _clean_text(value: object, limit: int) -> str:
    """Return one line of printable text, without control, format and surrogate characters."""
    if not isinstance(value, str):
        return ""
    return "".join(one for one in value[: 4 * limit] if one.isprintable())[:limit]


def _clean_address(value: object) -> str:
    """Return origin and path of an address, or the word that stands for one (``inline``, ``data``).

    The query, the fragment and user names may contain secrets, so they are removed.
    """
    text = _clean_text(value, 4096).strip()
    if _WORD.fullmatch(text.lower()):
        return text.lower()
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError:
        return ""
    if parts.scheme not in _WEB:
        return parts.scheme[:40]
    if not host:
        return ""
    host = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{host}{f':{port}' if port else ''}{parts.path}"[:_MAX_URL]


def _clean_number(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return 0
    return int(max(0, min(value, _MAX_NUMBER)))
