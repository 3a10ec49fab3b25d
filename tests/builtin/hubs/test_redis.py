"""The hub of many hosts, on a real Redis that is begun, paused and killed.

Covers ``om_plugins.builtin.hubs.redis_connection`` and ``om_plugins.builtin.hubs.redis_lua``, too.
"""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import sys
import threading
import time

import pytest

from om_plugins.builtin.hubs.redis import RedisHub
from om_plugins.core.clock import SystemClock
from om_plugins.errors import ConfigError, HubError
from om_plugins.testing.hub import ProcessHubContract
from tests.conftest import lacking
from tests.patience import HANG_S, PATIENCE_S, cut_off, join, wait_until

redis = pytest.importorskip("redis")


class TestContract(ProcessHubContract):
    @pytest.fixture
    def make_hub(self, redis_server):
        return lambda: RedisHub(redis_server.url, SystemClock())

    @pytest.fixture
    def hub_source(self, redis_server):
        return (
            "from om_plugins.builtin.hubs.redis import RedisHub;"
            f"hub = RedisHub('{redis_server.url}', clock)"
        )


@pytest.fixture
def open_hub(redis_server):
    opened = []

    def open_hub(url="", **options):
        opened.append(RedisHub(url or redis_server.unix_url, SystemClock(), **options))
        return opened[-1]

    yield open_hub
    for hub in opened:
        hub.close()


@pytest.fixture
def hub(open_hub):
    return open_hub()


@pytest.fixture
def client(redis_server):
    return redis_server.client


def test_applications_of_different_names_share_nothing(open_hub):
    one, two = open_hub(namespace="one"), open_hub(namespace="two")
    one.publish("news", 1)
    one.put("key", 1, 60)
    one.increment("count")
    assert one.lease("job", 60)
    assert two.read("news") == []
    assert two.scan("") == {}
    assert two.increment("count") == 1
    assert two.lease("job", 60)


def test_every_key_begins_with_the_applications_name(open_hub, client):
    hub = open_hub(namespace="shop")
    hub.publish("news", 1)
    hub.put("key", 1, 60)
    hub.increment("count")
    hub.lease("job", 60)
    assert all(key.startswith(b"om:{shop}:") for key in client.scan_iter())


def test_whatever_is_kept_runs_out_by_itself_but_the_last_number(hub, client):
    hub.publish("news", 1)
    hub.put("key", 1, 60)
    hub.increment("count")
    hub.lease("job", 60)
    lasting = {key.rpartition(b":")[2] for key in client.scan_iter() if client.ttl(key) == -1}
    assert lasting == {b"last", b"names", b"ends"}
    for n in range(300):
        hub.put(f"key {n}", n, 0.01)
    time.sleep(0.05)
    for n in range(4):
        hub.put("key", n, 60)
    assert client.zcard("om:{app}:names") == client.zcard("om:{app}:ends") == 1


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("redis://host/0?colour=red", "colour"),
        ("redis://host:port/0", "Port"),
        ("redis://host/0?socket_timeout=soon", "socket_timeout"),
        ("redis+sentinel://host:26379", "names no service"),
        ("redis+sentinel://a b:x/main", "is no host"),
    ],
)
def test_a_url_that_makes_no_sense_is_a_config_error(url, reason):
    with pytest.raises(ConfigError, match="OM_HUB_URL") as error:
        RedisHub(url, SystemClock())
    assert reason in str(error.value)


def test_a_password_is_in_no_error():
    hub = RedisHub("redis://user:secret@127.0.0.1:1/0?password=secret", SystemClock())
    with pytest.raises(HubError) as error:
        hub.get("key")
    assert "redis://user:***@127.0.0.1:1/0: " in str(error.value)
    assert "secret" not in str(error.value)


def test_nothing_is_opened_before_the_first_use(hub, redis_server, client):
    redis_server.kill()
    with pytest.raises(HubError, match=r"redis\.sock"):
        hub.publish("news", 1)


def test_a_killed_server_is_a_hub_error_at_once_and_a_new_one_is_found_again(hub, redis_server):
    last = hub.publish("news", 1)
    token = hub.lease("job", 60).token
    redis_server.kill()
    for use in (
        lambda: hub.publish("news", 2),
        lambda: hub.read("news", wait=HANG_S),
        lambda: hub.last_id("news"),
        lambda: hub.put("key", 1, 5),
        lambda: hub.get("key"),
        lambda: hub.scan(""),
        lambda: hub.increment("count"),
        lambda: hub.lease("job", 5),
        lambda: hub.renew_lease("job", token, 5),
        lambda: hub.release_lease("job", token),
    ):
        with cut_off(), pytest.raises(HubError):
            use()
    redis_server.start()
    assert hub.publish("news", 3) > last  # it has forgotten everything, and numbers grow
    assert hub.lease("job", 60).token > token


def test_a_server_that_hangs_is_a_hub_error_within_its_timeout(open_hub, redis_server):
    hub = open_hub(redis_server.url + "?socket_timeout=0.2")
    hub.get("key")
    redis_server.pause()
    try:
        with cut_off(0.2), pytest.raises(HubError, match=r"[Tt]imeout"):
            hub.get("key")
    finally:
        redis_server.go_on()


