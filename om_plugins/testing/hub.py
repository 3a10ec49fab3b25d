"""The contracts of a hub, as pytest tests: inherit from one and make the hub in its fixture.

::

    class TestMyHub(ProcessHubContract):
        @pytest.fixture
        def make_hub(self, tmp_path):
            return lambda: MyHub(f"my://{tmp_path}", SystemClock())

        @pytest.fixture
        def hub_source(self, tmp_path):
            return f"from my_hub import MyHub; hub = MyHub('my://{tmp_path}', clock)"

:class:`HubContract` is for every hub, :class:`ProcessHubContract` for a hub that several processes
share.
"""

# ruff: noqa: S101 - these are tests

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from itertools import chain

import pytest

from ..plugins.parts import explain_hub
from ..protocols import Hub
from ..workers.hub import explain_lease
from .fakes import run_in_threads

__all__ = ["HubContract", "ProcessHubContract"]

JSON_LIKE: tuple[object, ...] = (
    True, 0, -(2**63), 1.5, "", "서버 ✓", b"\x00\xff", [1, [2, None]], {"a": {"b": [None, "c"]}},
)  # fmt: skip


class HubContract:
    """The contract of every hub; override :meth:`make_hub`."""

    @pytest.fixture
    def make_hub(self) -> Callable[[], Hub]:
        """A function that makes a hub. All hubs that it makes in one test share one store."""
        raise NotImplementedError("override make_hub")

    @pytest.fixture
    def hub(self, make_hub: Callable[[], Hub]) -> Iterator[Hub]:
        hub = make_hub()
        yield hub
        hub.close()

    def advance(self, seconds: float) -> None:
        """Let time pass for the hub; override it for a hub with a fake clock."""
        time.sleep(seconds)

    def test_it_can_be_called(self, hub: Hub) -> None:
        problem = explain_hub(hub)
        assert not problem, problem

    # --- the stream

    def test_messages_are_read_in_the_order_of_publishing(self, hub: Hub) -> None:
        ids = [hub.publish("news", n) for n in range(5)]
        messages = hub.read("news")
        assert [m.data for m in messages] == [0, 1, 2, 3, 4]
        assert [m.id for m in messages] == ids
        assert {m.topic for m in messages} == {"news"}
        assert abs(messages[0].at - messages[-1].at) < 60

    def test_ids_differ_and_grow(self, hub: Hub) -> None:
        ids = [hub.publish(topic, 1) for topic in ("a", "b", "a", "b")]
        assert len(set(ids)) == 4
        assert ids[0] < ids[2]
        assert ids[1] < ids[3]

    def test_reading_goes_on_after_an_id(self, hub: Hub) -> None:
        ids = [hub.publish("news", n) for n in range(4)]
        assert [m.data for m in hub.read("news", ids[1])] == [2, 3]
        assert hub.read("news", ids[3]) == []

    def test_a_limit_gives_the_oldest_and_paging_gives_all(self, hub: Hub) -> None:
        for n in range(7):
            hub.publish("news", n)
        seen: list[object] = []
        after = ""
        while page := hub.read("news", after, limit=3):
            assert len(page) <= 3
            seen += [m.data for m in page]
            after = page[-1].id
        assert seen == list(range(7))

    def test_topics_are_apart(self, hub: Hub) -> None:
        hub.publish("one", 1)
        hub.publish("two", 2)
        assert [m.data for m in hub.read("two")] == [2]
        assert hub.read("three") == []

    def test_the_last_id_lets_a_reader_see_only_what_comes_later(self, hub: Hub) -> None:
        assert hub.last_id("news") == ""
        hub.publish("news", "old")
        last = hub.last_id("news")
        hub.publish("news", "new")
        assert [m.data for m in hub.read("news", last)] == ["new"]

    @pytest.mark.parametrize(
        "after", ["nonsense", "-1", "9" * 400, "1' OR '1'='1", "\x00", "١٢٣", "0x10", " 1"]
    )
    def test_an_id_that_is_none_is_no_error(self, hub: Hub, after: str) -> None:
        hub.publish("news", 1)
        assert [m.data for m in hub.read("news", after)] in ([1], [])

    @pytest.mark.parametrize("data", JSON_LIKE, ids=repr)
    def test_json_like_data_comes_back_as_it_was(self, hub: Hub, data: object) -> None:
        hub.publish("news", data)
        hub.put("key", data, 60)
        assert hub.read("news")[0].data == data
        assert type(hub.read("news")[0].data) is type(data)
        assert hub.get("key") == data

    def test_a_reader_cannot_change_what_others_read(self, hub: Hub) -> None:
        mine = {"list": [1]}
        hub.publish("news", mine)
        hub.put("key", mine, 60)
        mine["list"].append(2)
        hub.read("news")[0].data["list"].append(3)  # type: ignore[index]
        assert hub.read("news")[0].data == {"list": [1]}
        assert hub.get("key") == {"list": [1]}

    @pytest.mark.parametrize(
        "data",
        [object(), {"f": print}, 2**70, "\ud800"],
        ids=["object", "function", "large number", "surrogate"],
    )
    def test_data_without_an_encoding_is_a_value_error(self, hub: Hub, data: object) -> None:
        with pytest.raises(ValueError, match="key"):
            hub.put("key", data, 60)
        with pytest.raises(ValueError, match="news"):
            hub.publish("news", data)
        assert hub.read("news") == []

    def test_data_beyond_the_size_limit_is_a_value_error_that_says_so(self, hub: Hub) -> None:
        with pytest.raises(ValueError, match="bytes are more than"):
            hub.publish("news", "x" * 1_100_000)
        assert hub.last_id("news") == ""

    @pytest.mark.parametrize("name", ["", "x" * 5000, "\ud800"], ids=["empty", "long", "surrogate"])
    def test_a_name_that_cannot_be_kept_is_a_value_error(self, hub: Hub, name: str) -> None:
        for use in (hub.last_id, hub.get, hub.read, hub.increment):
            with pytest.raises(ValueError):
                use(name)

    def test_waiting_ends_when_a_message_comes(self, hub: Hub) -> None:
        hub.publish("other", 0)
        timer = threading.Timer(0.15, hub.publish, ("news", "now"))
        timer.start()
        began = time.monotonic()
        messages = hub.read("news", wait=60)
        timer.join()
        assert [m.data for m in messages] == ["now"]
        assert time.monotonic() - began < 20

    def test_waiting_ends_without_a_message_when_the_time_is_over(self, hub: Hub) -> None:
        assert hub.read("news", wait=0.05) == []

    def test_readers_that_wait_hold_up_nobody(self, hub: Hub) -> None:
        readers = [threading.Thread(target=hub.read, args=("news", "", 60)) for _ in range(8)]
        for reader in readers:
            reader.start()
        began = time.monotonic()
        for n in range(10):
            hub.put("key", n, 60)
            hub.increment("count")
            assert hub.get("key") == n
        assert time.monotonic() - began < 20
        hub.publish("news", "go on")
        for reader in readers:
            reader.join(20)
            assert not reader.is_alive()

    # --- the table

    def test_a_value_is_kept_until_its_time_is_over(self, hub: Hub) -> None:
        hub.put("key", "value", 0.05)
        hub.put("kept", "value", 60)
        self.advance(0.1)
        assert hub.get("key") is None
        assert hub.scan("ke") == {"kept": "value"}

    def test_a_later_value_replaces_the_earlier_and_its_time(self, hub: Hub) -> None:
        hub.put("key", 1, 0.3)
        hub.put("key", 2, 60)
        self.advance(0.4)
        assert hub.get("key") == 2

    def test_putting_none_removes(self, hub: Hub) -> None:
        hub.put("key", 1, 60)
        hub.put("key", None, 60)
        assert hub.get("key") is None
        hub.put("never", None, 60)

    def test_scan_gives_the_values_under_a_prefix_and_no_others(self, hub: Hub) -> None:
        for key in ("w:1", "w:2", "w", "v:9", "x:1", "w%", "w_", "W:1", "w:\U0010ffff", "w;"):
            hub.put(key, key, 60)
        assert hub.scan("w:") == {key: key for key in ("w:1", "w:2", "w:\U0010ffff")}
        assert hub.scan("w%") == {"w%": "w%"}
        assert len(hub.scan("")) == 10

    @pytest.mark.parametrize("ttl", [0, -1, float("nan"), float("inf")])
    def test_a_time_that_is_none_is_a_value_error(self, hub: Hub, ttl: float) -> None:
        with pytest.raises(ValueError, match="ttl"):
            hub.put("k", 1, ttl)
        with pytest.raises(ValueError, match="ttl"):
            hub.lease("k", ttl)

    # --- counters

    def test_a_counter_counts_from_its_first_use_and_begins_again(self, hub: Hub) -> None:
        assert [hub.increment("c", ttl=60) for _ in range(3)] == [1, 2, 3]
        assert hub.increment("c", 10, ttl=0.05) == 13
        assert hub.increment("short", ttl=0.5) == 1
        assert hub.increment("short", ttl=60) == 2
        self.advance(0.6)
        assert hub.increment("c", -3) == 10
        assert hub.increment("short") == 1

    def test_eight_threads_count_exactly(self, hub: Hub) -> None:
        counts = run_in_threads(8, lambda _: [hub.increment("c", ttl=600) for _ in range(50)])
        assert sorted(chain.from_iterable(counts)) == list(range(1, 401))

    def test_eight_threads_publish_and_none_is_lost(self, hub: Hub) -> None:
        run_in_threads(8, lambda _: [hub.publish("news", n) for n in range(25)])
        messages = hub.read("news", limit=1000)
        assert len(messages) == 200
        assert len({m.id for m in messages}) == 200
        assert [m.id for m in messages] == sorted(m.id for m in messages)

    # --- leases

    def test_a_lease_has_one_holder(self, make_hub: Callable[[], Hub], hub: Hub) -> None:
        lease = hub.lease("job", 60)
        problem = explain_lease(lease)
        assert not problem, problem
        assert lease is not None
        assert lease.name == "job"
        assert hub.lease("job", 60) is None
        assert hub.lease("another job", 60) is not None
        lease.release()
        assert hub.lease("job", 60) is not None

    def test_one_of_eight_threads_gets_the_lease(self, hub: Hub) -> None:
        got = run_in_threads(8, lambda _: hub.lease("job", 60))
        assert sum(lease is not None for lease in got) == 1

    def test_a_later_holder_has_a_larger_token(self, hub: Hub) -> None:
        tokens = []
        for end in ("release", "expire", "release"):
            lease = hub.lease("job", 0.3)
            assert lease is not None
            tokens.append(lease.token)
            lease.release() if end == "release" else self.advance(0.4)
        assert tokens == sorted(set(tokens))

    def test_a_lease_can_be_renewed_until_it_is_lost(self, hub: Hub) -> None:
        renewed, lost = hub.lease("job", 0.5), hub.lease("another job", 0.5)
        assert renewed is not None
        assert lost is not None
        assert renewed.renew(60) is True
        self.advance(0.6)
        assert hub.lease("job", 60) is None
        assert renewed.renew(60) is True
        assert lost.renew(60) is False

    def test_a_lost_lease_leaves_the_next_holder_alone(self, hub: Hub) -> None:
        lost = hub.lease("job", 0.2)
        self.advance(0.3)
        held = hub.lease("job", 60)
        assert lost is not None
        assert held is not None
        assert lost.renew(60) is False
        lost.release()
        assert hub.lease("job", 60) is None
        assert held.renew(60) is True

    def test_a_hub_may_be_used_after_it_was_closed(self, hub: Hub) -> None:
        hub.publish("news", 1)
        hub.close()
        hub.close()
        hub.publish("news", 2)
        assert hub.read("news")[-1].data == 2


