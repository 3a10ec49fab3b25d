"""The state that the workers of one server share: small JSON files in a folder, and a lock.

Each use reads the file again, so that all workers and the analyst see the same faults.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = ["StateDir"]


class StateDir:
    """A folder of JSON files. The first write makes it; only this user can read it.

    Args:
        path: the folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self, name: str) -> dict[str, object]:
        """Return the values last written under a name; empty when there are none."""
        try:
            data = json.loads((self.path / f"{name}.json").read_text("utf-8"))
        except (OSError, ValueError):
            return {}
        return data if isinstance(data, dict) else {}

    def write(self, name: str, data: Mapping[str, object]) -> None:
        """Store values. A reader sees either the old values or the new ones, never a part."""
        self._make()
        temporary = self.path / f".{name}.{os.getpid()}"
        temporary.write_text(json.dumps(data), "utf-8")
        temporary.replace(self.path / f"{name}.json")

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Exclude other processes and threads. The kernel frees the lock of a killed process."""
        self._make()
        with (self.path / "lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def open_log(self) -> int:
        """Return a file descriptor that appends to the analyst's log. The caller closes it."""
        self._make()
        return os.open(self.path / "analyst.log", os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600)

    def remove(self) -> None:
        """Delete the demo's files in the folder, and the folder when it is empty."""
        shutil.rmtree(self.path / "cache", ignore_errors=True)
        for pattern in ("*.json", ".*", "lock", "analyst.log", "hub.sqlite3*"):
            for file in self.path.glob(pattern):
                with suppress(OSError):
                    file.unlink()
        with suppress(OSError):
            self.path.rmdir()

    def _make(self) -> None:
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
