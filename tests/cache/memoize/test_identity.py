"""What tells memoized functions apart; covers ``cache/memoize/parts.py`` as well."""

from __future__ import annotations

import functools
import operator
import os
import runpy
import subprocess
import sys
from dataclasses import dataclass
from decimal import Decimal
from textwrap import dedent
from types import ModuleType
from typing import Any
from uuid import UUID

import pytest

from om_plugins.cache.memoize import identity
from om_plugins.cache.memoize.memoized import memoize
from om_plugins.cache.memoize.parts import read_function


@pytest.fixture
def cached(world):
    return memoize(lambda: world.cache)


@pytest.fixture
def shared(make_world, store):
    """``memoize`` in a cache whose store other processes share."""
    world = make_world(store=store)
    decorate = memoize(lambda: world.cache)
    decorate.world = world
    return decorate


def fetches(world) -> int:
    return world.cache.stats().fetches


ANOTHER_MODULE = ModuleType("another")
ANOTHER_MODULE.neg = lambda number: number * 100


class Box:
    """What no key can hold."""

    def __init__(self, content: Any) -> None:
        self.content = content


# --- closures -----------------------------------------------------------------------------------


def make_price(rate):
    def price(number):
        return number * rate

    return price


@pytest.mark.parametrize(
    ("one", "other"),
    [(1, 100), (1, 1.0), (1, True), ("a", "b"), (Decimal(1), Decimal(2)), ((1,), (2,)),
     (b"a", b"b"), ([1], [2]), ((1, [2]), (1, [3])), ([], ())],
    ids=repr,
)  # fmt: skip
def test_closures_over_different_values_never_share(world, cached, one, other):
    first, second = cached(make_price(one)), cached(make_price(other))
    for function, rate in ((first, one), (second, other)):
        assert function(2) == function(2) == 2 * rate
        assert type(function(2)) is type(2 * rate)
    assert fetches(world) == 2


@pytest.mark.parametrize("value", [7, "a", UUID(int=7), (1, "a"), None, frozenset({1})], ids=repr)
def test_closures_over_equal_values_are_one_function(cached, value):
    assert cached(make_price(value)).cache_key(2) == cached(make_price(value)).cache_key(2)


def test_a_closed_over_value_that_changes_changes_the_key(cached):
    rate = 1

    @cached
    def price(number):
        return number * rate

    assert price(5) == 5
    rate = 100
    assert price(5) == 500
    rate = 1
    assert price(5) == 5


def test_a_variable_that_gets_its_value_after_the_decorator_counts(cached):
    def make(given):
        @cached
        def price(number):
            return number * rate

        rate = given
        return price

    assert [price(5) for price in (make(1), make(100))] == [5, 500]


def test_a_variable_that_the_function_assigns_itself_does_not_change_the_key(world, cached):
    calls = 0

    @cached
    def count():
        nonlocal calls
        calls += 1
        return calls

    assert [count(), count(), calls] == [1, 1, 1]


def test_a_list_that_the_function_fills_does_not_change_the_key(cached):
    calls = []

    @cached
    def count():
        calls.append(1)
        return len(calls)

    assert [count(), count(), len(calls)] == [1, 1, 1]


def test_a_local_function_may_call_itself_and_its_neighbour(world, cached):
    @cached
    def even(number):
        return number == 0 or odd(number - 1)

    @cached
    def odd(number):
        return number != 0 and even(number - 1)

    @cached
    def fibonacci(number):
        return number if number < 2 else fibonacci(number - 1) + fibonacci(number - 2)

    assert (even(10), odd(10), fibonacci(60)) == (True, False, 1548008755920)
    assert fetches(world) == 11 + 11 + 61


