"""Where the state of an application is, and which hub OM_HUB_URL means."""

from __future__ import annotations

import errno
import logging
import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from flask import Flask

from om_plugins import OpenManager, Settings
from om_plugins.console.doctor import examine
from om_plugins.errors import ConfigError, without_password
from om_plugins.workers import state_dir
from om_plugins.workers.state_dir import (
    StatePlace,
    find_filesystem,
    make_state_dir,
    resolve_hub_url,
)

SCHEMES = ("memory", "sqlite")


@pytest.fixture
def home(tmp_path, monkeypatch):
    """The user's directory for state, which does not exist yet."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "home/state"))
    return tmp_path / "home/state"


@pytest.fixture
def resolve(tmp_path, home):
    def resolve(url="auto", setting="auto", name="shop", instance=tmp_path / "instance", **changes):
        values = {
            "testing": False,
            "cache_url": "memory://",
            "place": StatePlace(setting, name, instance),
            "schemes": SCHEMES,
        }
        return resolve_hub_url(url, **values | changes)

    return resolve


@pytest.fixture
def make(tmp_path, home):
    def make(setting="auto", name="shop", instance=tmp_path / "instance"):
        return make_state_dir(StatePlace(setting, name, instance))

    return make


def mode_of(path):
    return stat.S_IMODE(path.stat().st_mode)


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
    assert list(tmp_path.iterdir()) == []


def test_auto_is_memory_without_an_instance_folder(resolve, tmp_path):
    assert resolve(instance=None) == "memory://"
    assert list(tmp_path.iterdir()) == []


def test_auto_is_memory_where_no_plugin_has_files(resolve, tmp_path):
    assert resolve(schemes=("memory",)) == "memory://"
    assert list(tmp_path.iterdir()) == []


def test_auto_is_the_caches_redis_where_a_plugin_knows_it(resolve):
    url = "redis://cache:6379/0"
    assert resolve(cache_url=url, schemes=(*SCHEMES, "redis")) == url
    for url in ("rediss://cache", "unix:///run/redis.sock", "redis+sentinel://h/main"):
        assert resolve(cache_url=url, schemes=(*SCHEMES, url.partition(":")[0])) == url
    assert resolve(cache_url=url).startswith("sqlite:///")
    assert resolve(cache_url="memcached://cache", schemes=(*SCHEMES, "memcached")).startswith("sq")


def test_auto_is_a_file_in_the_users_directory_for_state(resolve, home, tmp_path, caplog):
    url = resolve()
    (directory,) = (home / "om_plugins").iterdir()
    assert url == f"sqlite:///{directory}/hub.sqlite3"
    assert directory.name.startswith("shop-")
    assert not (tmp_path / "instance").exists()
    assert resolve() == url
    assert caplog.records == []


def test_the_directories_that_are_made_are_the_users_alone(make, home):
    directory = make()
    made = [one for one in (directory, *directory.parents) if one.is_relative_to(home.parent)]
    assert [mode_of(one) for one in made] == [0o700] * 4
    directory.chmod(0o755)
    assert mode_of(make()) == 0o700


def test_an_instance_folder_that_is_there_has_the_state(make, home, tmp_path, caplog):
    (tmp_path / "instance").mkdir()
    assert make() == tmp_path / "instance/om"
    assert mode_of(tmp_path / "instance/om") == 0o700
    assert not home.exists()
    assert caplog.records == []


def test_an_instance_folder_that_is_made_later_does_not_part_the_workers(make, tmp_path):
    first = make()
    (tmp_path / "instance").mkdir()
    assert make() == first
    (tmp_path / "instance/om").mkdir()  # as an earlier release made it
    assert make() == tmp_path / "instance/om"


def test_each_application_has_a_directory_of_its_own(make, tmp_path):
    others = [
        make(),
        make(name="admin"),
        make(instance=tmp_path / "checkout/instance"),
        make(name="../../etc"),
        make(name=""),
        make(name="é\n"),
        make(name="x" * 500),
    ]
    assert len(set(others)) == len(others)
    assert {one.parent for one in others} == {others[0].parent}
    assert all(re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]*-[0-9a-f]{16}", o.name) for o in others)


def test_a_link_to_the_checkout_is_the_same_application(make, tmp_path):
    (tmp_path / "release-5").mkdir()
    (tmp_path / "current").symlink_to("release-5")
    paths = [tmp_path / name / "instance" for name in ("release-5", "current")]
    assert make(instance=paths[0]) == make(instance=paths[1])


@pytest.mark.parametrize("there", [True, False])
def test_a_setting_names_the_instance_folder(make, home, tmp_path, there):
    if there:
        (tmp_path / "instance").mkdir()
    assert make("instance") == tmp_path / "instance/om"
    assert mode_of(tmp_path / "instance/om") == 0o700
    assert not home.exists()


def test_a_setting_names_a_directory(make, resolve, home, tmp_path):
    (tmp_path / "instance/om").mkdir(parents=True)
    chosen = str(tmp_path / "var/shop")
    assert make(chosen) == tmp_path / "var/shop"
    assert mode_of(tmp_path / "var/shop") == 0o700
    assert make(chosen, instance=None) == tmp_path / "var/shop"
    assert resolve(setting=chosen, instance=None) == f"sqlite:///{chosen}/hub.sqlite3"
    assert not home.exists()


def test_instance_without_an_instance_folder_says_so(resolve):
    with pytest.raises(ConfigError) as error:
        resolve(setting="instance", instance=None)
    assert str(error.value) == (
        "OM_STATE_DIR 'instance': this application has no instance folder; choose a local "
        "directory that all workers may write to, or take the setting out"
    )


@pytest.mark.parametrize(
    ("where", "reason"),
    [
        ("file", "is no directory"),
        ("file/state", "cannot be made (Not a directory)"),
        ("/proc/state", "cannot be made (No such file or directory)"),
        ("dangling", "cannot be made (File exists)"),
        ("closed", "cannot be written"),
        ("x" * 300, "cannot be made (File name too long)"),
    ],
)
def test_a_chosen_directory_that_cannot_be_used_is_an_error_and_nothing_else_is_used(
    resolve, home, tmp_path, monkeypatch, where, reason
):
    (tmp_path / "file").touch()
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "closed").mkdir()
    # root may write anywhere, so the kernel's answer is replaced
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).name != "closed")
    chosen = str(tmp_path / where)
    with pytest.raises(ConfigError) as error:
        resolve(setting=chosen)
    assert error.value.key == "OM_STATE_DIR"
    assert error.value.value == chosen
    assert error.value.reason.startswith(f"{chosen} {reason}; choose a local directory")
    assert not home.exists()


def test_a_chosen_directory_on_a_network_filesystem_is_an_error(resolve, tmp_path, monkeypatch):
    monkeypatch.setattr(state_dir, "find_filesystem", lambda path: "nfs4")
    for setting in (str(tmp_path / "state"), "instance"):
        with pytest.raises(ConfigError, match=r"^OM_STATE_DIR .* network filesystem \(nfs4\)"):
            resolve(setting=setting)


def test_a_chosen_directory_of_another_user_is_used_where_it_may_be_written(
    make, tmp_path, monkeypatch
):
    (tmp_path / "shared").mkdir()
    monkeypatch.setattr(state_dir, "_is_anothers", lambda path: True)
    assert make(str(tmp_path / "shared")) == tmp_path / "shared"


def test_a_link_is_followed_where_it_leads_to_a_directory(make, home, tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    assert make(str(tmp_path / "link")) == tmp_path / "link"
    (tmp_path / "elsewhere").mkdir()
    home.parent.mkdir()
    home.symlink_to(tmp_path / "elsewhere")
    assert make().parent == home / "om_plugins"
    assert mode_of(tmp_path / "elsewhere/om_plugins") == 0o700


def test_an_app_with_a_directory_that_cannot_be_used_goes_on_and_says_so(
    tmp_path, home, caplog, monkeypatch
):
    (tmp_path / "file").touch()
    app = Flask("shop", root_path=str(tmp_path))
    app.config["OM_STATE_DIR"] = str(tmp_path / "file")
    om = OpenManager(app)
    app.add_url_rule("/", view_func=lambda: "ok")
    assert app.test_client().get("/").text == "ok"
    assert om.hub.get("a") is None
    assert om.hub.alone
    assert f"OM_STATE_DIR '{tmp_path}/file': {tmp_path}/file is no directory" in caplog.text
    (finding,) = [one for one in examine(om.runtime.kit) if one.subject == "OM_STATE_DIR"]
    assert finding.level == "fail"
    result = app.test_cli_runner().invoke(args=["om", "engines"])
    assert result.exit_code == 1
    assert result.output.startswith(f"Error: OM_STATE_DIR '{tmp_path}/file': ")
    om.runtime.close()


@pytest.mark.parametrize("named", ["", "relative/path", None])
def test_without_a_good_xdg_state_home_it_is_below_the_home(make, tmp_path, monkeypatch, named):
    if named is None:
        monkeypatch.delenv("XDG_STATE_HOME")
    else:
        monkeypatch.setenv("XDG_STATE_HOME", named)
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    (tmp_path / "me").mkdir()
    assert make().parent == tmp_path / "me/.local/state/om_plugins"


def test_a_user_without_a_home_gets_memory_and_one_warning(resolve, monkeypatch, caplog):
    def no_home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setattr(Path, "home", no_home)
    assert resolve() == "memory://"
    (record,) = caplog.records
    assert "this user has no home directory" in record.getMessage()
    assert "OM_STATE_DIR" in record.getMessage()


@pytest.mark.parametrize("where", ["file/state", "file", "/proc/state"])
def test_auto_is_memory_and_one_warning_where_nothing_can_be_written(
    resolve, tmp_path, monkeypatch, caplog, where
):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / where))
    assert resolve() == "memory://"
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "OM_STATE_DIR to a local directory" in record.getMessage()


def test_a_read_only_instance_folder_leaves_the_state_to_the_home(
    make, home, tmp_path, monkeypatch, caplog
):
    (tmp_path / "instance").mkdir()
    # root may write anywhere, so the kernel's answer is replaced
    mkdir = Path.mkdir

    def refuse(path, *args, **kwargs):
        if path.is_relative_to(tmp_path / "instance"):
            raise PermissionError(errno.EROFS, os.strerror(errno.EROFS))
        mkdir(path, *args, **kwargs)

    monkeypatch.setattr(Path, "mkdir", refuse)
    with caplog.at_level(logging.INFO, "om_plugins"):
        assert make().parent == home / "om_plugins"
    (record,) = caplog.records
    assert record.levelno == logging.INFO
    assert "instance/om cannot be made (Read-only file system), so it is in" in record.getMessage()


def test_state_that_others_may_use_and_this_user_cannot_is_a_warning(
    make, home, tmp_path, monkeypatch, caplog
):
    (tmp_path / "instance/om").mkdir(parents=True)
    monkeypatch.setattr(os, "access", lambda path, mode: "instance" not in str(path))
    assert make().parent == home / "om_plugins"
    (record,) = caplog.records
    assert (record.levelno, "cannot be written" in record.getMessage()) == (logging.WARNING, True)


def test_a_directory_of_another_user_is_not_used(resolve, home, monkeypatch, caplog):
    resolve()
    (directory,) = (home / "om_plugins").iterdir()
    for foreign in (directory, home / "om_plugins"):
        caplog.clear()
        monkeypatch.setattr(state_dir, "_is_anothers", lambda path, f=foreign: path == f)
        assert resolve() == "memory://"
        assert f"{foreign} belongs to another user" in caplog.text


def test_root_makes_nothing_in_the_home_of_a_user(resolve, home, monkeypatch, caplog):
    home.parent.mkdir()
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(state_dir, "_is_anothers", lambda path: True)
    assert resolve() == "memory://"
    assert f"would be root's inside of {home.parent}" in caplog.text
    assert not home.exists()


def test_a_home_that_this_user_may_not_look_into_is_no_error(resolve, monkeypatch, caplog):
    def refuse(path):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Path, "is_dir", refuse)
    monkeypatch.setattr(Path, "exists", refuse)
    assert resolve() == "memory://"
    assert "cannot be made (Permission denied)" in caplog.text


def test_auto_is_memory_and_one_warning_on_a_network_filesystem(
    resolve, tmp_path, caplog, monkeypatch
):
    # Nothing can be mounted here, so the kernel's answer is replaced and all else is real.
    monkeypatch.setattr(state_dir, "find_filesystem", lambda path: "nfs4")
    assert resolve() == "memory://"
    assert "is on a network filesystem (nfs4)" in caplog.text
    assert list(tmp_path.iterdir()) == []


WORKER = """
import os, sys
from flask import Flask
from om_plugins import OpenManager

