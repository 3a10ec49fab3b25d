from __future__ import annotations

import functools
from uuid import UUID

import pytest

from om_plugins.cache.memoize.memoized import memoize


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


# --- methods and classes ------------------------------------------------------------------------


class Repo:
    calls = 0

    def __cache_key__(self) -> int:
        return 1


def make_repo(cached):
    """Make a class whose methods are memoized, with the decorators in both orders."""

    class Local(Repo):
        @classmethod
        @cached
        def below(cls, number: int) -> str:
            cls.calls += 1
            return f"{cls.__name__} {number}"

        @cached
        @classmethod
        def above(cls, number: int) -> str:
            cls.calls += 1
            return f"{cls.__name__} {number}"

        @staticmethod
        @cached
        def static_below(number: int) -> int:
            Local.calls += 1
            return number

        @cached
        @staticmethod
        def static_above(number: int) -> int:
            Local.calls += 1
            return number

        @property
        @cached
        def size(self) -> int:
            Local.calls += 1
            return 1

    return Local


@pytest.mark.parametrize("method", ["below", "above", "static_below", "static_above"])
def test_a_method_of_a_class_is_cached_in_both_orders_of_the_decorators(world, method):
    local = make_repo(memoize(lambda: world.cache))
    expected = 2 if "static" in method else "Local 2"
    for owner in (local, local(), local, local()):
        assert getattr(owner, method)(2) == expected
        assert getattr(owner, method)(number=2) == expected
    assert local.calls == 1
    assert world.cache.refusals() == {}


@pytest.mark.parametrize("method", ["above", "static_below", "static_above"])
def test_the_values_of_a_method_of_a_class_can_be_invalidated(world, method):
    local = make_repo(memoize(lambda: world.cache))
    for number in (1, 2, 3):
        getattr(local, method)(number)
    assert getattr(local, method).invalidate(1) == 1
    assert getattr(local(), method).invalidate(number=2) == 1
    assert getattr(local, method).invalidate() == 3


def test_a_memoized_property_is_cached(world):
    local = make_repo(memoize(lambda: world.cache))
    assert [local().size, local().size, local.calls] == [1, 1, 1]


def test_the_classes_of_a_classmethod_are_kept_apart(world):
    local = make_repo(memoize(lambda: world.cache))

    class Sub(local):
        pass

    assert [local.above(1), Sub.above(1), local.below(1), Sub.below(1)] == ["Local 1", "Sub 1"] * 2


def test_two_local_classes_of_one_name_are_kept_apart(world, caplog):
    def make(rate):
        class Shop:
            @memoize(lambda: world.cache)
            @classmethod
            def price(cls, number):
                return number * cls.rate

        Shop.rate = rate
        return Shop

    cheap, dear = make(1), make(100)
    assert [cheap.price(5), dear.price(5), cheap.price(5), dear.price(5)] == [5, 500, 5, 500]
    assert "which its module does not have under this name" in caplog.text


def test_a_shared_store_keeps_the_values_of_classes_of_a_module_only(make_world, store):
    world = make_world(store=store)
    cached = memoize(lambda: world.cache)

    @cached
    def name(cls):
        return cls.__name__

    class Local:
        pass

    assert [name(Repo), name(Repo), name(Local), name(Local)] == ["Repo", "Repo", "Local", "Local"]
    assert world.cache.stats().fetches == 1
    assert world.cache.refusals() == {"key": 2}


def test_super_asks_the_method_of_the_class_above(world):
    cached = memoize(lambda: world.cache)

    class Base(Repo):
        @cached
        def who(self):
            return "base"

    class Sub(Base):
        @cached
        def who(self):
            return "sub+" + super().who()

    assert [Base().who(), Sub().who(), Base().who(), Sub().who()] == ["base", "sub+base"] * 2


def test_a_bound_method_has_what_the_function_has(world):
    class Server(Repo):
        @memoize(lambda: world.cache)
        def load(self, unit: str) -> str:
            """Load."""
            return unit

    assert (Server().load.__name__, Server().load.__doc__) == ("load", "Load.")
    assert Server().load.__wrapped__("%") == "%"
    assert Server().load.invalidate() == 0


