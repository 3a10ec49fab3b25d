"""How busy an engine is: counted right under garbage collection and after a fork."""

from __future__ import annotations

import threading

from om_plugins.resilience.latencies import Load


def test_a_stream_collected_while_a_call_is_counted_does_not_wait_for_itself():
    load = Load()
    load.enter()

    def collected_in_the_middle():
        with load._lock:
            load.leave()

    thread = threading.Thread(target=collected_in_the_middle, daemon=True)
    thread.start()
    thread.join(5)
    assert not thread.is_alive()
    assert load.in_flight == 0


def test_what_began_in_the_parent_does_not_end_in_the_child():
    load = Load()
    load.enter()
    load.after_fork()
    load.leave()
    assert load.in_flight == 0
    load.enter()
    assert load.cost(0.0) > 0
