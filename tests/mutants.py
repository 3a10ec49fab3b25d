"""Mutants: guards of the package, each broken once on purpose, and the tests that must notice.

Each row of :data:`MUTANTS` is one change of one file. The package is copied, the change is made in
the copy, and the row's tests run against it. A mutant that no test notices survives, and the guard
that it breaks is not tested::

    python tests/mutants.py                  # all, two at a time
    python tests/mutants.py --only http_cache
    python tests/mutants.py --check          # only look whether each text is found once
"""

from __future__ import annotations

import argparse
import difflib
import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "om_plugins"
TIMEOUT_S = 120


class Mutant(NamedTuple):
    """One change: ``old``, which stands once in ``file`` of the package, becomes ``new``."""

    file: str
    old: str
    new: str
    tests: (
        str  # arguments for pytest, separated by spaces; "-k" and an expression may be among them
    )

    def __str__(self) -> str:
        return f"{self.file}: {self.old.strip()!r} -> {self.new.strip()!r}"


MUTANTS: tuple[Mutant, ...] = (
    Mutant(
        "settings/callbacks.py",
        "    if answer is True:\n        return True",
        "    if answer:\n        return True",
        "tests/settings/test_callbacks.py",
    ),
    Mutant(
        "settings/callbacks.py",
        "if result is None or result is True:",
        "if result is not False:",
        "tests/settings/test_callbacks.py",
    ),
    Mutant(
        "policies/access.py",
        "if issubclass(type(answer), (Caller, Response)):",
        "if isinstance(answer, (Caller, Response)):",
        "tests/policies/test_access.py",
    ),
    Mutant(
        "plugins/checks.py",
        "    if not _is_unfinished(cls):",
        "    if cls:",
        "tests/chains/test_chain.py",
    ),
    Mutant(
        "builtin/engines/wsgi.py",
        "if depth >= _MOST_DEEP:",
        "if False:",
        "tests/builtin/engines/test_wsgi.py",
    ),
    Mutant(
        "builtin/http/sse.py",
        "if len(rest) > limit:",
        "if False:",
        "tests/builtin/http/test_sse.py",
    ),
    Mutant(
        "builtin/http/waits.py",
        'waits["used up"] or waits["unknown"]',
        'waits["unknown"] or waits["used up"]',
        "tests/builtin/http/test_waits.py",
    ),
    Mutant(
        "builtin/http/waits.py",
        "if plain not in _REPEATED_FIELDS:",
        "if True:",
        "tests/builtin/http/test_waits.py",
    ),
    Mutant(
        "builtin/http/texts.py",
        "if BLANK.fullmatch(text) or (event and text.strip() == _END_OF_EVENTS):",
        "if False:",
        "tests/builtin/http/test_texts.py",
    ),
    Mutant(
        "builtin/http/heads.py",
        "if found is None or found[1].lower() in _FRAMING:",
        "if found is None:",
        "tests/builtin/http/test_heads.py",
    ),
    Mutant(
        "builtin/http/heads.py",
        'head.count(b"\\r") == head.count(b"\\r\\n")',
        "True",
        "tests/builtin/http/test_heads.py",
    ),
    Mutant(
        "builtin/http/connections.py",
        "if self._acked is None or not self._heard or self._was_reset:",
        "if self._acked is None:",
        "tests/builtin/http/test_connections.py",
    ),
    Mutant(
        "builtin/http/connections.py",
        "if not repeatable and not self._keeps:",
        "if False:",
        "tests/builtin/http/test_connections.py",
    ),
    Mutant(
        "builtin/http/transport.py",
        'if isinstance(error, TimeoutError) or attempt.sent == "yes":',
        "if isinstance(error, TimeoutError):",
        "tests/builtin/http/test_connections.py",
    ),
    Mutant(
        "builtin/http/outbound_proxy.py",
        'if upper == "HTTP_PROXY" and "REQUEST_METHOD" in environ:',
        "if False:",
        "tests/builtin/http/test_outbound_proxy.py",
    ),
    Mutant(
        "builtin/http/connections.py",
        "if connection.http.trailing_data[0]:  # they would pass for the origin's",
        "if False:",
        "tests/builtin/http/test_outbound_proxy.py",
    ),
    Mutant(
        "builtin/http/connections.py",
        "if self.http.trailing_data[0] or self.http.their_state is not h11.DONE:",
        "if self.http.their_state is not h11.DONE:",
        "tests/builtin/http/test_transport.py",
    ),
    Mutant(
        "builtin/hubs/encoding.py",
        "if len(encoded) > MAX_VALUE_BYTES:",
        "if False:",
        "tests/builtin/hubs/test_memory.py",
    ),
    Mutant(
        "builtin/hubs/memory.py",
        "if held is None or held.token != token or held.expires <= now:",
        "if held is None or held.expires <= now:",
        "tests/builtin/hubs/test_memory.py",
    ),
    Mutant(
        "builtin/stores/memcached.py",
        "if before is None:",
        "if True:",
        "tests/builtin/stores/test_memcached.py",
    ),
    Mutant(
        "cache/responses/kept.py",
        "return own is not None and own.digest == stored.digest",
        "return True",
        "tests/flask/test_views.py -k followers",
    ),
    Mutant(
        "cache/responses/kept.py",
        "if len(of_address) > self.variants:",
        "if False:",
        "tests/cache/responses/test_kept.py",
    ),
    Mutant(
        "cache/singleflight.py",
        "if len(self.failures) >= _MOST_MARKS:",
        "if False:",
        "tests/cache/test_singleflight.py",
    ),
    Mutant(
        "cache/tiers.py",
        "if memory.log.is_gone(ident, record.tags, record.began):",
        "if False:",
        "tests/cache/test_cache.py",
    ),
    Mutant(
        "cache/values.py",
        "if type(data.obj) is not Pickled:",
        "if False:",
        "tests/cache/test_values.py",
    ),
    Mutant(
        "policies/error_table.py",
        'return idempotent or sent_of(error) == "no"',
        "return True",
        "tests/chains/test_execute.py",
    ),
    Mutant(
        "chains/execute.py",
        "if self._retries > policy.retries or not may_retry(error, idempotent):",
        "if self._retries > policy.retries:",
        "tests/chains/test_execute.py",
    ),
    Mutant(
        "chains/execute.py",
        "or not snapshot.budget.withdraw(now)",
        "",
        "tests/chains/test_chain.py",
    ),
    Mutant(
        "chains/execute.py",
        "if snapshot.policy.at_most_once and not engine.local and may_have_run(error):",
        "if False:",
        "tests/chains/test_chain.py",
    ),
    Mutant(
        "console/access.py",
        "any(name in environ for name in _PROXIED)",
        "False",
        "tests/console/test_access.py",
    ),
    Mutant(
        "console/access.py",
        "ttl=left_s + 1.0) >= TRIES:",
        "ttl=left_s + 1.0) >= 10 * TRIES:",
        "tests/console/test_access.py",
    ),
    Mutant(
        "console/access.py",
        "if access.session is None or not self._sessions.is_form_token(access.session, said):",
        "if access.session is None:",
        "tests/console/test_access.py",
    ),
    Mutant(
        "console/access.py",
        '    "werkzeug.proxy_fix.orig",\n',
        "",
        "tests/console/test_access.py",
    ),
    Mutant(
        "policies/access.py",
        'if site in ("same-origin", "none"):',
        'if site in ("same-origin", "same-site", "none"):',
        "tests/policies/test_access.py",
    ),
    Mutant(
        "core/body.py",
        "if length is not None and size < length:",
        "if False:",
        "tests/core/test_body.py",
    ),
    Mutant(
        "core/body.py",
        "data = read(min(size, left))",
        "data = read(size)",
        "tests/core/test_body.py",
    ),
    Mutant(
        "csp/html/scan.py",
        'if self.state.attribute.lower() == "nonce":',
        "if False:",
        "tests/csp/html/test_scan.py",
    ),
    Mutant(
        "csp/html/scan.py",
        "tag.apart = tag.apart and tag.path == self.path",
        "tag.apart = tag.apart",
        "tests/csp/jinja/test_scan.py",
    ),
    Mutant(
        "csp/jinja/host.py",
        "if has_nonce(attributes):",
        "if False:",
        "tests/csp/jinja/test_host.py",
    ),
    Mutant(
        "core/request_state.py",
        "value = self.page_nonce or self.header_nonce or self.reserved_nonce",
        "value = self.reserved_nonce",
        "tests/core/test_request_state.py",
    ),
    Mutant(
        "csp/reports.py",
        "if last is not None and now - last < _SAME_FOR_S:",
        "if False:",
        "tests/csp/test_reports.py",
    ),
    Mutant(
        "fallback/copy_inputs.py",
        "if fields is None or brings_override(saw):",
        "if fields is None:",
        "tests/fallback",
    ),
    Mutant(
        "fallback/last_good.py",
        'if used and ("content-encoding" in self.fields or used.encode() not in body):',
        "if False:",
        "tests/fallback/test_last_good.py",
    ),
    Mutant(
        "fallback/copy_inputs.py",
        "return (*read_location(environ), rules.digest_identities(environ))",
        "return (*read_location(environ), '')",
        "tests/fallback",
    ),
    Mutant(
        "flask/observed.py",
        "if not _FLASKS_OWN.issuperset(values):",
        "if False:",
        "tests/flask/test_observed.py",
    ),
    Mutant(
        "flask/observation/session.py",
        'if getter.f_globals.get("__name__") == "flask.ctx":',
        "if True:",
        "tests/flask/observation/test_session.py",
    ),
    Mutant(
        "flask/observation/session.py",
        'if "session" in counted or not dict.__contains__(session, key):',
        "if not dict.__contains__(session, key):",
        "tests/flask/observation/test_session.py",
    ),
    Mutant(
        "flask/observation/readers.py",
        'return not inputs.brings("header:baggage")',
        "return True",
        "tests/flask/observation/test_readers.py",
    ),
    Mutant(
        "flask/observation/readers.py",
        'return inputs.brings("session:_id") is False',
        "return True",
        "tests/flask/observation/test_readers.py",
    ),
    Mutant(
        "flask/view_lookup.py",
        " and refresh.is_for(self.query):",
        ":",
        "tests/flask/test_views.py",
    ),
    Mutant(
        "flask/view_lookup.py",
        "return not others",
        "return True",
        "tests/flask/observation/test_dispatch.py",
    ),
    Mutant(
        "flask/extension.py",
        "if KEY in app.extensions:",
        "if False:",
        "tests/flask/test_extension.py",
    ),
    Mutant(
        "gateway/idempotency.py",
        'if record.get("mark") != call.fingerprint:',
        "if False:",
        "tests/gateway/test_idempotency.py",
    ),
    Mutant(
        "gateway/idempotency.py",
        "if size <= MAX_STORED_BYTES and self._reserve(size):",
        "if self._reserve(size):",
        "tests/gateway/test_idempotency.py",
    ),
    Mutant(
        "gateway/request.py",
        "if not _JSON.fullmatch(kind):",
        "if False:",
        "tests/gateway/test_request.py",
    ),
    Mutant(
        "headers/hsts.py",
        "if self.preload and not (",
        "if False and not (",
        "tests/headers/test_companions.py",
    ),
    Mutant(
        "headers/https.py",
        "if self._exempt.match(path):",
        "if False:",
        "tests/headers/test_https.py",
    ),
    Mutant(
        "headers/layer.py",
        "(secure or not one.https_only)",
        "True",
        "tests/headers/test_companions.py",
    ),
    Mutant(
        "http_cache/origin/collapsing.py",
        "if self._size > self._limit and self._followers:",
        "if False:",
        "tests/http_cache/origin/test_collapsing.py",
    ),
    Mutant(
        "http_cache/keys.py",
        "len(location) > 8192",
        "False",
        "tests/http_cache/test_keys.py",
    ),
    Mutant(
        "http_cache/layer.py",
        "if self._context.observes or verdict.shared:",
        "if True:",
        "tests/http_cache/origin/test_front_request.py",
    ),
    Mutant(
        "http_cache/layer.py",
        "elif -left <= verdict.while_revalidating_s:",
        "elif True:",
        "tests/http_cache/origin/test_origin_fetch.py",
    ),
    Mutant(
        "http_cache/origin/origin_fetch.py",
        "or age - verdict.lifetime_s > verdict.if_error_s",
        "",
        "tests/http_cache/origin/test_origin_fetch.py",
    ),
    Mutant(
        "http_cache/origin/origin_fetch.py",
        'if "HTTP_RANGE" in self._environ or now >= entry.gone_at:',
        "if now >= entry.gone_at:",
        "tests/http_cache/origin/test_origin_fetch.py",
    ),
    Mutant(
        "http_cache/origin/collapsing.py",
        "and not front.brings(response.cookies)",
        "",
        "tests/http_cache/origin/test_crowd.py",
    ),
    Mutant(
        "http_cache/origin/front_request.py",
        "if not self.brings(cookies):",
        "if True:",
        "tests/http_cache/origin/test_front_request.py",
    ),
    Mutant(
        "http_cache/origin/front_request.py",
        "if query_left_out and inputs.parameters:",
        "if False:",
        "tests/http_cache/origin/test_front_request.py",
    ),
    Mutant(
        "http_cache/origin/origin_fetch.py",
        "led.stop_streaming()",
        "pass",
        "tests/http_cache/origin/test_crowd.py",
    ),
    Mutant(
        "http_cache/origin/response_judge.py",
        "return failed and not self._state.view_freshness",
        "return False",
        "tests/http_cache/origin/test_response_judge.py",
    ),
    Mutant(
        "http_cache/rfc9111.py",
        '(facts.authorized and not public, "authorization")',
        '(False, "authorization")',
        "tests/http_cache/test_rfc9111.py",
    ),
    Mutant(
        "http_cache/rfc9111.py",
        '(sets_cookie and not options.ignore_cookies, "cookie")',
        '(False, "cookie")',
        "tests/http_cache/test_rfc9111.py",
    ),
    Mutant(
        "monitoring/alert_rules.py",
        "if total < _MIN_SAMPLES:",
        "if False:",
        "tests/monitoring/test_alert_rules.py",
    ),
    Mutant(
        "monitoring/alerts.py",
        "if not crossed or len(self._active) >= MAX_ACTIVE:",
        "if not crossed:",
        "tests/monitoring/test_alerts.py",
    ),
    Mutant(
        "notifications/delivery/delivery.py",
        "blamed = fault is not Fault.AWAY",
        "blamed = True",
        "tests/notifications/delivery/test_delivery.py -k attempts",
    ),
    Mutant(
        "notifications/delivery/delivery.py",
        "stop = self._scheduler.every(LEASE_S / 3, keep,",
        "stop = self._scheduler.every(LEASE_S * 30, keep,",
        "tests/notifications/delivery/test_delivery.py -k overtaken",
    ),
    Mutant(
        "notifications/delivery/pending.py",
        "process.gone.add(pending.key)",
        "pass",
        "tests/notifications/delivery/test_pending.py",
    ),
    Mutant(
        "notifications/event_stream.py",
        "isinstance(to, str) and to in addresses",
        "True",
        "tests/notifications/test_event_stream.py",
    ),
    Mutant(
        "notifications/limits.py",
        'if action.action == "link" and not is_same_origin_path(value):',
        "if False:",
        "tests/notifications/test_limits.py",
    ),
    Mutant(
        "notifications/problem_reports.py",
        'trusted = environ.get("HTTP_X_OM") == "1"',
        "trusted = True",
        "tests/notifications/test_problem_reports.py",
    ),
    Mutant(
        "plugins/guard/record.py",
        "if judge(error) is not Fault.OWN:",
        "if False:",
        "tests/plugins/guard/test_record.py",
    ),
    Mutant(
        "plugins/guard/faults.py",
        "if depth <= 0 or isinstance(error, _BUGS) or",
        "if depth <= 0 or",
        "tests/plugins/guard/test_faults.py",
    ),
    Mutant(
        "plugins/guard/record.py",
        "if self.in_a_row >= max_failures and",
        "if",
        "tests/plugins/test_host.py",
    ),
    Mutant(
        "plugins/loading.py",
        "if info.hook_api > HOOK_API:",
        "if False:",
        "tests/plugins/test_host.py",
    ),
    Mutant(
        "policies/breaker.py",
        "if self._forced or now < self._until:\n                return 0",
        "if self._forced:\n                return 0",
        "tests/policies/test_breaker.py",
    ),
    Mutant(
        "policies/breaker.py",
        "at < self._closed_at",
        "False",
        "tests/policies/test_breaker.py",
    ),
    Mutant(
        "policies/breaker.py",
        "self.permit or permit <= self._opened_at_permit",
        "self.permit",
        "tests/policies/test_breaker.py",
    ),
    Mutant(
        "policies/bulkhead.py",
        "if len(self._waiters) >= most:",
        "if len(self._waiters) > most:",
        "tests/policies/test_bulkhead.py",
    ),
    Mutant(
        "policies/cooldown.py",
        'self.reason == "offline":\n                return',
        'self.reason == "never":\n                return',
        "tests/policies/test_cooldown.py",
    ),
    Mutant(
        "policies/cooldown.py",
        'if self._trial and self.reason == "offline" and self.until:',
        "if False:",
        "tests/policies/test_cooldown.py",
    ),
    Mutant(
        "policies/error_table.py",
        "return row_of(error).trips and not _concerns_caller(error)",
        "return row_of(error).trips",
        "tests/policies/test_error_table.py",
    ),
    Mutant(
        "chains/engine_state.py",
        "elif cooldown and probe:",
        "elif cooldown:",
        "tests/chains/failures/test_refusals.py",
    ),
    Mutant(
        "chains/failures/refusals.py",
        "elif self._believed and not self._answers(now):",
        "elif self._believed:",
        "tests/chains/failures/test_refusals.py",
    ),
    Mutant(
        "policies/half_open.py",
        "max(self.permits - self.succeeded, 1)",
        "self.permits",
        "tests/policies/test_breaker.py",
    ),
    Mutant(
        "policies/health.py",
        "view.probes_failed >= PROBES_TO_OFFLINE",
        "view.probes_failed > PROBES_TO_OFFLINE",
        "tests/policies/test_health.py",
    ),
    Mutant(
        "policies/health.py",
        "self._state, self._since = state, self.clock.time()",
        "self._state = state",
        "tests/chains/test_engine_state.py",
    ),
    Mutant(
        "policies/retry_budget.py",
        "if self._balance < 1.0:",
        "if self._balance < -1.0:",
        "tests/policies/test_retry_budget.py",
    ),
    Mutant(
        "recovery/patterns.py",
        "if len(self._tracks) > self.most:",
        "if False:",
        "tests/recovery/test_patterns.py",
    ),
    Mutant(
        "recovery/run.py",
        "if not lease.renew(self.lease_s):",
        "if False:",
        "tests/recovery/test_recovery.py",
    ),
    Mutant(
        "settings/kinds.py",
        "len(value) < 16 or",
        "",
        "tests/settings/test_settings.py",
    ),
    Mutant(
        "workers/outbox.py",
        "if len(state.items) >= self.size:",
        "if False:",
        "tests/workers/test_outbox.py",
    ),
    Mutant(
        "workers/pool.py",
        "len(self._queue) >= self._queue_size",
        "False",
        "tests/workers/test_outbox.py tests/workers/test_scheduler.py",
    ),
    Mutant(
        "workers/rate_limit.py",
        "if used <= count:",
        "if used <= self._count + 1:",
        "tests/gateway/test_layer.py",
    ),
    Mutant(
        "workers/signed_cookie.py",
        "len(cookies) > MAX_HEADER",
        "False",
        "tests/workers/test_signed_cookie.py",
    ),
    Mutant(
        "workers/signed_cookie.py",
        "len(value) > MAX_VALUE or",
        "",
        "tests/workers/test_signed_cookie.py",
    ),
    Mutant(
        "workers/signed_cookie.py",
        "except BadSignature:\n                continue",
        "except BadSignature:\n                signed = value.encode()",
        "tests/workers/test_signed_cookie.py",
    ),
)


