"""Resolve ``OM_HUB_URL``: which hub an application uses."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Collection
from pathlib import Path

from ..settings.urls import check_scheme

_logger = logging.getLogger("om_plugins")
_NETWORK_FILESYSTEMS = re.compile(
    r"nfs\d?|cifs|smb\d?|smbfs|9p|afs|ncpfs|ceph|glusterfs|lustre|gpfs|fuse\.(sshfs|s3fs|glusterfs"
    r"|rclone|gcsfuse|ceph.*|davfs2?|curlftpfs)|davfs2?|virtiofs|drvfs|vboxsf|prl_fs|ocfs2|gfs2"
)


def resolve_hub_url(
    url: str,
    *,
    testing: bool,
    cache_url: str,
    instance_path: Path | None,
    schemes: Collection[str],
    logger: logging.Logger = _logger,
) -> str:
    """Return the URL of the hub that an application uses.

    Call it on first use: ``auto`` may create a directory.

    Args:
        url: the setting. ``auto`` is memory when testing; the cache's Redis where there is one and
            a plugin for it; else a file in the instance folder. Without an instance folder, and
            where that is on a network or cannot be written, ``auto`` is memory.
        testing: the application runs under test.
        cache_url: the setting ``OM_CACHE_URL``.
        instance_path: Flask's ``app.instance_path``; ``None`` for none.
        schemes: schemes for which plugins have hubs.
        logger: gets one warning when ``auto`` cannot use the instance folder.

    Returns:
        A URL whose scheme is one of ``schemes``.

    Raises:
        ConfigError: no plugin has a hub for the scheme.
    """
    if url != "auto":
        check_scheme("OM_HUB_URL", url, schemes)
        return url
    if testing:
        return "memory://"
    cache_scheme = cache_url.partition(":")[0]
    if cache_scheme in schemes and cache_scheme.startswith(("redis", "valkey", "unix")):
        return cache_url
    if instance_path is None or "sqlite" not in schemes:
        return "memory://"
    directory = instance_path.absolute() / "om"
    obstacle = _find_obstacle(directory)
    if obstacle:
        logger.warning(
            "hub: %s %s, so each process goes on alone; set OM_HUB_URL to a local file", directory,
            obstacle,
        )  # fmt: skip
        return "memory://"
    return f"sqlite:///{directory}/hub.sqlite3"


def _find_obstacle(directory: Path) -> str:
    """Create the directory, and return why it cannot have the hub's file; "" when it can."""
    try:
        existing = next(p for p in (directory, *directory.parents) if p.exists())
        kind = find_filesystem(existing)
        if _NETWORK_FILESYSTEMS.fullmatch(kind):
            return f"is on a network filesystem ({kind}), where SQLite's locks cannot be trusted"
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        return f"cannot be made ({error.strerror})"
    return "" if os.access(directory, os.W_OK | os.X_OK) else "cannot be written"


def find_filesystem(path: Path, mountinfo: Path = Path("/proc/self/mountinfo")) -> str:
    """Return the type of the filesystem of ``path``, such as ``ext4``; "" when unknown.

    The format is proc_pid_mountinfo(5): the mount point is the fifth field, the type follows a
    single hyphen.
    """
    try:
        lines = mountinfo.read_text(errors="replace").splitlines()
    except OSError:  # not Linux
        return ""
    real = path.resolve()
    longest, kind = -1, ""
    for line in lines:
        mount, _, source = line.partition(" - ")
        fields = mount.split(" ")
        if len(fields) < 5:
            continue
        point = Path(re.sub(r"\\([0-7]{3})", lambda m: chr(int(m[1], 8)), fields[4]))
        if len(point.parts) >= longest and real.is_relative_to(point):
            longest, kind = len(point.parts), source.split(" ")[0]
    return kind
