from __future__ import annotations

import os
import pickle
import stat
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest

from om_plugins.builtin.stores.file import FileStore
from om_plugins.errors import ConfigError
from om_plugins.testing import CacheStoreContract


class TestContract(CacheStoreContract):
    @pytest.fixture
    def store(self, tmp_path):
        return FileStore(tmp_path / "values")


class Bomb:
    def __reduce__(self):
        return (os.mkdir, (str(self.at),))

    def __init__(self, at: Path) -> None:
        self.at = at


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "values"


def the_file(folder: Path) -> Path:
    (found,) = folder.iterdir()
    return found


def test_bytes_come_back_as_they_were_and_can_be_deleted(folder):
    store = FileStore(folder)
    assert store.get("k") is None
    store.set("k", b"\x00value", 60)
    assert store.get("k") == b"\x00value"
    assert FileStore(folder).get("k") == b"\x00value"
    store.delete("k")
    store.delete("k")
    assert store.get("k") is None


def test_nothing_is_made_before_the_first_use_and_then_for_the_owner_only(folder):
    store = FileStore(folder)
    assert not folder.exists()
    store.set("k", b"v", 60)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(the_file(folder).stat().st_mode) == 0o600


def test_a_planted_pickle_is_bytes_like_any_other_and_nothing_runs(folder, tmp_path):
    store = FileStore(folder)
    store.set("k", b"v", 60)
    ran = tmp_path / "ran"
    pickle.loads(pickle.dumps(Bomb(ran)))
    assert ran.is_dir()  # so the bomb works
    ran.rmdir()
    planted = pickle.dumps(Bomb(ran))
    the_file(folder).write_bytes(struct.pack("I", int(time.time()) + 60) + planted)
    assert store.get("k") == planted
    assert not ran.exists()


@pytest.mark.parametrize("damage", [b"", b"\x00", b"\xff\xff"])
def test_a_damaged_file_is_a_miss(folder, damage):
    store = FileStore(folder)
    store.set("k", b"v", 60)
    the_file(folder).write_bytes(damage)
    assert store.get("k") is None


@pytest.mark.parametrize("ttl", [0.0, 0.2, 1e12, float("inf")])
def test_no_ttl_means_for_ever(folder, ttl):
    FileStore(folder).set("k", b"v", ttl)
    (ends,) = struct.unpack("I", the_file(folder).read_bytes()[:4])
    assert 0 <= ends - time.time() <= 367 * 86400


def test_expired_files_are_swept_and_others_left_alone(folder):
    now = [time.time()]
    store = FileStore(folder, now=lambda: now[0])
    store.set("short", b"v", 5)
    store.set("long", b"v", 5000)
    (folder / "notes.txt").write_text("not ours")
    now[0] += 601
    store.set("next", b"v", 5000)
    assert store.get("long") == store.get("next") == b"v"
    assert sorted(path.name for path in folder.iterdir() if len(path.name) < 64) == ["notes.txt"]
    assert len(list(folder.iterdir())) == 3


def test_the_folder_stays_within_its_bound(folder):
    store = FileStore(folder, max_bytes=100_000)
    for number in range(100):
        store.set(f"k{number}", b"x" * 5000, 60 + number)
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 112_500
    assert store.get("k99") is not None
    assert store.get("k0") is None


def test_a_folder_that_cannot_be_written_is_an_error_for_the_cache_to_handle(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match="file"):
        FileStore(tmp_path / "file" / "values").set("k", b"v", 60)


def test_an_address_names_the_folder(tmp_path):
    store = FileStore.from_url(f"file://{tmp_path}/with%20space?max_bytes=5000")
    store.set("k", b"v", 60)
    assert (tmp_path / "with space").is_dir()
    assert store.max_bytes == 5000


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("file://var/cache", "did you mean 'file:///var/cache'"),
        ("file:", "names no folder"),
        ("file:///", "names no folder"),
        ("file:///tmp/x?size=1", "unknown option 'size'; known is max_bytes"),
        ("file:///tmp/x?max_bytes=lots", "must be a number of bytes"),
    ],
)
def test_an_address_that_makes_no_sense_is_refused_with_the_way_out(url, reason):
    with pytest.raises(ConfigError, match="OM_CACHE_URL") as found:
        FileStore.from_url(url)
    assert reason in str(found.value)


def test_processes_that_write_the_same_key_leave_one_whole_value(folder):
    code = (
        "import sys; from pathlib import Path\n"
        "from om_plugins.builtin.stores.file import FileStore\n"
        "store = FileStore(Path(sys.argv[1]))\n"
        "for _ in range(100): store.set('k', sys.argv[2].encode() * 5000, 60)"
    )
    writers = [subprocess.Popen([sys.executable, "-c", code, str(folder), c]) for c in "ab"]
    store = FileStore(folder)
    while any(writer.poll() is None for writer in writers):
        found = store.get("k")
        assert found in (None, b"a" * 5000, b"b" * 5000)
    assert [writer.returncode for writer in writers] == [0, 0]
