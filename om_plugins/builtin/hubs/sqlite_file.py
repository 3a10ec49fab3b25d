"""The SQLite file of a hub. Each process opens it for itself and closes it during a fork."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ...core.fork import close_before_fork
from ...errors import HubError
from ...protocols import Clock

_APPLICATION_ID = 0x4F4D4855  # "OMHU": distinguishes a hub from other SQLite files
_SCHEMA_VERSION = 1
_SCHEMA = (
    # AUTOINCREMENT remembers the largest id, even if its row was deleted.
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
_FILE_CHECK_EVERY_S = 1.0


@dataclass(slots=True, eq=False, repr=False)
class _ConnectionSlot:
    """One connection and its lock."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    db: sqlite3.Connection | None = None
    file: tuple[int, int] = (0, 0)
    checked: float = 0.0

    def close(self) -> None:
        db, self.db = self.db, None
        if db is not None:
            with contextlib.suppress(sqlite3.Error):
                db.close()


@dataclass(slots=True, eq=False, repr=False)
class _ConnectionSlots:
    """The connections of one process. Readers do not wait for a writer that waits for a lock."""

    reader: _ConnectionSlot = field(default_factory=_ConnectionSlot)
    writer: _ConnectionSlot = field(default_factory=_ConnectionSlot)


class HubFile:
    """A file with the tables of a hub. Each use raises ``HubError`` when the file cannot be used.

    Args:
        path: the file; it and its directory are created on first use.
        clock: its monotonic time decides when to check that the file was not replaced.
    """

    def __init__(self, path: Path, clock: Clock) -> None:
        self.path = path
        self._clock = clock
        self._slots: dict[int, _ConnectionSlots] = {}
        self._stopped: dict[int, list[_ConnectionSlot]] = {}

    def use_reader(self) -> contextlib.AbstractContextManager[sqlite3.Connection]:
        """Use the connection for reading; one thread at a time has it."""
        return self._use(self._get_slots().reader)

    def use_writer(self) -> contextlib.AbstractContextManager[sqlite3.Connection]:
        """Use the connection for writing; one thread at a time has it."""
        return self._use(self._get_slots().writer)

    def close(self) -> None:
        """Close the connections of this process; the next use opens them again."""
        slots = self._slots.get(os.getpid())
        if slots is not None:
            for slot in (slots.reader, slots.writer):
                with slot.lock:
                    slot.close()

    @contextlib.contextmanager
    def _use(self, slot: _ConnectionSlot) -> Iterator[sqlite3.Connection]:
        with slot.lock:
            try:
                now = self._clock.monotonic()
                if slot.db is not None and now - slot.checked >= _FILE_CHECK_EVERY_S:
                    slot.checked = now
                    if self._read_identity() != slot.file:
                        slot.close()  # deleted or replaced: others use a new one
                if slot.db is None:
                    slot.db = self._connect()
                    slot.file = self._read_identity()
                    slot.checked = now
                yield slot.db
            except (sqlite3.Error, OSError) as error:
                slot.close()
                raise HubError(f"hub file {self.path}: {error}") from error

    def _get_slots(self) -> _ConnectionSlots:
        """The connections of this process: SQLite must not be used across a fork."""
        pid = os.getpid()
        slots = self._slots.get(pid)
        if slots is None:
            mine = _ConnectionSlots()
            slots = self._slots.setdefault(pid, mine)
            if slots is mine and len(self._slots) == 1:  # a child inherits the fork hooks
                close_before_fork(self)
        return slots

    def _read_identity(self) -> tuple[int, int]:
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
            # one consistent view, as another process may create the tables now
            with transaction(db, "DEFERRED"):
                made = self._is_hub(db)
            if not made:
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
        if not any(directory.iterdir()):
            # a directory of the hub alone: it must not be committed to a repository
            (directory / ".gitignore").write_text("*\n")
        # O_EXCL: opening and closing a file that a connection of this process has open would
        # release the POSIX locks of that connection. SQLite gives the WAL the same mode.
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
                # SQLite does not wait here for another process that changes the mode, too.
                if attempt == 99:
                    raise
                self._clock.sleep(0.02)
        if mode != "wal":
            raise HubError(f"hub file {self.path}: its filesystem has no shared memory for WAL")
        with transaction(db):
            if not self._is_hub(db):  # otherwise another process was faster
                for statement in _SCHEMA:
                    db.execute(statement)

    # --- fork -----------------------------------------------------------------------------------

    def before_fork(self) -> None:
        """Close the connections, and keep every thread from opening one until the fork is over."""
        # SQLite has a process-wide list of its file locks. A child would inherit the list without
        # the locks, so no connection may be open while the process forks.
        slots = self._slots.get(os.getpid())
        if slots is not None:
            stopped = self._stopped.setdefault(threading.get_ident(), [])
            for slot in (slots.reader, slots.writer):
                if slot.lock.acquire(timeout=2 * _BUSY_S):
                    slot.close()
                    stopped.append(slot)

    def after_fork_in_parent(self) -> None:
        """Let threads open connections again."""
        for slot in self._stopped.pop(threading.get_ident(), ()):
            slot.lock.release()

    def after_fork(self) -> None:
        """Forget what the parent's thread was about to do."""
        # The parent's slots stay in self._slots, unused: the child must not close them.
        self._stopped.clear()


@contextlib.contextmanager
def transaction(db: sqlite3.Connection, kind: str = "IMMEDIATE") -> Iterator[None]:
    """Run a transaction. An immediate one begins with the write lock and is never repeated."""
    db.execute(f"BEGIN {kind}")
    try:
        yield
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise
    db.execute("COMMIT")