def test_a_reader_that_waits_is_woken_by_the_servers_end(hub, redis_server):
    errors = []

    def wait():
        try:
            hub.read("news", wait=HANG_S)
        except HubError as error:
            errors.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    time.sleep(0.2)
    redis_server.kill()
    join(thread)
    assert len(errors) == 1


def test_a_wait_may_be_longer_than_one_blocking_read(open_hub, monkeypatch):
    monkeypatch.setattr("om_plugins.builtin.hubs.redis.BLOCK_S", 0.05)
    hub = open_hub()
    timer = threading.Timer(0.4, hub.publish, ("news", "late"))
    timer.start()
    assert [m.data for m in hub.read("news", wait=HANG_S)] == ["late"]
    timer.join()


def test_old_messages_go_by_count_in_batches(open_hub):
    hub = open_hub(max_messages=100)
    for n in range(1000):
        hub.publish("news", n)
    kept = [m.data for m in hub.read("news", limit=10_000)]
    assert 100 <= len(kept) <= 300
    assert kept[-1] == 999


def test_old_messages_go_by_age(open_hub, client):
    stream = "om:{app}:topic:news"
    open_hub(namespace="past").publish("news", "old")
    ((_, fields),) = client.xrange("om:{past}:topic:news")
    seconds, microseconds = client.time()
    client.xadd(stream, fields, id=f"{(seconds - 31) * 1_000_000 + microseconds}-0")
    hub = open_hub(max_age=30)
    hub.publish("news", "new")
    assert [m.data for m in hub.read("news")] == ["new"]
    assert 0 < client.pttl(stream) <= 30_000
    short = open_hub(max_age=0.1)
    short.publish("news", "short")
    wait_until(lambda: not client.exists(stream))


def test_what_others_wrote_is_passed_by(hub, client):
    stream = "om:{app}:topic:news"
    client.xadd(stream, {"d": b"\x01"}, id="5-3")
    client.xadd(stream, {"x": b"\x01"}, id="6-0")
    client.xadd(stream, {"d": b"\x01", "e": b""}, id="7-0")
    client.persist(stream)
    hub.publish("news", "ours")
    for _ in range(3):
        client.xadd(stream, {"d": b"\xc1"})
    assert [m.data for m in hub.read("news", limit=1)] == ["ours"]
    assert hub.last_id("news") == ""  # theirs has none of our ids; a reader begins at the oldest
    client.set("om:{app}:value:pickle", b"cposix\nsystem\n(S'true'\ntR.")
    client.set("om:{app}:value:big", b"\xc4" * 3_000_000)
    client.lpush("om:{app}:value:list", 1)
    client.zadd("om:{app}:names", {"pickle": 0, "big": 0, "list": 0, b"\xff": 0})
    hub.put("mine", 1, 60)
    assert hub.scan("") == {"mine": 1}
    for key in ("pickle", "big", "list"):
        assert hub.get(key) is None
    client.set("om:{app}:counter:c", b"many")
    assert hub.increment("c", 2) == 2
    client.lpush("om:{app}:counter:d", 1)
    assert hub.increment("d", 2) == 2
    assert 0 < client.pttl("om:{app}:counter:d") <= 60_000


@pytest.mark.parametrize("planted", [b"1e300", b"inf", b"nan", b"-5", b"text"])
def test_a_planted_number_does_not_stop_the_stream(hub, client, planted):
    client.set("om:{app}:last", planted)
    first = hub.publish("news", 1)
    assert abs(int(first) / 1e6 - time.time()) < 60
    assert hub.publish("news", 2) > first
    assert hub.lease("job", 60).token > int(first)


@pytest.mark.parametrize("kind", ["future", "list"])
def test_a_topic_that_can_take_no_message_is_begun_anew(hub, client, kind):
    if kind == "future":
        client.xadd("om:{app}:topic:news", {"d": b"\x01"}, id=f"{2**64 - 1}-5")
        assert hub.read("news") == []
    else:
        client.lpush("om:{app}:topic:news", 1)
        with pytest.raises(HubError):
            hub.read("news")
    hub.publish("news", 1)
    assert [m.data for m in hub.read("news")] == [1]


def test_a_server_without_memory_keeps_the_topic(hub, client):
    hub.publish("news", 1)
    client.config_set("maxmemory", 1)
    with pytest.raises(HubError, match="memory"):
        hub.publish("news", 2)
    client.config_set("maxmemory", 0)
    assert [m.data for m in hub.read("news")] == [1]


def test_numbers_grow_when_the_servers_clock_is_set_back(hub, client):
    ahead = int((time.time() + 3600) * 1e6)
    client.set("om:{app}:last", ahead)
    assert int(hub.publish("news", 1)) == ahead + 1
    assert hub.lease("job", 60).token == ahead + 2
    assert int(hub.publish("news", 2)) == ahead + 3