# Texts


def find_error(mutant: Mutant, package: Path) -> str | None:
    """Say why the mutant's text cannot be replaced, with the nearest text that there is."""
    path = package / mutant.file
    elsewhere = [
        f"{found.relative_to(package).as_posix()}:{_line_of(text, mutant.old)}"
        for found in sorted(package.rglob("*.py"))
        if found != path and mutant.old in (text := found.read_text(encoding="utf-8"))
    ]
    if not path.is_file():
        hint = f"the text is in {', '.join(elsewhere)}" if elsewhere else _nearest(mutant, package)
        return f"{mutant.file} does not exist; {hint}\n    {mutant.old!r}"
    text = path.read_text(encoding="utf-8")
    count = text.count(mutant.old)
    if count == 1:
        return None
    if count:
        return (
            f"{mutant.file}: the text stands there {count} times, lengthen it\n    {mutant.old!r}"
        )
    hint = f"it is in {', '.join(elsewhere)}" if elsewhere else _nearest(mutant, package)
    return f"{mutant.file}: the text is not there; {hint}\n    {mutant.old!r}"


def _line_of(text: str, part: str) -> int:
    return text[: text.index(part)].count("\n") + 1


def _nearest(mutant: Mutant, package: Path) -> str:
    """The most similar lines, in the mutant's own file if there is one."""
    own = package / mutant.file
    height = mutant.old.strip("\n").count("\n") + 1
    matcher = difflib.SequenceMatcher(b=mutant.old.strip())
    best, where = 0.0, "nothing is like it"
    for path in [own] if own.is_file() else sorted(package.rglob("*.py")):
        lines = path.read_text(encoding="utf-8").splitlines()
        for number in range(len(lines)):
            window = "\n".join(lines[number : number + height]).strip()
            matcher.set_seq1(window)
            if matcher.quick_ratio() > best and (ratio := matcher.ratio()) > best:
                best = ratio
                name = path.relative_to(package).as_posix()
                where = f"most like it is {name}:{number + 1}\n    {window!r}"
    return where


