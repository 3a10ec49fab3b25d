"""``memoize`` of ``cache/cache.py``."""

from __future__ import annotations

import pytest

from om_plugins.cache.cache import memoize


def test_a_call_with_the_same_arguments_is_answered_from_the_cache(world):
    calls = []

    @memoize(lambda: world.cache, stale_time=5, tags=["sums"])
    def add(a: int, b: int = 2, *rest: int, **more: int) -> int:
        """Add."""
        calls.append((a, b))
        return a + b

    assert [add(1), add(1, 2), add(a=1), add(b=2, a=1)] == [3] * 4
    assert len(calls) == 1
    assert add(1.0) == 3.0  # type: ignore[arg-type]
    assert add(1, 2, 3) == 3
    assert add(1, c=1, d=2) == add(1, d=2, c=1) == 3
    assert len(calls) == 4
    assert add.__name__ == "add"
    assert add.__doc__ == "Add."


def test_without_brackets_the_defaults_hold(world):
    @memoize(lambda: world.cache)
    def answer():
        return 42

    assert answer() == answer() == 42
    assert world.cache.stats().fetches == 1


def test_one_answer_or_all_can_be_invalidated(world):
    state = {"n": 0}

    @memoize(lambda: world.cache)
    def read(name, part=None):
        return (name, state["n"])

    read("a"), read("b")
    state["n"] = 1
    assert read.invalidate("a") == 1
    read("a"), read("b")
    world.run()
    assert (read("a"), read("b")) == (("a", 1), ("b", 0))
    assert read.invalidate() == 2
    assert world.cache.invalidate(read.cache_key("a")) == 1


def test_methods_are_told_apart_by_what_names_their_object(world):
    class Server:
        def __init__(self, name: str) -> None:
            self.name = name
            self.calls = 0

        def __cache_key__(self) -> str:
            return self.name

        @memoize(lambda: world.cache)
        def load(self, unit: str = "%") -> str:
            self.calls += 1
            return self.name + unit

    one, two = Server("one"), Server("two")
    assert [one.load(), one.load(unit="%"), two.load()] == ["one%", "one%", "two%"]
    assert one.calls == 1
    assert one.load.cache_key() == Server.load.cache_key(one)
    assert one.load.invalidate() == 1


def test_an_argument_that_no_key_can_hold_goes_straight_through_with_one_warning(world, caplog):
    calls = []

    @memoize(lambda: world.cache)
    def total(numbers):
        calls.append(numbers)
        return sum(numbers)

    assert total([1, 2]) == total([1, 2]) == 3
    assert len(calls) == 2
    assert len(caplog.records) == 1
    assert "total() is not cached" in caplog.text
    assert "builtins.list" in caplog.text or "list" in caplog.text
    assert world.cache.refusals() == {"key": 2}


def test_an_error_is_raised_without_a_retry_and_wrong_calls_fail_as_ever(world):
    calls = []

    @memoize(lambda: world.cache)
    def find(name):
        calls.append(name)
        raise LookupError(name)

    with pytest.raises(LookupError):
        find("x")
    assert calls == ["x"]
    with pytest.raises(TypeError, match="argument"):
        find()
    with pytest.raises(TypeError, match="argument"):
        find("x", "y")


def test_a_scope_is_asked_for_at_each_call(world):
    user = ["ann"]

    @memoize(lambda: world.cache, scope=lambda: user[0])
    def name():
        return user[0]

    assert name() == "ann"
    user[0] = "bob"
    assert name() == "bob"


def test_async_and_generator_functions_are_refused_when_decorated(world):
    async def later():
        pass

    def rows():
        yield 1

    with pytest.raises(TypeError, match="later is async and cannot be memoized"):
        memoize(lambda: world.cache)(later)
    with pytest.raises(TypeError, match="rows is a generator function"):
        memoize(lambda: world.cache)(rows)


def test_without_a_cache_the_function_is_simply_called():
    calls = []

    @memoize(lambda: None)
    def count():
        calls.append(1)
        return len(calls)

    assert [count(), count()] == [1, 2]
    assert count.invalidate() == 0


def test_an_answer_of_none_may_have_its_own_time(world):
    calls = []

    @memoize(lambda: world.cache, negative_time=5)
    def find(name):
        calls.append(name)

    assert [find("a"), find("a")] == [None, None]
    world.clock.advance(6)
    find("a")
    assert calls == ["a", "a"]
