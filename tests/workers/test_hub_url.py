"""Which hub OM_HUB_URL means."""

from __future__ import annotations

import logging
import stat
from pathlib import Path

import pytest

from om_plugins.errors import ConfigError, without_password
from om_plugins.workers.hub_url import find_filesystem, resolve_hub_url

SCHEMES = ("memory", "sqlite")


@pytest.fixture
def resolve(tmp_path):
    def resolve(url="auto", **changes):
        values = {
            "testing": False,
            "cache_url": "memory://",
            "instance_path": tmp_path / "instance",
            "schemes": SCHEMES,
        }
        return resolve_hub_url(url, **values | changes)

    return resolve


def test_a_url_of_a_known_scheme_stays_as_it_is(resolve):
    assert resolve("sqlite:///x/y") == "sqlite:///x/y"
    assert resolve("memory://", testing=True) == "memory://"


def test_an_unknown_scheme_names_the_nearest(resolve):
    with pytest.raises(ConfigError) as error:
        resolve("sqlit:///x")
    assert str(error.value) == (
        "OM_HUB_URL 'sqlit:///x': unknown scheme 'sqlit'; did you mean 'sqlite'?"
    )


def test_an_unknown_scheme_without_a_near_one_names_all_and_no_password(resolve):
    with pytest.raises(ConfigError) as error:
        resolve("amqp://user:secret@host/1")
    assert "unknown scheme 'amqp'; known are memory, sqlite" in str(error.value)
    assert "secret" not in str(error.value)
    assert without_password("redis://:secret@host:6379/0") == "redis://:***@host:6379/0"
    assert (
        without_password("unix:///run/s?db=1&password=secret&sentinel_password=x")
        == "unix:///run/s?db=1&password=***&sentinel_password=***"
    )


def test_auto_is_memory_when_testing(resolve, tmp_path):
    assert resolve(testing=True) == "memory://"
    assert not (tmp_path / "instance").exists()


def test_auto_is_memory_without_an_instance_folder(resolve):
    assert resolve(instance_path=None) == "memory://"


def test_auto_is_the_caches_redis_where_a_plugin_knows_it(resolve):
    url = "redis://cache:6379/0"
    assert resolve(cache_url=url, schemes=(*SCHEMES, "redis")) == url
    for url in ("rediss://cache", "unix:///run/redis.sock", "redis+sentinel://h/main"):
        assert resolve(cache_url=url, schemes=(*SCHEMES, url.partition(":")[0])) == url
    assert resolve(cache_url=url).startswith("sqlite:///")
    assert resolve(cache_url="memcached://cache", schemes=(*SCHEMES, "memcached")).startswith("sq")


def test_auto_is_a_file_in_a_private_directory_of_the_instance_folder(resolve, tmp_path, caplog):
    assert resolve() == f"sqlite:///{tmp_path}/instance/om/hub.sqlite3"
    assert stat.S_IMODE((tmp_path / "instance/om").stat().st_mode) == 0o700
    assert resolve() == f"sqlite:///{tmp_path}/instance/om/hub.sqlite3"
    assert caplog.records == []


@pytest.mark.parametrize("where", ["file/instance", "/proc"])
def test_auto_is_memory_and_one_warning_where_nothing_can_be_written(
    resolve, tmp_path, caplog, where
):
    (tmp_path / "file").touch()
    assert resolve(instance_path=tmp_path / where) == "memory://"
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "set OM_HUB_URL to a local file" in record.getMessage()


def test_auto_is_memory_and_one_warning_on_a_network_filesystem(
    resolve, tmp_path, caplog, monkeypatch
):
    # Nothing can be mounted here, so the kernel's answer is replaced and all else is real.
    monkeypatch.setattr("om_plugins.workers.hub_url.find_filesystem", lambda path: "nfs4")
    assert resolve() == "memory://"
    assert "is on a network filesystem (nfs4)" in caplog.text
    assert not (tmp_path / "instance").exists()


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/srv/app", "ext4"),
        ("/srv/share", "nfs4"),
        ("/srv/share/app/instance", "nfs4"),
        ("/srv/shared", "ext4"),
        ("/mnt/with space/x", "cifs"),
        ("/home/me", "fuse.sshfs"),
    ],
)
def test_the_filesystem_is_the_one_of_the_nearest_mount(tmp_path, path, kind):
    mountinfo = tmp_path / "mountinfo"
    mountinfo.write_text(
        "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n"
        "23 22 0:40 / /srv/share rw - nfs4 server:/x rw\n"
        "24 22 0:41 / /mnt/with\\040space rw shared:3 master:1 - cifs //s/x rw\n"
        "25 22 0:42 / /home rw - xfs /dev/sdb rw\n"
        "26 22 0:43 / /home rw - fuse.sshfs me@x: rw\n"
        "broken line\n"
    )
    assert find_filesystem(Path(path), mountinfo) == kind


def test_this_machine_says_what_the_root_is_on():
    assert find_filesystem(Path("/proc")) == "proc"
    assert find_filesystem(Path("/"), Path("/nonexistent")) == ""
