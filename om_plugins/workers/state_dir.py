"""Where the workers of an application keep what they share: its state directory, and its hub.

All that this package writes of its own accord is in the state directory. It is never in a folder of
the project that the application does not write to itself.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import NamedTuple

from ..errors import ConfigError
from ..settings.urls import check_scheme

_logger = logging.getLogger("om_plugins")
_NETWORK_FILESYSTEMS = re.compile(
    r"nfs\d?|cifs|smb\d?|smbfs|9p|afs|ncpfs|ceph|glusterfs|lustre|gpfs|fuse\.(sshfs|s3fs|glusterfs"
    r"|rclone|gcsfuse|ceph.*|davfs2?|curlftpfs)|davfs2?|virtiofs|drvfs|vboxsf|prl_fs|ocfs2|gfs2"
)
_SUBFOLDER = "om"
_PACKAGE = "om_plugins"


class StatePlace(NamedTuple):
    """What decides where the state of an application is.

    Attributes:
        setting: ``OM_STATE_DIR``: ``auto``, ``instance`` or an absolute path.
        name: the application's.
        instance_path: Flask's ``app.instance_path``; ``None`` for none.
    """

    setting: str
    name: str
    instance_path: Path | None


def resolve_hub_url(
    url: str,
    *,
    testing: bool,
    cache_url: str,
    place: StatePlace,
    schemes: Collection[str],
    logger: logging.Logger = _logger,
) -> str:
    """Return the URL of the hub that an application uses.

    Call it on first use: ``auto`` may create a directory.

    Args:
        url: the setting. ``auto`` is memory when testing; the cache's Redis where there is one and
            a plugin for it; else a file in the state directory. Where there is no such directory,
            ``auto`` is memory.
        testing: the application runs under test.
        cache_url: the setting ``OM_CACHE_URL``.
        place: decides where the state directory is.
        schemes: schemes for which plugins have hubs.
        logger: gets one warning when ``auto`` cannot use a state directory.

    Returns:
        A URL whose scheme is one of ``schemes``.

    Raises:
        ConfigError: no plugin has a hub for the scheme, or ``OM_STATE_DIR`` names a directory that
            cannot be used.
    """
    if url != "auto":
        check_scheme("OM_HUB_URL", url, schemes)
        return url
    if testing:
        return "memory://"
    cache_scheme = cache_url.partition(":")[0]
    if cache_scheme in schemes and cache_scheme.startswith(("redis", "valkey", "unix")):
        return cache_url
    if "sqlite" not in schemes or (place.setting == "auto" and place.instance_path is None):
        return "memory://"
    directory = make_state_dir(place, logger)
    return "memory://" if directory is None else f"sqlite:///{directory}/hub.sqlite3"


def make_state_dir(place: StatePlace, logger: logging.Logger = _logger) -> Path | None:
    """Return the state directory of an application, with mode 0700; make it when it is not there.

    The first one of these that can be used is it: what ``OM_STATE_DIR`` says; ``om`` in the
    instance folder, where that folder exists; a directory for this application in the user's
    directory for state, which is ``$XDG_STATE_HOME`` or ``~/.local/state`` (XDG Base Directory
    Specification 0.8). One that is there already goes before one that would have to be made, so
    that workers agree also when the application makes its instance folder between their starts.

    Args:
        place: decides where it is.
        logger: gets one line when a place cannot be used: a warning when no other one is left, or
            when another worker may use that place.

    Returns:
        ``None`` when none can be used.

    Raises:
        ConfigError: ``OM_STATE_DIR`` names a directory, and it cannot be used.
    """
    obstacles: list[tuple[str, bool]] = []
    for directory, own in _list_candidates(place, os.environ):
        existed = _is_dir(directory)
        obstacle = _find_obstacle(directory, own=own)
        if not obstacle:
            for text, others in obstacles:
                level = logging.WARNING if others else logging.INFO
                logger.log(level, "state: %s, so it is in %s", text, directory)
            return directory
        obstacles.append((f"{directory} {obstacle}", existed))
    texts = [text for text, _ in obstacles] or [_explain_nowhere(place)]
    if place.setting != "auto":  # whoever chose a place wants no other one
        way_out = "choose a local directory that all workers may write to, or take the setting out"
        raise ConfigError("OM_STATE_DIR", place.setting, f"{texts[0]}; {way_out}")
    logger.warning(
        "hub: %s, so each process goes on alone; set OM_HUB_URL to a local file, or OM_STATE_DIR "
        "to a local directory", "; ".join(texts),
    )  # fmt: skip
    return None


def _list_candidates(
    place: StatePlace, environ: Mapping[str, str]
) -> list[tuple[Path, Path | None]]:
    """List the directories to try, each with the part of its path that must be the user's own."""
    instance = place.instance_path and place.instance_path.absolute()
    if place.setting not in ("auto", "instance"):
        return [(Path(place.setting), None)]
    if instance is None:
        return []
    inside = (instance / _SUBFOLDER, None)
    if place.setting == "instance":
        return [inside]
    found: list[tuple[Path, Path | None]] = [inside] if _is_dir(instance) else []
    home = _find_state_home(environ)
    if home is not None:
        base = home / _PACKAGE
        found.append((base / _identify(place.name, instance), base))
    return sorted(found, key=lambda one: not _is_dir(one[0]))  # stable