@pytest.mark.parametrize(
    "make", [Box, lambda n: {"rate": n} and {"rate": Box(n)}, lambda n: [Box(n)]],
    ids=["object", "dict of objects", "list of objects"],
)  # fmt: skip
def test_the_second_function_over_another_object_is_not_cached_and_said(
    world, cached, caplog, make
):
    def price_of(box):
        def price(number):
            content = box["rate"] if isinstance(box, dict) else box
            content = content[0] if isinstance(content, list) else content
            return number * content.content

        return cached(price)

    cheap, dear = price_of(make(1)), price_of(make(100))
    assert [cheap(5), dear(5), cheap(5), dear(5)] == [5, 500, 5, 500]
    assert fetches(world) == 1
    assert world.cache.refusals() == {"key": 2}
    assert len(caplog.records) == 1
    assert "price() is not cached: another function of the same code" in caplog.text
    assert "'box' (" in caplog.text
    assert "name=" in caplog.text
    with pytest.raises(TypeError, match="name="):
        dear.cache_key(5)


def test_functions_over_equal_lists_do_not_share_since_the_lists_may_change(cached):
    def price_of(rates):
        @cached
        def price(number):
            return number * rates[0]

        return price

    one, other = [1], [1]
    cheap, dear = price_of(one), price_of(other)
    other[0] = 100
    assert [cheap(5), dear(5)] == [5, 500]


def test_functions_over_one_object_are_one(world, cached):
    box = Box(3)

    def make():
        @cached
        def price(number):
            return number * box.content

        return price

    assert [make()(5), make()(5)] == [15, 15]
    assert fetches(world) == 1


def test_a_shared_store_keeps_nothing_of_a_function_over_an_object(shared, caplog):
    box = Box(1)

    @shared
    def price(number):
        return number * box.content

    assert price(5) == 5
    box = Box(100)
    assert price(5) == 500
    assert shared.world.cache.refusals() == {"key": 2}
    assert "it was made with 'box' (" in caplog.text
    assert "other processes share the store" in caplog.text
    assert "name=" in caplog.text


def test_an_object_that_names_itself_may_be_closed_over_in_a_shared_store(shared):
    class Rate:
        def __init__(self, number: int) -> None:
            self.number = number

        def __cache_key__(self) -> int:
            return self.number

        def __rmul__(self, other: int) -> int:
            return other * self.number

    cheap, dear = shared(make_price(Rate(1))), shared(make_price(Rate(100)))
    assert [cheap(5), dear(5), cheap(5), dear(5)] == [5, 500, 5, 500]
    assert fetches(shared.world) == 2
    assert cheap.cache_key(5) == cheap.cache_key(5) != dear.cache_key(5)


def test_an_object_that_names_itself_wrongly_is_not_cached(world, cached):
    class Wrong:
        def __cache_key__(self) -> list[int]:
            return [1]

        def __rmul__(self, other: int) -> int:
            return other

    assert cached(make_price(Wrong()))(5) == 5
    assert world.cache.refusals() == {"key": 1}


def test_a_module_or_class_may_be_closed_over_in_a_shared_store(shared):
    def convert(kind):
        @shared
        def value(text):
            return kind(text) if callable(kind) else kind.neg(int(text))

        return value

    assert [convert(kind)("5") for kind in (int, str, float, operator)] == [5, "5", 5.0, -5]
    assert convert(ANOTHER_MODULE)("5") == 500
    assert fetches(shared.world) == 5


# --- functions of one name ----------------------------------------------------------------------


def test_functions_on_one_line_are_kept_apart(cached):
    inc, dec, dbl = cached(lambda x: x + 1), cached(lambda x: x - 1), cached(lambda x: x * 2)
    assert [inc(10), dec(10), dbl(10)] == [11, 9, 20]


def test_functions_that_differ_only_in_a_constant_are_kept_apart(cached):
    functions = [
        cached(eval(f"lambda x: (x, {value})")) for value in ("1", "True", "1.0", "2j", "...")
    ]
    assert [repr(function(0)[1]) for function in functions] == [
        "1",
        "True",
        "1.0",
        "2j",
        "Ellipsis",
    ]


def test_functions_that_differ_only_inside_an_inner_function_are_kept_apart(cached):
    one = cached(lambda x: (lambda: x + 1)())
    two = cached(lambda x: (lambda: x + 2)())
    assert [one(1), two(1)] == [2, 3]


def test_a_function_that_is_defined_again_is_another_one(cached):
    @cached
    def value():
        return 1

    first = value

    @cached
    def value():
        return 1

    assert first.cache_key() != value.cache_key()


