"""Runs tests in a forked child, or in a process patched by gevent.

::

    python run_elsewhere.py forked|gevent <pytest arguments>
"""

from __future__ import annotations

import os
import sys
import threading


def in_a_forked_child(arguments: list[str]) -> int:
    """The parent has used everything, with threads under way, before it forks."""
    from om_plugins import Settings, StaticEngine
    from om_plugins.core.clock import SystemClock
    from om_plugins.runtime import Runtime
    from om_plugins.types import EngineSpec

    runtime = Runtime(Settings(), clock=SystemClock())
    runtime.add_engine(EngineSpec(StaticEngine("one", "x"), "parent"))
    runtime.start()
    runtime.scheduler.submit(threading.Event().wait)
    assert runtime.part_of("chains").get("parent").call().payload == "x"
    child = os.fork()
    if child == 0:
        assert runtime.part_of("chains").get("parent").call().payload == "x"
        os._exit(run(arguments))
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def run(arguments: list[str]) -> int:
    import pytest

    return int(pytest.main(arguments))


if __name__ == "__main__":
    where, *rest = sys.argv[1:]
    if where == "gevent":
        from gevent import monkey

        monkey.patch_all()
        sys.exit(run(rest))
    sys.exit(in_a_forked_child(rest))
