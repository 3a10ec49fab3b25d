"""The hub of one host: ``sqlite:///path``, a SQLite file in WAL mode.

The path is what follows ``sqlite:///``, so an absolute one has four slashes. Time is the wall
clock, which all processes of a host share.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import weakref
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ..errors import ConfigError, HubError
from ..hookspecs import hookimpl
from ..protocols import Clock, HubFactory, PluginContext
from ..types import HubMessage, PluginInfo
from .hub_values import (
    MAX_READ,
    check_amount,
    check_name,
    check_ttl,
    decode,
    encode,
    microseconds,
    read_id,
    write_id,
)

_APPLICATION_ID = 0x4F4D4855  # "OMHU": tells a hub from any other SQLite file
_SCHEMA_VERSION = 1
_SCHEMA = (
    # AUTOINCREMENT keeps the largest id ever given, also when its row is gone.
    "CREATE TABLE messages (id INTEGER PRIMARY KEY AUTOINCREMENT,"
    " topic TEXT NOT NULL, at REAL NOT NULL, data BLOB NOT NULL)",
    "CREATE INDEX messages_of_topic ON messages (topic, id)",
    "CREATE TABLE entries (key TEXT PRIMARY KEY, value BLOB NOT NULL, expires REAL NOT NULL)",
    "CREATE INDEX entries_by_expiry ON entries (expires)",
    "CREATE TABLE counters (key TEXT PRIMARY KEY, value INTEGER NOT NULL, expires REAL NOT NULL)",
    "CREATE INDEX counters_by_expiry ON counters (expires)",
    "CREATE TABLE leases (name TEXT PRIMARY KEY, token INTEGER NOT NULL,"
    " granted REAL NOT NULL, expires REAL NOT NULL)",
    f"PRAGMA application_id = {_APPLICATION_ID}",
    f"PRAGMA user_version = {_SCHEMA_VERSION}",
)
_BUSY_S = 2.0
_SWEEP_EVERY_S = 60.0
_FILE_CHECK_EVERY_S = 1.0
_POLL_S = (0.02, 0.2)
_LEASE_MEMORY_S = 86_400.0


class _Slot:
    """One connection and its lock."""

    __slots__ = ("checked", "db", "file", "lock")

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.db: sqlite3.Connection | None = None
        self.file: tuple[int, int] = (0, 0)
        self.checked = 0.0

    def close(self) -> None:
        db, self.db = self.db, None
        if db is not None:
            with contextlib.suppress(sqlite3.Error):
                db.close()


class _Slots:
    """What one process has open: readers need not wait for a writer that waits for its turn."""

    __slots__ = ("reader", "writer")

    def __init__(self) -> None:
        self.reader = _Slot()
        self.writer = _Slot()


class SqliteHub:
    """A :class:`~om_plugins.protocols.Hub` in a file that all processes of a host share.

    The file (mode 0600) and its directory (0700) are made on first use. Every method raises
    :class:`~om_plugins.errors.HubError` when the file cannot be used; a damaged file is left as
    it is.

    Args:
        url: ``sqlite:///`` and the path.
        clock: its Unix time is the hub's time; readers that wait sleep on it.
        max_messages: messages kept per topic. Old ones go in batches, so there may be some more.
        max_age: seconds a message is kept.

    Raises:
        ConfigError: the URL names no file.
    """

    def __init__(
        self,
        url: str,
        clock: Clock,
        *,
        max_messages: int = 10_000,
        max_age: float = 86_400.0,
    ) -> None:
        scheme, separator, path = url.partition(":///")
        if scheme != "sqlite" or not separator or not path or path.startswith(":"):
            raise ConfigError(
                "OM_HUB_URL", url, "must be 'sqlite:///' and a path; an absolute one has 4 slashes"
            )
        self.url = url
        self.path = Path(path).absolute()
        self._clock = clock
        self._max_messages = max_messages
        self._max_age = max_age
        self._trim_every = max(1, min(256, max_messages // 8))
        self._published: dict[str, int] = {}
        self._next_sweep = 0.0
        self._slots: dict[int, _Slots] = {}
        self._stopped: dict[int, list[_Slot]] = {}

    # --- the stream -----------------------------------------------------------------------------

    def publish(self, topic: str, data: object) -> str:
        check_name(topic)
        encoded = encode(topic, data)
        now = self._clock.time()
        with self._writing() as db:
            cursor = db.execute(
                "INSERT INTO messages (id, topic, at, data) SELECT max(?, 1 + coalesce("
                "(SELECT seq FROM sqlite_sequence WHERE name = 'messages'), 0)), ?, ?, ?",
                (microseconds(now), topic, now, encoded),
            )
            message = cursor.lastrowid or 0
            count = self._published.get(topic, 0)
            self._published[topic] = count + 1
            if count % self._trim_every == 0:  # the first of a process too: it may live short
                self._trim(db, topic, now)
        return write_id(message)

    def read(
        self, topic: str, after: str = "", wait: float = 0.0, limit: int = 100
    ) -> list[HubMessage]:
        check_name(topic)
        limit = max(1, min(limit, MAX_READ))
        number = read_id(after)
        deadline = self._clock.monotonic() + wait
        interval, longest = _POLL_S
        seen: int | None = None
        while True:
            with self._reading() as db:
                version: int = db.execute("PRAGMA data_version").fetchone()[0]
                found = [] if version == seen else self._select(db, topic, number, limit)
            seen = version
            if found:
                return found
            remaining = deadline - self._clock.monotonic()
            if remaining <= 0:
                return []
            self._clock.sleep(min(interval, remaining))
            interval = min(interval * 1.25, longest)

    def last_id(self, topic: str) -> str:
        check_name(topic)
        with self._reading() as db:
            newest = db.execute("SELECT max(id) FROM messages WHERE topic = ?", (topic,)).fetchone()
        return write_id(newest[0]) if newest[0] is not None else ""

    # --- the table ------------------------------------------------------------------------------

    def put(self, key: str, value: object, ttl: float) -> None:
        check_name(key)
        if value is None:
            with self._writing() as db:
                db.execute("DELETE FROM entries WHERE key = ?", (key,))
            return
        check_ttl(key, ttl)
        encoded = encode(key, value)
        with self._writing() as db:
            db.execute(
                "INSERT INTO entries (key, value, expires) VALUES (?, ?, ?) ON CONFLICT (key)"
                " DO UPDATE SET value = excluded.value, expires = excluded.expires",
                (key, encoded, self._clock.time() + ttl),
            )

    def get(self, key: str) -> object:
        check_name(key)
        with self._reading() as db:
            found = db.execute(
                "SELECT value FROM entries WHERE key = ? AND expires > ?",
                (key, self._clock.time()),
            ).fetchone()
        return decode(found[0])[1] if found else None

    def scan(self, prefix: str) -> dict[str, object]:
        with self._reading() as db:
            rows = db.execute(
                "SELECT key, value FROM entries WHERE key >= ? AND (? IS NULL OR key < ?)"
                " AND expires > ? ORDER BY key",
                (prefix, end := _after_prefix(prefix), end, self._clock.time()),
            ).fetchall()
        result: dict[str, object] = {}
        for key, encoded in rows:
            readable, value = decode(encoded)
            if readable:
                result[key] = value
        return result

    def increment(self, key: str, amount: int = 1, ttl: float = 60.0) -> int:
        check_name(key)
        check_ttl(key, ttl)
        check_amount(key, amount)
        with self._transaction() as db:
            now = self._clock.time()
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

    def lease(self, name: str, ttl: float) -> SqliteLease | None:
        check_name(name)
        check_ttl(name, ttl)
        with self._transaction() as db:
            now = self._clock.time()
            found = db.execute(
                "SELECT token, granted, expires FROM leases WHERE name = ?", (name,)
            ).fetchone()
            token = microseconds(now)
            if found is not None:
                last, granted, expires = found
                # Granted later than now: the clock was set back, and the lease would seem to
                # last for as long as it was set back. The token refuses its holder.
                if expires > now and granted <= now + 1.0:
                    return None
                token = max(token, last + 1)
            db.execute("REPLACE INTO leases VALUES (?, ?, ?, ?)", (name, token, now, now + ttl))
        return SqliteLease(self, name, token)

    def close(self) -> None:
        slots = self._slots.get(os.getpid())
        if slots is not None:
            for slot in (slots.reader, slots.writer):
                with slot.lock:
                    slot.close()

    def _renew(self, name: str, token: int, ttl: float) -> bool:
        check_ttl(name, ttl)
        with self._writing() as db:
            now = self._clock.time()
            changed = db.execute(
                "UPDATE leases SET expires = ?, granted = ?"
                " WHERE name = ? AND token = ? AND expires > ?",
                (now + ttl, now, name, token, now),
            )
            return changed.rowcount == 1

    def _release(self, name: str, token: int) -> None:
        with self._writing() as db:
            # The row stays for a day: the next holder's token is larger whatever the clock does.
            db.execute("UPDATE leases SET expires = 0 WHERE name = ? AND token = ?", (name, token))

    # --- statements -----------------------------------------------------------------------------

    def _select(
        self, db: sqlite3.Connection, topic: str, number: int, limit: int
    ) -> list[HubMessage]:
        too_old = self._clock.time() - self._max_age
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
            (topic, topic, self._max_messages),
        )
        # An id is never before its message's time, so the primary key finds the old ones.
        db.execute("DELETE FROM messages WHERE id < ?", (microseconds(now - self._max_age),))

    def _sweep(self, db: sqlite3.Connection) -> None:
        now = self._clock.time()
        if now < self._next_sweep < now + 2 * _SWEEP_EVERY_S:
            return
        self._next_sweep = now + _SWEEP_EVERY_S
        db.execute("DELETE FROM entries WHERE expires <= ?", (now,))
        db.execute("DELETE FROM counters WHERE expires <= ?", (now,))
        db.execute(
            "DELETE FROM leases WHERE expires <= ? AND granted <= ?", (now, now - _LEASE_MEMORY_S)
        )
        db.execute("DELETE FROM messages WHERE id < ?", (microseconds(now - self._max_age),))

    # --- connections ----------------------------------------------------------------------------

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._writing() as db, _immediate(db):
            yield db

    @contextlib.contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._use(self._here().writer) as db:
            self._sweep(db)
            yield db

    @contextlib.contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with self._use(self._here().reader) as db:
            yield db

    @contextlib.contextmanager
    def _use(self, slot: _Slot) -> Iterator[sqlite3.Connection]:
        with slot.lock:
            try:
                now = self._clock.monotonic()
                if slot.db is not None and now - slot.checked >= _FILE_CHECK_EVERY_S:
                    slot.checked = now
                    if self._file() != slot.file:  # deleted or replaced: others use a new one
                        slot.close()
                if slot.db is None:
                    slot.db = self._connect()
                    slot.file = self._file()
                    slot.checked = now
                yield slot.db
            except (sqlite3.Error, OSError) as error:
                slot.close()
                raise HubError(f"hub file {self.path}: {error}") from error

    def _here(self) -> _Slots:
        """This process's connections, and no other's: SQLite must not be used across a fork."""
        pid = os.getpid()
        slots = self._slots.get(pid)
        if slots is None:
            mine = _Slots()
            slots = self._slots.setdefault(pid, mine)
            if slots is mine and len(self._slots) == 1:  # a child inherits the hooks
                _close_before_fork(self)
        return slots

    def _file(self) -> tuple[int, int]:
        try:
            found = self.path.stat()
        except FileNotFoundError:
            return (0, 0)
        return (found.st_dev, found.st_ino)

    def _connect(self) -> sqlite3.Connection:
        self._make_file()
        db = sqlite3.connect(
            self.path,
            timeout=_BUSY_S,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=64,
        )
        try:
            if not self._is_hub(db):
                self._make_tables(db)
            elif (version := db.execute("PRAGMA user_version").fetchone()[0]) != _SCHEMA_VERSION:
                raise HubError(
                    f"hub file {self.path}: made by another release (schema {version}, this one "
                    f"has {_SCHEMA_VERSION}); delete the file or set OM_HUB_URL to another"
                )
            db.execute("PRAGMA synchronous = NORMAL")
            db.execute("PRAGMA journal_size_limit = 8388608")
        except BaseException:
            db.close()
            raise
        return db

    def _make_file(self) -> None:
        if self.path.exists():
            return
        directory = self.path.parent
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not any(directory.iterdir()):  # ours alone: it must not end up in a repository
            (directory / ".gitignore").write_text("*\n")
        # O_EXCL: opening and closing a file that a connection of this process has open would
        # give that connection's POSIX locks away. The WAL gets this file's mode from SQLite.
        with contextlib.suppress(FileExistsError):
            os.close(os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))

    def _is_hub(self, db: sqlite3.Connection) -> bool:
        application: int = db.execute("PRAGMA application_id").fetchone()[0]
        if application == _APPLICATION_ID:
            return True
        if application or db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            raise HubError(
                f"hub file {self.path}: is another application's database; "
                "set OM_HUB_URL to a file of its own"
            )
        return False

    def _make_tables(self, db: sqlite3.Connection) -> None:
        for attempt in range(100):
            try:
                mode = db.execute("PRAGMA journal_mode = WAL").fetchone()[0]
                break
            except sqlite3.OperationalError:
                # Changing the mode does not wait for a process that does the same just now.
                if attempt == 99:
                    raise
                self._clock.sleep(0.02)
        if mode != "wal":
            raise HubError(f"hub file {self.path}: its filesystem has no shared memory for WAL")
        with _immediate(db):
            if not self._is_hub(db):  # else another process was faster
                for statement in _SCHEMA:
                    db.execute(statement)

    # --- fork -----------------------------------------------------------------------------------

    def _before_fork(self) -> None:
        # SQLite keeps a process-wide list of locks it holds on a file. A child would inherit the
        # list without the locks, so no connection may be open while the process forks.
        slots = self._slots.get(os.getpid())
        if slots is not None:
            stopped = self._stopped.setdefault(threading.get_ident(), [])
            for slot in (slots.reader, slots.writer):
                if slot.lock.acquire(timeout=2 * _BUSY_S):
                    slot.close()
                    stopped.append(slot)

    def _after_fork_in_parent(self) -> None:
        for slot in self._stopped.pop(threading.get_ident(), ()):
            slot.lock.release()

    def _after_fork_in_child(self) -> None:
        # The parent's slots stay in self._slots, unused: closing one here would be wrong.
        self._stopped.clear()
        self._published.clear()


def _close_before_fork(hub: SqliteHub) -> None:
    """Have a hub close its connections before each fork of this process, while it lives."""
    if not hasattr(os, "register_at_fork"):  # Windows does not fork
        return
    weak = weakref.ref(hub)

    def call(name: str) -> None:
        found = weak()
        if found is not None:
            getattr(found, name)()

    os.register_at_fork(
        before=lambda: call("_before_fork"),
        after_in_parent=lambda: call("_after_fork_in_parent"),
        after_in_child=lambda: call("_after_fork_in_child"),
    )


@contextlib.contextmanager
def _immediate(db: sqlite3.Connection) -> Iterator[None]:
    """A transaction that may write from its beginning, so that it never has to be done again."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise
    db.execute("COMMIT")


def _after_prefix(prefix: str) -> str | None:
    """The least text after all that begin with ``prefix``; ``None`` when there is none."""
    stem = prefix.rstrip("\U0010ffff")
    if not stem:
        return None
    following = ord(stem[-1]) + 1
    return stem[:-1] + chr(0xE000 if 0xD800 <= following <= 0xDFFF else following)


@dataclass(slots=True)
class SqliteLease:
    """A :class:`~om_plugins.protocols.Lease` of a :class:`SqliteHub`."""

    _hub: SqliteHub
    name: str
    token: int

    def renew(self, ttl: float) -> bool:
        return self._hub._renew(self.name, self.token, ttl)

    def release(self) -> None:
        self._hub._release(self.name, self.token)


@hookimpl
def om_plugin_info() -> PluginInfo:
    return PluginInfo(summary="A hub in a file, for all processes of a host (sqlite:///path)")


@hookimpl
def om_hubs(context: PluginContext) -> Mapping[str, HubFactory]:
    return {"sqlite": SqliteHub}