@pytest.mark.parametrize(
    "wrong", [property(len), functools.cached_property(len), functools.partialmethod(len)]
)
def test_what_is_not_callable_is_refused_with_the_way_out(world, wrong):
    with pytest.raises(TypeError, match=f"a {type(wrong).__name__} cannot be memoized: put"):
        memoize(lambda: world.cache)(wrong)


def test_a_builtin_without_a_signature_is_refused_with_the_way_out(world):
    with pytest.raises(TypeError, match=r"does not tell its parameters.*a function of your own"):
        memoize(lambda: world.cache)(max)


def test_an_async_call_method_is_refused(world):
    class Later:
        async def __call__(self):
            pass

    with pytest.raises(TypeError, match="Later is async and cannot be memoized"):
        memoize(lambda: world.cache)(Later())


# --- signatures of wrappers ---------------------------------------------------------------------


def test_a_wrapper_with_parameters_of_its_own_is_called_by_them(world):
    def fetch(number):
        return number

    @memoize(lambda: world.cache)
    @functools.wraps(fetch)
    def loud(number, loud=False):
        return f"{fetch(number)}{'!' * loud}"

    assert [loud(1), loud(1, loud=True), loud(number=1, loud=False)] == ["1", "1!", "1"]
    assert world.cache.stats().fetches == 2


def test_a_wrapper_that_adds_an_argument_is_called_without_it(world):
    def with_database(function):
        @functools.wraps(function)
        def wrapper(*args, **kwargs):
            return function("database", *args, **kwargs)

        return wrapper

    @memoize(lambda: world.cache)
    @with_database
    def load(database, number, more=0):
        return (database, number, more)

    assert [load(1), load(1), load(2)] == [("database", n, 0) for n in (1, 1, 2)]
    assert load(1, more=3) == ("database", 1, 3)
    assert world.cache.stats().fetches == 3


def test_a_call_that_only_the_wrapper_takes_is_no_other_call(world):
    def echo(value):
        return value

    @memoize(lambda: world.cache)
    @functools.wraps(echo)
    def wrapper(*args):
        return echo(*(args or ("nothing",)))

    assert [wrapper(), wrapper(((), ())), wrapper()] == ["nothing", ((), ()), "nothing"]


def test_a_wrapper_that_passes_its_arguments_on_has_the_key_of_what_it_wraps(world):
    def passing(function):
        @functools.wraps(function)
        def wrapper(*args, **kwargs):
            return function(*args, **kwargs)

        return wrapper

    @memoize(lambda: world.cache)
    @passing
    def load(number, more=0):
        return number + more

    assert [load(1), load(number=1), load(1, more=0)] == [1, 1, 1]
    assert world.cache.stats().fetches == 1


# --- scopes -------------------------------------------------------------------------------------


@pytest.mark.parametrize("scope", [7, 0, UUID(int=7), ("team", 7), "ann"], ids=repr)
@pytest.mark.parametrize("asked", [False, True], ids=["value", "function"])
def test_a_scope_may_have_any_type_of_a_key(world, scope, asked):
    @memoize(lambda: world.cache, scope=(lambda: scope) if asked else scope)
    def inbox():
        return "mail"

    assert [inbox(), inbox()] == ["mail", "mail"]
    assert world.cache.stats().fetches == 1
    assert world.cache.get(inbox.cache_key(), scope=scope) == "mail"
    assert world.cache.get(inbox.cache_key()) is None
    assert world.cache.invalidate(scope=scope) == 1
    assert world.cache.purge(scope=scope) == 1


async def later():
    return "ann"


@pytest.mark.parametrize("scope", [later, lambda: (yield), lambda user: user])
def test_a_scope_that_cannot_be_asked_is_refused(world, scope):
    with pytest.raises(TypeError, match=r"scope=.* cannot be called: "):
        memoize(lambda: world.cache, scope=scope)