def test_a_wrapper_is_another_function_than_what_it_wraps(cached):
    def fetch(number):
        return ("plain", number)

    def upper(function):
        @functools.wraps(function)
        def wrapper(*args):
            return ("upper", *function(*args))

        return wrapper

    functions = [cached(fetch), cached(upper(fetch)), cached(upper(upper(fetch)))]
    assert [len(function(1)) for function in functions] == [2, 3, 4]


@pytest.mark.parametrize("wraps", [functools.wraps, lambda function: lambda wrapper: wrapper])
def test_functions_below_one_decorator_are_kept_apart(cached, wraps):
    def timed(function):
        @wraps(function)
        def wrapper(*args):
            return function(*args)

        return wrapper

    @cached
    @timed
    def name_of(number):
        return f"user {number}"

    @cached
    @timed
    def price_of(number):
        return number * 9.5

    assert [name_of(1), price_of(1)] == ["user 1", 9.5]


def test_functions_of_one_text_below_one_decorator_are_kept_apart_by_their_lines(cached):
    def timed(function):
        return cached(lambda *args: function(*args))

    def _(number):
        return number

    first = _

    def _(number):
        return number

    assert timed(first).cache_key(1) != timed(_).cache_key(1)


def test_the_defaults_of_a_function_below_a_decorator_count(cached):
    def make(rate):
        def price(number, rate=rate, *, more=rate):
            return number * rate * more

        return cached(lambda *args: price(*args))

    assert [make(1)(5), make(10)(5)] == [5, 500]


def test_a_function_below_functools_cache_is_known_by_its_own_code(cached):
    one, two = functools.cache(lambda x: x + 1), functools.cache(lambda x: x + 2)
    assert [cached(one)(1), cached(two)(1)] == [2, 3]


def test_a_memoized_function_below_another_decorator_is_known_by_its_code(shared):
    one, two = shared(lambda x: x + 1), shared(lambda x: x + 2)
    outer = [shared(functools.partial(function)) for function in (one, two)]
    assert [function(1) for function in outer] == [2, 3]
    assert fetches(shared.world) == 4


# --- other callables ----------------------------------------------------------------------------


def keep(number, **more):
    return (number, sorted(more.items()))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (functools.partial(pow, 2), functools.partial(pow, 3)),
        (functools.partial(pow, 2), functools.partial(divmod, 2)),
        (functools.partial(pow, exp=2), functools.partial(pow, exp=3)),
        (functools.partial(keep, rate=1), functools.partial(keep, rate=2)),
        (functools.partial(lambda a, b: a, 1), functools.partial(lambda a, b: b, 1)),
        (functools.partial(functools.partial(pow, 2), mod=3), functools.partial(pow, 2, mod=5)),
        (pow, divmod),
        ("abc".replace, "abd".replace),
        (operator.add, operator.sub),
    ],
)
def test_partials_and_builtins_are_kept_apart(shared, one, other):
    args = [(5,), (5, 3), ("a", "b")]
    for function in (one, other):
        decorated = shared(function)
        for some in args:
            try:
                expected = function(*some)
            except (TypeError, ValueError):
                continue
            assert decorated(*some) == decorated(*some) == expected
    assert shared.world.cache.refusals() == {}


class Scale:
    def __init__(self, factor: Any) -> None:
        self.factor = factor

    def __call__(self, number: int) -> int:
        return number * self.factor


@dataclass(slots=True)
class Shift:
    by: int

    def __call__(self, number: int) -> int:
        return number + self.by


def test_a_shared_store_keeps_nothing_of_a_callable_object_with_an_object(shared, caplog):
    function = shared(Scale(Box(1)))
    with pytest.raises(TypeError, match="unsupported operand"):
        function(5)
    assert shared.world.cache.refusals() == {"key": 1}
    assert "it was made with the callable (tests.cache" in caplog.text


class Loop(Scale):
    def __init__(self, factor: int) -> None:
        super().__init__(factor)
        self.itself = self


