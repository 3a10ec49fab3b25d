"""Which hub ``OM_HUB_URL`` means."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Collection
from pathlib import Path

from ..settings.kinds__schemes import check_scheme

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
    """Say which hub ``OM_HUB_URL`` means. For first use: ``auto`` may make a directory.

    Args:
        url: the setting; ``auto`` is memory when testing, the cache's Redis where there is one
            and a plugin for it, else a file in the instance folder. Where that folder is on a
            network, cannot be written, or does not exist as an idea, it is memory.
        testing: the application runs under test.
        cache_url: the setting ``OM_CACHE_URL``.
        instance_path: Flask's ``app.instance_path``; ``None`` for none.
        schemes: schemes that plugins brought.
        logger: gets one warning when ``auto`` cannot use the instance folder.

    Returns:
        A URL whose scheme is one of ``schemes``.

    Raises:
        ConfigError: no plugin brought its scheme.
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
    obstacle = _obstacle(directory)
    if obstacle:
        logger.warning(
            "hub: %s %s, so each process goes on alone; set OM_HUB_URL to a local file", directory,
            obstacle,
        )  # fmt: skip
        return "memory://"
    return f"sqlite:///{directory}/hub.sqlite3"


def _obstacle(directory: Path) -> str:
    """Why a directory cannot keep the hub, in words; "" when it can. Makes the directory."""
    try:
        existing = next(p for p in (directory, *directory.parents) if p.exists())
        kind = filesystem_of(existing)
        if _NETWORK_FILESYSTEMS.fullmatch(kind):
            return f"is on a network filesystem ({kind}), where SQLite's locks cannot be trusted"
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        return f"cannot be made ({error.strerror})"
    return "" if os.access(directory, os.W_OK | os.X_OK) else "cannot be written"


def filesystem_of(path: Path, mountinfo: Path = Path("/proc/self/mountinfo")) -> str:
    """The type of the filesystem that ``path`` is on, such as ``ext4``; "" when unknown.

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
