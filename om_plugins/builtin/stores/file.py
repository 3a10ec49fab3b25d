"""Plugin ``cache-file``: a cache store in a folder, for all workers of a host (``file:///path``).

cachelib's file cache writes a new file and renames it atomically. The store gives it a serializer
that passes bytes through, since cachelib's own serializer would unpickle any file in the folder.
"""

from __future__ import annotations

import hashlib
import math
import re
import struct
import time
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from cachelib.file import FileSystemCache

from ...errors import ConfigError
from .cachelib_bytes import RawBytes, to_seconds

_SWEEP_S = 600.0
_EXPIRY = struct.Struct("I")
_NAME = re.compile(r"[0-9a-f]{64}")


@dataclass(slots=True, eq=False, repr=False)
class FileStore:
    """Bytes in files of mode 0600, in a folder of mode 0700; the first use makes the folder.

    Every ten minutes the worker that writes next removes expired files. When the other files are
    larger than ``max_bytes`` in all, it also removes those that expire first.

    Args:
        folder: the folder of the files. No other program should write there.
        max_bytes: bound on the size of all files. The store enforces it at each sweep, and
            whenever this process has written an eighth of it.
        now: Unix time.
    """

    folder: Path
    _: KW_ONLY
    max_bytes: int = 2**30
    now: Callable[[], float] = time.time
    _files: FileSystemCache | None = field(init=False, default=None)
    _next_sweep: float = field(init=False, default=-math.inf)
    _written: int = field(init=False, default=0)

    @classmethod
    def from_url(cls, url: str) -> FileStore:
        """Make a store from ``file:///absolute/path``, ``file:relative/path``, with
        ``?max_bytes=`` after it if need be.

        Raises:
            ConfigError: no path, or something in the address that means nothing here.
        """
        parts = urlsplit(url)
        if parts.netloc not in ("", "localhost"):
            raise ConfigError(
                "OM_CACHE_URL",
                url,
                f"a file address has no host, found {parts.netloc!r}; did you mean "
                f"'file:///{parts.netloc}{parts.path}'?",
            )
        if not parts.path.strip("/"):
            raise ConfigError("OM_CACHE_URL", url, "names no folder, as 'file:///var/cache/app'")
        options = parse_qs(parts.query, keep_blank_values=True)
        unknown = set(options) - {"max_bytes"}
        if unknown:
            why = f"unknown option {min(unknown)!r}; known is max_bytes"
            raise ConfigError("OM_CACHE_URL", url, why)
        largest = options.get("max_bytes", [str(2**30)])[-1]
        if not re.fullmatch(r"[1-9]\d{0,15}", largest):
            why = f"max_bytes must be a number of bytes, not {largest!r}"
            raise ConfigError("OM_CACHE_URL", url, why)
        return cls(Path(unquote(parts.path)), max_bytes=int(largest))

    def get(self, key: str) -> bytes | None:
        """The bytes last set, or ``None``."""
        found = self._open().get(key)
        return found if isinstance(found, bytes) else None

    def set(self, key: str, value: bytes, ttl: float) -> None:
        """Keep ``value`` for ``ttl`` seconds, rounded up to whole ones.

        Raises:
            OSError: it could not be written.
        """
        files = self._open()
        if not files.set(key, value, timeout=to_seconds(ttl)):
            raise OSError(f"cannot write to the cache folder {str(self.folder)!r}")
        self._written += len(value)
        now = self.now()
        if now >= self._next_sweep or self._written >= self.max_bytes // 8:
            self._next_sweep, self._written = now + _SWEEP_S, 0
            self.sweep()

    def delete(self, key: str) -> None:
        """Forget it; a missing key is fine."""
        self._open().delete(key)

    def sweep(self) -> int:
        """Remove what is expired, and what is too much. Returns how many files went."""
        now = self.now()
        gone: list[Path] = []
        kept: list[tuple[float, int, Path]] = []
        for path in self.folder.iterdir():
            if not _NAME.fullmatch(path.name):
                continue  # not a value of ours, or one that is being written
            try:
                with path.open("rb") as file:
                    (ends,) = _EXPIRY.unpack(file.read(_EXPIRY.size))
                size = path.stat().st_size
            except (OSError, struct.error):
                gone.append(path)
                continue
            if ends < now:
                gone.append(path)
            else:
                kept.append((ends, size, path))
        total = sum(size for _, size, _ in kept)
        for _, size, path in sorted(kept, key=lambda one: one[0]):
            if total <= self.max_bytes:
                break
            gone.append(path)
            total -= size
        for path in gone:
            path.unlink(missing_ok=True)
        return len(gone)

    def _open(self) -> FileSystemCache:
        if self._files is None:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            # threshold 0: cachelib's own pruning counts in a file, which workers overwrite
            files: Any = FileSystemCache(str(self.folder), threshold=0, hash_method=hashlib.sha256)
            files.serializer = RawBytes
            self._files = files
        return self._files