@pytest.mark.parametrize("kind", [Scale, Shift, Loop])
def test_callable_objects_are_kept_apart_by_their_attributes(shared, kind):
    one, two = shared(kind(2)), shared(kind(3))
    assert [one(5), two(5), one(5), two(5)] == [kind(2)(5), kind(3)(5)] * 2
    assert fetches(shared.world) == 2


def test_a_callable_object_with_state_out_of_sight_is_kept_apart(world, cached):
    one, two = cached(Scale(Decimal(2))), cached(Scale(Box(3)))
    assert one(5) == 10
    with pytest.raises(TypeError, match="unsupported operand"):
        two(5)


def test_a_callable_object_of_a_class_in_c_is_not_kept_in_a_shared_store(shared):
    class Rows(list):
        def __call__(self, number):
            return [*self, number]

    functions = [shared(Rows([number])) for number in (1, 2)]
    assert [function(5) for function in functions] == [[1, 5], [2, 5]]
    assert shared.world.cache.refusals() == {"key": 2}


def test_bound_methods_are_kept_apart_by_their_object(world, cached):
    class Server:
        def __init__(self, name: str) -> None:
            self.name = name

        def __cache_key__(self) -> str:
            return self.name

        def load(self, unit: str) -> str:
            return self.name + unit

    one, two = cached(Server("a").load), cached(Server("b").load)
    assert [one("%"), two("%"), one("%"), two("%")] == ["a%", "b%", "a%", "b%"]
    assert fetches(world) == 2


def test_a_bound_method_of_an_object_that_names_itself_wrongly_is_not_cached(world, cached):
    class Server:
        def __cache_key__(self) -> list[int]:
            return [1]

        def load(self) -> int:
            return 1

    assert cached(Server().load)() == 1
    assert world.cache.refusals() == {"key": 1}


# --- name= --------------------------------------------------------------------------------------


def test_a_name_stands_in_place_of_the_code(world):
    first, second = [
        memoize(lambda: None, name="price")(eval(f"lambda n: n * {rate}")) for rate in (1, 2)
    ]
    assert first.cache_key(5) == second.cache_key(5)
    assert memoize(lambda: world.cache, name="price")(lambda number: number)(5) == 5
    assert list(world.cache.groups()) == ["price"]


def test_a_name_that_two_functions_have_is_an_error(world):
    @memoize(lambda: world.cache, name="price")
    def first(number):
        return number

    @memoize(lambda: world.cache, name="price")
    def second(number):
        return number * 100

    assert first(5) == 5
    with pytest.raises(
        identity.NameTaken, match=r"name='price' is taken: .*second \(test_identity"
    ):
        second(5)
    assert first(5) == 5


def test_a_name_in_a_factory_needs_what_tells_the_functions_apart(make_world, store):
    world = make_world(store=store)

    def make(box, name):
        @memoize(lambda: world.cache, name=name)
        def price(number):
            return number * box.content

        return price

    assert make(Box(1), "price")(5) == 5
    with pytest.raises(identity.NameTaken, match=r"name=f'price \{"):
        make(Box(100), "price")(5)
    assert [make(Box(rate), f"price {rate}")(5) for rate in (1, 100)] == [5, 500]
    assert world.cache.refusals() == {}


def test_values_that_a_key_can_hold_count_beside_a_name(world):
    def make(rate):
        return memoize(lambda: world.cache, name="price")(make_price(rate))

    assert [make(1)(5), make(100)(5)] == [5, 500]


def test_a_name_may_be_used_in_two_caches(make_world):
    for rate in (1, 2):
        world = make_world()
        function = memoize(lambda world=world: world.cache, name="price")(make_price([rate]))
        assert function(1) == [rate]


def test_the_functions_that_a_cache_remembers_are_bounded(world, cached, monkeypatch):
    monkeypatch.setattr(identity, "_MOST_OWNERS", 2)
    functions = [cached(make_price([rate])) for rate in range(4)]
    for _ in range(2):
        assert [function(1) for function in functions] == [[0], [1], [2], [3]]
    assert fetches(world) == 2
    assert world.cache.refusals() == {"key": 4}


# --- workers and restarts -----------------------------------------------------------------------