class ProcessHubContract(HubContract):
    """The contract of a hub that several processes share; override :meth:`hub_source`, too."""

    @pytest.fixture
    def hub_source(self) -> str:
        """Python source that sets ``hub``, on the store of ``make_hub``; it may use ``clock``."""
        raise NotImplementedError("override hub_source")

    def test_what_one_hub_writes_another_reads(self, make_hub: Callable[[], Hub]) -> None:
        one, two = make_hub(), make_hub()
        one.publish("news", 1)
        one.put("key", 2, 60)
        assert one.increment("c") == 1
        held = one.lease("job", 60)
        assert [m.data for m in two.read("news")] == [1]
        assert two.get("key") == 2
        assert two.increment("c") == 2
        assert held is not None
        assert two.lease("job", 60) is None
        one.close()
        two.close()

    def test_processes_write_and_read_at_once_and_nothing_is_lost(
        self, hub: Hub, hub_source: str
    ) -> None:
        work = """
            import threading
            def work(number):
                for n in range(40):
                    hub.publish("news", [name, number, n])
                    hub.increment("count", ttl=600)
                    hub.put(f"worker:{name}:{number}", n, 600)
                    hub.read("news", hub.last_id("news"))
            threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
            [t.start() for t in threads]
            [t.join() for t in threads]
        """
        children = [_start_process(hub_source, work, name) for name in ("a", "b", "c")]
        for child in children:
            _await_end(child)
        messages = hub.read("news", limit=1000)
        expected = {(p, t, n) for p in "abc" for t in range(4) for n in range(40)}
        assert len(messages) == len(expected)
        assert {tuple(m.data) for m in messages} == expected  # type: ignore[arg-type]
        assert hub.increment("count", ttl=600) == len(expected) + 1
        assert set(hub.scan("worker:").values()) == {39}
        for process in "abc":  # each thread's messages are in its own order
            for thread in range(4):
                own = [m.data[2] for m in messages if m.data[:2] == [process, thread]]  # type: ignore[index]
                assert own == sorted(own)

    def test_a_waiting_reader_hears_another_process(self, hub: Hub, hub_source: str) -> None:
        child = _start_process(hub_source, "hub.publish('news', 'from afar')")
        messages = hub.read("news", wait=20)
        _await_end(child)
        assert [m.data for m in messages] == ["from afar"]

    def test_a_killed_holder_is_followed_by_one_with_a_larger_token(
        self, make_hub: Callable[[], Hub], hub_source: str
    ) -> None:
        hub = make_hub()
        work = """
            lease = hub.lease("job", 3.0)
            print(lease.token, flush=True)
            import time; time.sleep(600)
        """
        child = _start_process(hub_source, work)
        assert child.stdout is not None
        token = int(child.stdout.readline())
        assert hub.lease("job", 3.0) is None
        child.kill()
        child.communicate()
        deadline = time.monotonic() + 15
        lease = None
        while lease is None and time.monotonic() < deadline:
            time.sleep(0.05)
            lease = hub.lease("job", 3.0)
        assert lease is not None
        assert lease.token > token
        hub.close()

    def test_one_of_four_processes_gets_the_lease(self, hub: Hub, hub_source: str) -> None:
        work = "print(hub.lease('job', 60) is not None)"
        children = [_start_process(hub_source, work) for _ in range(4)]
        assert sorted(_await_end(child).strip() for child in children) == ["False"] * 3 + ["True"]

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
    def test_parent_and_child_both_use_it_after_a_fork(self, hub: Hub, hub_source: str) -> None:
        # In another process: that of pytest may have threads, which make a fork unsafe.
        work = """
            import os
            hub.publish("news", "before")
            hub.get("key")
            children = []
            for n in range(3):
                pid = os.fork()
                if pid == 0:
                    try:
                        for _ in range(50):
                            hub.publish("news", "child")
                            assert hub.read("news")
                            hub.increment("c", ttl=600)
                        hub.close()
                    except BaseException as error:
                        print(repr(error), flush=True)
                        os._exit(1)
                    os._exit(0)
                children.append(pid)
                for _ in range(50):
                    hub.publish("news", "parent")
            codes = [os.waitpid(pid, 0)[1] for pid in children]
            assert codes == [0, 0, 0], codes
        """
        _await_end(_start_process(hub_source, work))
        data = [m.data for m in hub.read("news", limit=1000)]
        assert data[0] == "before"
        assert data.count("child") == 150
        assert data.count("parent") == 150
        assert hub.increment("c", ttl=600) == 151


def _start_process(hub_source: str, work: str, name: str = "") -> subprocess.Popen[str]:
    begin = f"from om_plugins import SystemClock; clock = SystemClock(); name = {name!r}"
    source = "\n".join([begin, hub_source, textwrap.dedent(work), "hub.close()"])
    return subprocess.Popen(  # noqa: S603 - the source is from this file
        [sys.executable, "-c", source],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def _await_end(child: subprocess.Popen[str]) -> str:
    try:
        output, _ = child.communicate(timeout=60)
    except subprocess.TimeoutExpired:
        child.kill()
        output, _ = child.communicate()
    assert child.returncode == 0, output
    return output
