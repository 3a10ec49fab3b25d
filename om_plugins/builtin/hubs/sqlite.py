"""The hub of one host: ``sqlite:///path``, a SQLite file in WAL mode.

The path follows ``sqlite:///``, so a URL with an absolute path has four slashes. Times are those of
the wall clock, which all processes of a host share.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path

from ...errors import ConfigError
from ...protocols import Clock
from ...types import HubMessage
from .encoding import (
    MAX_READ,
    HubLease,
    check_amount,
    check_name,
    check_ttl,
    decode,
    encode,
    microseconds,
    read_id,
    write_id,
)
from .sqlite_file import HubFile, transaction

_SWEEP_EVERY_S = 60.0
_POLL_S = (0.02, 0.2)
_LEASE_MEMORY_S = 86_400.0


@dataclass(eq=False, repr=False)
class SqliteHub:
    """A :class:`~om_plugins.protocols.Hub` in a file that all processes of a host share.

    The file (mode 0600) and its directory (0700) are created on first use. Every method raises
    :class:`~om_plugins.errors.HubError` when the file cannot be used. A damaged file is not
    changed.

    Args:
        url: ``sqlite:///`` and the path.
        clock: its Unix time is the time of the hub; waiting readers sleep on it.
        max_messages: the most messages of a topic. Old ones are dropped in batches, so there may be
            some more.
        max_age: seconds until a message is dropped.

    Raises:
        ConfigError: the URL contains no path.
    """

    url: str
    clock: Clock
    _: KW_ONLY
    max_messages: int = 10_000
    max_age: float = 86_400.0
    _published: dict[str, int] = field(init=False, default_factory=dict)
    _next_sweep: float = field(init=False, default=0.0)

    def __post_init__(self) -> None:
        self.path = self.check(self.url).absolute()
        self._trim_every = max(1, min(256, self.max_messages // 8))
        self._file = HubFile(self.path, self.clock)

    @staticmethod
    def check(url: str) -> Path:
        """The path of a URL. It opens nothing."""
        scheme, separator, path = url.partition(":///")
        if scheme != "sqlite" or not separator or not path or path.startswith(":"):
            raise ConfigError(
                "OM_HUB_URL", url, "must be 'sqlite:///' and a path; an absolute one has 4 slashes"
            )
        return Path(path)

    # --- the stream -----------------------------------------------------------------------------

    def publish(self, topic: str, data: object) -> str:
        check_name(topic)
        encoded = encode(topic, data)
        now = self.clock.time()
        with self._write() as db:
            cursor = db.execute(
                "INSERT INTO messages (id, topic, at, data) SELECT max(?, 1 + coalesce("
                "(SELECT seq FROM sqlite_sequence WHERE name = 'messages'), 0)), ?, ?, ?",
                (microseconds(now), topic, now, encoded),
            )
            message = cursor.lastrowid or 0
            count = self._published.get(topic, 0)
            self._published[topic] = count + 1
            # also with the first message of a process, which may be short-lived
            if count % self._trim_every == 0:
                self._trim(db, topic, now)
        return write_id(message)

    def read(
        self, topic: str, after: str = "", wait: float = 0.0, limit: int = 100
    ) -> list[HubMessage]:
        check_name(topic)
        limit = max(1, min(limit, MAX_READ))
        number = read_id(after)
        deadline = self.clock.monotonic() + wait
        interval, longest = _POLL_S
        seen: int | None = None
        while True:
            with self._file.use_reader() as db:
                version: int = db.execute("PRAGMA data_version").fetchone()[0]
                found = [] if version == seen else self._select(db, topic, number, limit)
            seen = version
            if found:
                return found
            remaining = deadline - self.clock.monotonic()
            if remaining <= 0:
                return []
            self.clock.sleep(min(interval, remaining))
            interval = min(interval * 1.25, longest)

    def last_id(self, topic: str) -> str:
        check_name(topic)
        with self._file.use_reader() as db:
            newest = db.execute("SELECT max(id) FROM messages WHERE topic = ?", (topic,)).fetchone()
        return write_id(newest[0]) if newest[0] is not None else ""

    # --- the table ------------------------------------------------------------------------------

    def put(self, key: str, value: object, ttl: float) -> None:
        check_name(key)
        if value is None:
            with self._write() as db:
                db.execute("DELETE FROM entries WHERE key = ?", (key,))
            return
        check_ttl(key, ttl)
        encoded = encode(key, value)
        with self._write() as db:
            db.execute(
                "INSERT INTO entries (key, value, expires) VALUES (?, ?, ?) ON CONFLICT (key)"
                " DO UPDATE SET value = excluded.value, expires = excluded.expires",
                (key, encoded, self.clock.time() + ttl),
            )

    def get(self, key: str) -> object:
        check_name(key)
        with self._file.use_reader() as db:
            found = db.execute(
                "SELECT value FROM entries WHERE key = ? AND expires > ?",
                (key, self.clock.time()),
            ).fetchone()
        return decode(found[0])[1] if found else None

    def scan(self, prefix: str) -> dict[str, object]:
        with self._file.use_reader() as db:
            rows = db.execute(
                "SELECT key, value FROM entries WHERE key >= ? AND (? IS NULL OR key < ?)"
                " AND expires > ? ORDER BY key",
                (prefix, end := _find_end_of_prefix(prefix), end, self.clock.time()),
            ).fetchall()
        decoded = ((key, decode(encoded)) for key, encoded in rows)
        return {key: value for key, (readable, value) in decoded if readable}

    def increment(self, key: str, amount: int = 1, ttl: float = 60.0) -> int:
        check_ttl(key, ttl)
        check_amount(key, amount)
        with self._begin_transaction() as db:
            now = self.clock.time()
            found = db.execute(
                "SELECT value FROM counters WHERE key = ? AND expires > ?", (key, now)
            ).fetchone()
            if found is None:
                db.execute("REPLACE INTO counters VALUES (?, ?, ?)", (key, amount, now + ttl))
                return amount
            value = int(found[0]) + amount
            db.execute("UPDATE counters SET value = ? WHERE key = ?", (value, key))
            return value

    # --- leases ---------------------------------------------------------------------------------

    def lease(self, name: str, ttl: float) -> HubLease | None:
        check_ttl(name, ttl)
        with self._begin_transaction() as db:
            now = self.clock.time()
            found = db.execute(
                "SELECT token, granted, expires FROM leases WHERE name = ?", (name,)
            ).fetchone()
            token = microseconds(now)
            if found is not None:
                last, granted, expires = found
                # Granted later than now: the clock was set back, which would extend the lease by
                # that time. The larger token of the next lease excludes the old holder.
                if expires > now and granted <= now + 1.0:
                    return None
                token = max(token, last + 1)
            db.execute("REPLACE INTO leases VALUES (?, ?, ?, ?)", (name, token, now, now + ttl))
        return HubLease(self, name, token)

    def close(self) -> None:
        self._file.close()

    def renew_lease(self, name: str, token: int, ttl: float) -> bool:
        check_ttl(name, ttl)
        with self._write() as db:
            now = self.clock.time()
            changed = db.execute(
                "UPDATE leases SET expires = ?, granted = ?"
                " WHERE name = ? AND token = ? AND expires > ?",
                (now + ttl, now, name, token, now),
            )
            return changed.rowcount == 1

    def release_lease(self, name: str, token: int) -> None:
        with self._write() as db:
            # The row stays for a day, so that the next token is larger whatever the clock does.
            db.execute("UPDATE leases SET expires = 0 WHERE name = ? AND token = ?", (name, token))

    # --- statements -----------------------------------------------------------------------------

    def _select(
        self, db: sqlite3.Connection, topic: str, number: int, limit: int
    ) -> list[HubMessage]:
        too_old = self.clock.time() - self.max_age
        result: list[HubMessage] = []
        while True:
            rows = db.execute(
                "SELECT id, at, data FROM messages WHERE topic = ? AND id > ? AND at >= ?"
                " ORDER BY id LIMIT ?",
                (topic, number, too_old, limit - len(result)),
            ).fetchall()
            for number, at, encoded in rows:
                readable, data = decode(encoded)
                if readable:
                    result.append(HubMessage(write_id(number), topic, data, at))
            if not rows or len(result) >= limit:
                return result

    def _trim(self, db: sqlite3.Connection, topic: str, now: float) -> None:
        db.execute(
            "DELETE FROM messages WHERE topic = ? AND id <= (SELECT id FROM messages"
            " WHERE topic = ? ORDER BY id DESC LIMIT 1 OFFSET ?)",
            (topic, topic, self.max_messages),
        )
        # An id is at least its message's time, so the primary key finds the old messages.
        db.execute("DELETE FROM messages WHERE id < ?", (microseconds(now - self.max_age),))

    def _sweep(self, db: sqlite3.Connection) -> None:
        now = self.clock.time()
        if now < self._next_sweep < now + 2 * _SWEEP_EVERY_S:
            return
        self._next_sweep = now + _SWEEP_EVERY_S
        db.execute("DELETE FROM entries WHERE expires <= ?", (now,))
        db.execute("DELETE FROM counters WHERE expires <= ?", (now,))
        db.execute(
            "DELETE FROM leases WHERE expires <= ? AND granted <= ?", (now, now - _LEASE_MEMORY_S)
        )
        db.execute("DELETE FROM messages WHERE id < ?", (microseconds(now - self.max_age),))

    # --- connections ----------------------------------------------------------------------------

    @contextlib.contextmanager
    def _begin_transaction(self) -> Iterator[sqlite3.Connection]:
        with self._write() as db, transaction(db):
            yield db

    @contextlib.contextmanager
    def _write(self) -> Iterator[sqlite3.Connection]:
        with self._file.use_writer() as db:
            self._sweep(db)
            yield db


def _find_end_of_prefix(prefix: str) -> str | None:
    """The first text after all texts that begin with ``prefix``; ``None`` when there is none."""
    stem = prefix.rstrip("\U0010ffff")
    if not stem:
        return None
    following = ord(stem[-1]) + 1
    return stem[:-1] + chr(0xE000 if 0xD800 <= following <= 0xDFFF else following)