SHOP = dedent(
    """
    import functools, sys
    from decimal import Decimal
    from om_plugins.cache.memoize.memoized import memoize

    cached = memoize(lambda: None)

    def plain(n, kind=frozenset({"a", "b", "c"})):
        return n in {"x", "y", "z"}

    def make(rate, names, helper):
        total = 0
        def price(n):
            nonlocal total
            total += n
            return helper(n * rate, names, sys, Decimal)
        return price

    class Scale:
        def __init__(self, factor):
            self.factor = factor
        def __call__(self, n):
            return n * self.factor

    class Repo:
        @classmethod
        def load(cls, n):
            return n

    functions = [
        plain, lambda n: n, make(Decimal(1), {"a", "b", "c"}, plain), make(1.5, {"a": [1]}, max),
        Scale(frozenset({"a", "b", "c"})), functools.partial(plain, kind="x"),
        functools.cache(plain), Repo.load, cached(plain),
    ]
    for _ in range(300):
        plain("x")
    for function in functions:
        print(cached(function).cache_key("n")[:3])
    """
)


def test_workers_and_restarts_agree_on_every_identity(tmp_path):
    printed = []
    for number in (1, 2):
        folder = tmp_path / f"release {number}"
        folder.mkdir()
        (folder / "shop.py").write_text(SHOP)
        out = subprocess.run(
            [sys.executable, "-c", "import shop"],
            cwd=folder,
            env={**os.environ, "PYTHONHASHSEED": str(number)},
            capture_output=True,
            text=True,
            check=True,
        )
        printed.append(out.stdout.splitlines())
    assert printed[0] == printed[1]
    assert len(set(printed[0])) == 8  # two of them answer like one function
    assert not any("0x" in line for line in printed[0])


def test_code_that_has_run_often_is_the_same_code():
    function = make_price(3)
    before = read_function(function, own_defaults=True)
    for number in range(1000):
        function(number)
    assert read_function(function, own_defaults=True).code == before.code


# --- namespaces that are no module's -------------------------------------------------------------


def load_tenants(tmp_path, *tenants):
    """Run one file for each tenant; return the function of each."""
    file = tmp_path / "tenant.py"
    file.write_text("def load():\n    return TENANT\n")
    return [runpy.run_path(str(file), {"TENANT": one})["load"] for one in tenants]


def test_functions_of_one_file_that_ran_twice_are_told_apart(cached, tmp_path):
    one, other = map(cached, load_tenants(tmp_path, "a", "b"))
    assert [one(), other(), one(), other()] == ["a", "b", "a", "b"]


def test_one_text_that_is_executed_in_two_namespaces_makes_two_functions(cached, world):
    found = []
    for number in (1, 2):
        names = {"__name__": __name__, "memoize": cached}
        exec("@memoize\ndef get():\n    return NUMBER", names)
        names["NUMBER"] = number  # set after the function was made
        found.append(names["get"])
    assert [get() for get in found * 2] == [1, 2, 1, 2]
    assert fetches(world) == 1  # the second one is not stored


def test_a_function_that_closes_over_one_of_another_namespace_is_told_apart(cached, tmp_path):
    def wrap(load):
        def call():
            return load()

        return cached(call)

    one, other = map(wrap, load_tenants(tmp_path, "a", "b"))
    assert [one(), other()] == ["a", "b"]


def test_in_a_shared_store_such_a_function_needs_a_name(shared, make_world, store, tmp_path):
    one, other = load_tenants(tmp_path, "a", "b")
    assert [shared(one)(), shared(other)()] == ["a", "b"]
    assert shared.world.cache.refusals() == {"key": 2}
    world = make_world(store=store)
    for load in (one, other):
        named = memoize(lambda: world.cache, name=f"tenant {load()}")(load)
        assert [named(), named()] == [load()] * 2
    assert fetches(world) == 2


def test_a_wrapper_of_another_module_has_a_module(cached):
    @functools.wraps(make_price)
    def wrapper(number):
        return number

    wrapper.__module__ = "elsewhere"
    assert not read_function(wrapper, own_defaults=True).opaque