def _find_state_home(environ: Mapping[str, str]) -> Path | None:
    """Return the user's directory for state; ``None`` for a user without a home."""
    named = environ.get("XDG_STATE_HOME", "")
    if Path(named).is_absolute():  # the specification ignores relative paths
        return Path(named)
    try:
        home = Path.home()
    except RuntimeError:
        return None
    return home / ".local" / "state" if home.is_absolute() else None


def _is_dir(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # in a directory that this user cannot look into
        return False


def _identify(name: str, instance: Path) -> str:
    """Return a name that only this application of this folder has, the same in all workers."""
    readable = re.sub(r"[^\w.-]", "-", name, flags=re.ASCII).lstrip(".-")[:40] or "app"
    known = f"{name}\0{os.path.realpath(instance)}".encode("utf-8", "surrogateescape")
    return f"{readable}-{hashlib.sha256(known).hexdigest()[:16]}"


def _explain_nowhere(place: StatePlace) -> str:
    if place.instance_path is None:
        return "this application has no instance folder"
    return "this user has no home directory"


def _find_obstacle(directory: Path, *, own: Path | None) -> str:
    """Make the directory, and return why it cannot have our files; "" when it can.

    Args:
        directory: where the files would be.
        own: the directory above it that nobody else may own, nor what is below it; ``None`` for a
            place that the operator or the application chose.
    """
    try:
        above = next(p for p in (directory, *directory.parents) if p.exists())
        kind = find_filesystem(above)
        if _NETWORK_FILESYSTEMS.fullmatch(kind):
            return f"is on a network filesystem ({kind}), where SQLite's locks cannot be trusted"
        inside = above in (own, directory)
        if own is not None and not inside and _is_root() and _is_anothers(above):
            return f"would be root's inside of {above}, which belongs to another user"
        for missing in reversed([p for p in (directory, *directory.parents) if not p.exists()]):
            missing.mkdir(mode=0o700, exist_ok=True)
        if not directory.is_dir():
            return "is no directory"
        if own is not None:
            for one in (own, directory):
                if _is_anothers(one):
                    return f"cannot be trusted: {one} belongs to another user"
            directory.chmod(0o700)
    except OSError as error:
        return f"cannot be made ({error.strerror})"
    return "" if os.access(directory, os.W_OK | os.X_OK) else "cannot be written"


def _is_root() -> bool:
    return hasattr(os, "geteuid") and os.geteuid() == 0


def _is_anothers(path: Path) -> bool:
    """Whether a directory belongs to another user; Windows keeps homes apart by itself."""
    return hasattr(os, "geteuid") and path.stat().st_uid != os.geteuid()


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