# Runs

# A plugin of pytest: it makes a run fail in its own way if the tests saw another package.
_GUARD = "sees_the_copy"
_GUARD_SOURCE = """
import sys

def pytest_sessionfinish(session):
    module = sys.modules.get({name!r})
    if module is not None and not (module.__file__ or "").startswith({file!r}):
        print("the tests saw", module.__file__)
        session.exitstatus = 70
"""


def copy_package(package: Path, folder: Path) -> Path:
    """Copy the package into ``folder``, which then goes before every installed one."""
    target = folder / package.name
    (folder / f"{_GUARD}.py").write_text(_GUARD_SOURCE.format(name=package.name, file=str(target)))
    shutil.copytree(package, target, ignore=shutil.ignore_patterns("__pycache__"))
    return target


def run_tests(folder: Path, tests: list[str], root: Path) -> tuple[int, str]:
    """Run pytest on the package in ``folder``: its exit code (-1: took too long) and output."""
    environ = {**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-P", "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider"]
    command += ["-p", _GUARD, "--no-header", f"--basetemp={folder / 'tmp'}"]
    command += ["-m", "not proof and not browser and not server"]
    try:
        done = subprocess.run(
            [*command, *tests],
            cwd=root,
            env=environ,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        return -1, str(error)
    return done.returncode, done.stdout + done.stderr


def split(tests: str) -> list[str]:
    """The arguments of a row; what follows ``-k`` is one expression."""
    paths, found, expression = tests.partition(" -k ")
    return paths.split() + (["-k", expression] if found else [])


def try_mutant(mutant: Mutant, package: Path, root: Path) -> str | None:
    """Run a mutant's tests with and without it; what is wrong, or ``None`` when they notice it."""
    with tempfile.TemporaryDirectory(prefix="mutant-") as name:
        folder = Path(name)
        target = copy_package(package, folder) / mutant.file
        text = target.read_text(encoding="utf-8")
        target.write_text(text.replace(mutant.old, mutant.new), encoding="utf-8")
        code, output = run_tests(folder, split(mutant.tests), root)
        if code == 0:
            return f"SURVIVED {mutant}\n    {mutant.tests}"
        if code not in (1, -1):
            return f"pytest ended with {code} for {mutant}\n    {mutant.tests}\n{output[-2000:]}"
        return None


def check_tests(mutants: list[Mutant], package: Path, root: Path) -> str | None:
    """Run each row's tests without a mutant: one that fails anyhow would notice everything."""
    for tests in dict.fromkeys(mutant.tests for mutant in mutants):
        with tempfile.TemporaryDirectory(prefix="mutant-") as name:
            copy_package(package, Path(name))
            code, output = run_tests(Path(name), split(tests), root)
            if code:
                return f"without a mutant pytest ends with {code}: {tests}\n{output[-2000:]}"
    return None


def find_survivors(mutants: list[Mutant], package: Path, root: Path) -> list[str]:
    """Try every mutant; the errors: texts that are not found once, else mutants that survive."""
    errors = [error for mutant in mutants if (error := find_error(mutant, package))]
    if errors:
        return errors
    with ThreadPoolExecutor(2) as pool:
        sound = [pool.submit(check_tests, mutants[half::2], package, root) for half in range(2)]
        errors = [error for one in sound if (error := one.result())]
        if errors:
            return errors
        tried = pool.map(lambda mutant: try_mutant(mutant, package, root), mutants)
        return [error for error in tried if error]


def main() -> str | int:
    parser = argparse.ArgumentParser(description="Break guards of the package and run their tests.")
    parser.add_argument("--only", metavar="TEXT", default="", help="rows with this in file or text")
    parser.add_argument("--check", action="store_true", help="only look for the texts")
    arguments = parser.parse_args()
    package = ROOT / PACKAGE
    mutants = [mutant for mutant in MUTANTS if arguments.only in f"{mutant} {mutant.tests}"]
    if arguments.check:
        errors = [error for mutant in mutants if (error := find_error(mutant, package))]
    else:
        errors = find_survivors(mutants, package, ROOT)
    if errors:
        return "\n".join(errors)
    print(
        f"{len(mutants)} mutants: "
        + ("each text is found once" if arguments.check else "none survives")
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