os.umask(0)
app = Flask("shop", root_path=sys.argv[1])
om = OpenManager(app)
app.add_url_rule("/", view_func=lambda: "ok")
assert app.test_client().get("/").text == "ok"
om.hub.put(sys.argv[2], 1, ttl=60)
print(sorted(om.hub.scan("worker ")))
print(om.runtime.hub_url())
"""


def test_workers_of_one_app_share_a_hub_and_leave_the_project_as_it_was(tmp_path, home):
    project = tmp_path / "project"
    project.mkdir()
    (project / "app.py").touch()
    said = []
    for number in ("1", "2"):
        command = [sys.executable, "-c", WORKER, str(project), f"worker {number}"]
        done = subprocess.run(command, capture_output=True, text=True, cwd=project)
        assert done.returncode == 0, done.stderr
        said.append(done.stdout.splitlines())
    assert said[1][0] == "['worker 1', 'worker 2']"
    assert said[0][1] == said[1][1]
    assert [one.name for one in project.iterdir()] == ["app.py"]
    written = [one for one in home.parent.rglob("*") if one.name != ".gitignore"]
    assert {mode_of(one) & 0o077 for one in written} == {0}


def test_a_relative_directory_is_refused_with_its_reason():
    for value in ("state", "./state", "~/state", "", "a\0b", b"/state", 5, ["/x"]):
        with pytest.raises(ConfigError, match=r"OM_STATE_DIR.*'auto', 'instance' or an absolute"):
            Settings.from_mapping({"OM_STATE_DIR": value})
    assert Settings(state_dir=Path("/var/lib/shop")).state_dir == "/var/lib/shop"


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