def test_a_server_that_forgot_its_scripts_is_told_again(hub, client):
    hub.publish("news", 1)
    client.script_flush()
    assert hub.publish("news", 2)


def test_a_password_and_a_database_come_from_the_url(open_hub, redis_server, client):
    client.config_set("requirepass", "pass word")
    port = redis_server.url.rpartition(":")[2].partition("/")[0]
    hub = open_hub(f"redis://:pass%20word@127.0.0.1:{port}/3")
    hub.put("key", 1, 60)
    other = open_hub(f"valkey://:pass%20word@127.0.0.1:{port}/0")
    assert other.get("key") is None
    with pytest.raises(HubError, match="uthentication"):
        open_hub(redis_server.url).get("key")


def test_tls_is_checked_against_the_authority_in_the_url(open_hub, redis_server, tmp_path):
    if shutil.which("openssl") is None:
        lacking("openssl")
    certificate, key = tmp_path / "redis.pem", tmp_path / "redis.key"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
            *("-subj", "/CN=redis", "-addext", "subjectAltName=IP:127.0.0.1"),
            *("-keyout", str(key), "-out", str(certificate)),
        ],
        check=True,
        capture_output=True,
    )
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    try:
        redis_server.client.config_set("tls-cert-file", str(certificate))
        redis_server.client.config_set("tls-key-file", str(key))
        redis_server.client.config_set("tls-auth-clients", "no")
        redis_server.client.config_set("tls-port", port)
    except redis.ResponseError:
        lacking("a redis-server with TLS")
    hub = open_hub(f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={certificate}")
    hub.publish("news", 1)
    assert [m.data for m in hub.read("news")] == [1]
    assert hub.read("news", hub.last_id("news"), wait=0.01) == []
    with pytest.raises(HubError, match="CERTIFICATE_VERIFY_FAILED"):
        open_hub(f"rediss://127.0.0.1:{port}/0").get("key")


def test_children_forked_while_threads_are_at_work_have_connections_of_their_own(redis_server):
    source = f"""
import os, threading
from om_plugins.builtin.hubs.redis import RedisHub
from om_plugins.core.clock import SystemClock
hub = RedisHub("{redis_server.url}", SystemClock())
def work():
    while not stop.is_set():
        hub.publish("parent", "x" * 5000)
        hub.read("parent", limit=5)
        hub.read("never", wait=0.01)
stop = threading.Event()
threads = [threading.Thread(target=work) for _ in range(4)]
[t.start() for t in threads]
codes = []
for _ in range(10):
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            for n in range(5):
                hub.publish("child", [os.getpid(), n])
                assert [m.topic for m in hub.read("child")][-1:] == ["child"]
            code = 0
        finally:
            os._exit(code)
    codes.append(os.waitpid(pid, 0)[1])
stop.set()
[t.join() for t in threads]
assert codes == [0] * 10, codes
assert len(hub.read("child", limit=1000)) == 50
hub.close()
"""
    done = subprocess.run(
        [sys.executable, "-c", source], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr


def test_greenlets_wait_side_by_side_under_gevent(redis_server):
    pytest.importorskip("gevent")
    source = f"""
from gevent import monkey; monkey.patch_all()
import gevent, time
from om_plugins.builtin.hubs.redis import RedisHub
from om_plugins.core.clock import SystemClock
hub = RedisHub("{redis_server.url}", SystemClock())
readers = [gevent.spawn(hub.read, "news", "", 60) for _ in range(50)]
gevent.sleep(0.2)
hub.publish("news", 1)
gevent.joinall(readers, timeout=20)
assert [r.value[0].data for r in readers] == [1] * 50
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", source], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr


def test_sentinel_says_where_the_server_is(open_hub, redis_server, start_sentinel):
    port = start_sentinel(redis_server)
    hub = open_hub(f"redis+sentinel://127.0.0.1:1,127.0.0.1:{port}/main/2")
    hub.publish("news", 1)
    assert hub.read("news")[0].data == 1
    assert hub.read("news", hub.last_id("news"), wait=0.05) == []
    assert redis_server.client.info("keyspace")["db2"]["keys"] == 2
    with pytest.raises(HubError, match="other"):
        open_hub(f"redis+sentinel://127.0.0.1:{port}/other").get("key")


@pytest.fixture
def start_sentinel(tmp_path):
    processes = []

    def start(server):
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            port = s.getsockname()[1]
        main = server.url.rpartition(":")[2].partition("/")[0]
        configuration = tmp_path / "sentinel.conf"
        configuration.write_text(
            f"port {port}\nbind 127.0.0.1\ndir {tmp_path}\n"
            f"sentinel monitor main 127.0.0.1 {main} 1\n"
        )
        processes.append(
            subprocess.Popen(
                ["redis-server", str(configuration), "--sentinel"], stdout=subprocess.DEVNULL
            )
        )
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                return port
            time.sleep(0.02)
        raise AssertionError("the sentinel does not answer")

    yield start
    for process in processes:
        process.kill()
        process.wait(PATIENCE_S)
