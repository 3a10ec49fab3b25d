"""What is noted when code looks at a request, and what a layer in front can keep."""

from __future__ import annotations

import copy
import json
import sys
import types

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from werkzeug.datastructures import EnvironHeaders

from om_plugins.core.inputs import (
    EnvironReader,
    IncomparableInput,
    InputRules,
    KnownReader,
)
from om_plugins.core.observed import (
    ObservedEnviron,
    ObservedInputs,
    leave_out_renewal,
    name_in_front,
)

SECRET = b"a secret for tests"


def environ(**more):
    return {
        "REQUEST_METHOD": "GET", "wsgi.url_scheme": "https", "HTTP_HOST": "a.example",
        "PATH_INFO": "/p", "QUERY_STRING": "q=1", "REMOTE_ADDR": "1.1.1.1", **more,
    }  # fmt: skip


class Reader(EnvironReader):
    """Reads a session as well."""

    def __init__(self, brought, session):
        super().__init__(brought)
        self.session = session

    def read(self, name):
        if name.startswith("session:"):
            value = self.session.get(name.removeprefix("session:"), b"")
            if value is None:
                raise IncomparableInput("a value of the type what cannot be compared")
            return value
        return super().read(name)


def observe(session=None, rules=None, **more):
    return ObservedInputs(
        Reader(environ(**more), session or {}), rules or InputRules(lambda: SECRET)
    )


def watch(**more):
    plain = environ(**more)
    inputs = ObservedInputs(EnvironReader(plain), InputRules(lambda: SECRET))
    return ObservedEnviron(plain, inputs), inputs, plain


# --- noting ---------------------------------------------------------------------------------------


def test_a_look_is_noted_once_with_its_value_and_its_place():
    inputs = observe(HTTP_X_A="1")
    for _ in range(2):
        inputs.note("header:x-a")
    inputs.note("cookie:b")
    inputs.note("")
    assert inputs.names() == ("cookie:b", "header:x-a")
    assert inputs.counted["header:x-a"] == EnvironReader({"HTTP_X_A": "1"}).read("header:x-a")
    assert inputs.counted["cookie:b"] == b""
    module, function, line = inputs.where["header:x-a"]
    assert (module, function) == (
        __name__,
        test_a_look_is_noted_once_with_its_value_and_its_place.__name__,
    )
    assert line > 0
    assert inputs.refused == ""


def test_two_requests_share_nothing():
    one, other = observe(), observe()
    one.note("header:x-a")
    one.refuse("all")
    one.digest(("header:x-b",))
    assert (other.names(), other.where, other.refused, other.known) == ((), {}, "", {})
    assert other.parameters == frozenset()


def test_a_value_that_cannot_be_compared_refuses_the_response():
    inputs = observe({"user": None})
    inputs.note("session:user")
    assert "cannot be compared" in inputs.refused
    assert inputs.names() == ("session:user",)
    assert inputs.brings("session:user")


def test_the_first_refusal_stays():
    inputs = observe()
    inputs.refuse("all headers")
    inputs.refuse("flashed messages")
    assert inputs.refused == "all headers"
    assert inputs.where["all headers"][0] == __name__


def test_brings_and_read_note_nothing():
    inputs = observe({"user": b"1"}, HTTP_X_A="1")
    assert inputs.brings("header:x-a")
    assert inputs.brings("session:user")
    assert not inputs.brings("header:x-b")
    assert inputs.read("header:x-b") == b""
    assert inputs.names() == ()


def test_what_is_handed_out_counts_when_no_look_follows():
    inputs = observe(HTTP_ACCEPT="text/html")
    inputs.hand_out("header:accept")
    inputs.hand_out("header:x-a")
    inputs.take_back("header:x-a")
    inputs.take_back("header:x-b")
    assert inputs.counted == {}
    assert inputs.names() == ("header:accept",)
    assert inputs.counted["header:accept"] == inputs.read("header:accept")


def test_what_is_handed_out_again_was_not_looked_at_before():
    for again in (
        lambda inputs: inputs.hand_out("header:x-a"),
        lambda inputs: inputs.settle_one("header:x-a"),
    ):
        inputs = observe()
        inputs.hand_out("header:x-b")
        inputs.hand_out("header:x-a")
        again(inputs)
        inputs.take_back("header:x-a")
        inputs.take_back("header:x-b")
        assert inputs.names() == ("header:x-a",)


def test_the_query_as_a_whole_is_all_parameters():
    inputs = observe()
    inputs.hand_out("query")
    inputs.settle()
    assert inputs.parameters == {None}
    assert inputs.names() == ("query",)
    inputs = observe()
    inputs.note_query()
    assert (inputs.parameters, inputs.names()) == ({None}, ("query",))


# --- known readers --------------------------------------------------------------------------------


def make_module(name, source):
    module = types.ModuleType(name)
    exec(compile(source, name, "exec"), module.__dict__)
    return module


LOOKS = """
def look(inputs, name="header:x-a"):
    inputs.note(name)
def refuse(inputs):
    inputs.refuse("all")
def look_from_inside(inputs):
    def inner():
        inputs.note("header:x-a")
    inner()
"""
CALLS = """
def call(function, *arguments):
    return function(*arguments)
"""


def known(function="look", **options):
    row = KnownReader("it keeps it to itself", **options)
    return InputRules(lambda: SECRET, readers={("log.access", function): row})


def test_a_known_reader_keeps_what_it_sees_to_itself():
    module = make_module("log.access", LOOKS)
    inputs = observe(rules=known())
    module.look(inputs)
    assert inputs.names() == ()
    assert list(inputs.known) == ["header:x-a"]
    assert inputs.where == {}
    inputs.note("header:x-a")  # and then code looks that is not known
    assert inputs.names() == ("header:x-a",)


@pytest.mark.parametrize("name", ["log.access2", "log", "my.log.access", "LOG.access"])
def test_a_function_of_the_same_name_elsewhere_is_not_known(name):
    inputs = observe(rules=known())
    make_module(name, LOOKS).look(inputs)
    assert inputs.names() == ("header:x-a",)


def test_another_function_of_the_module_or_one_inside_it_is_not_known():
    module = make_module("log.access", LOOKS)
    for rules, function in (
        (known("other"), "look"),
        (known("look_from_inside"), "look_from_inside"),
    ):
        inputs = observe(rules=rules)
        getattr(module, function)(inputs)
        assert inputs.names() == ("header:x-a",)


def test_a_refusal_by_a_known_reader_is_none():
    module = make_module("log.access", LOOKS)
    inputs = observe(rules=known("refuse"))
    module.refuse(inputs)
    assert inputs.refused == ""
    inputs = observe(rules=known("look"))
    module.refuse(inputs)
    assert inputs.refused == "all"


@pytest.mark.parametrize(
    ("caller", "counts"),
    [
        ("limiter", False),
        ("limiter.core", False),
        ("limiters", True),
        ("lim", True),
        ("shop", True),
    ],
)
def test_only_the_module_that_is_named_may_call_a_known_reader(caller, counts):
    module = make_module("log.access", LOOKS)
    inputs = observe(rules=known(callers="limiter"))
    make_module(caller, CALLS).call(module.look, inputs)
    assert inputs.names() == (("header:x-a",) if counts else ())


def test_a_module_that_passes_a_look_on_is_neither_reader_nor_caller():
    module = make_module("log.access", LOOKS)
    inputs = observe(rules=known(callers="limiter"))
    local = make_module("werkzeug.local", CALLS)
    make_module("limiter", CALLS).call(local.call, module.look, inputs)
    assert inputs.names() == ()
    inputs = observe(rules=known())
    local.call(inputs.note, "header:x-a")
    assert inputs.where["header:x-a"][0] == __name__


def test_a_known_reader_may_apply_to_some_requests_only():
    module = make_module("log.access", LOOKS)
    rules = known(applies=lambda inputs: not inputs.brings("session:_id"))
    for session, counts in (({}, False), ({"_id": b"1"}, True)):
        inputs = observe(session, rules=rules)
        module.look(inputs)
        assert bool(inputs.names()) is counts


def test_the_place_of_a_look_is_in_the_application():
    inputs = observe()
    make_module("flask.sessions", LOOKS).look(inputs)
    assert inputs.where["header:x-a"][0] == __name__
    assert inputs.where["header:x-a"][1] == sys._getframe().f_code.co_name


# --- digests --------------------------------------------------------------------------------------


def test_a_digest_is_that_of_the_values_and_is_no_look():
    inputs = observe(HTTP_X_A="1")
    assert inputs.digest(()) == ""
    found = inputs.digest(("header:x-a", "header:x-b"))
    assert inputs.names() == ()
    reader = EnvironReader({"HTTP_X_A": "1"})
    assert found == inputs.rules.digest([reader.read("header:x-a"), reader.read("header:x-b")])
    assert found == inputs.digest(("header:x-a", "header:x-b"))
    assert found != observe(HTTP_X_A="2").digest(("header:x-a", "header:x-b"))
    other = observe(HTTP_X_A="1", rules=InputRules(lambda: b"other"))
    assert found != other.digest(("header:x-a", "header:x-b"))


@pytest.mark.parametrize("looked_before", [False, True])
def test_there_is_no_digest_of_what_cannot_be_compared(looked_before):
    inputs = observe({"user": None}, HTTP_X_A="1")
    if looked_before:  # by a hook, so its value counts as absent
        inputs.note("session:user")
    for _ in range(2):
        assert inputs.digest(("header:x-a", "session:user")) is None
        assert inputs.digest(("session:user",)) is None
    assert inputs.digest(("header:x-a",))
    assert bool(inputs.refused) is looked_before


def test_a_refusal_for_another_reason_leaves_the_digest():
    inputs = observe()
    inputs.refuse("flashed messages")
    assert inputs.digest(("header:x-a",)) == observe().digest(("header:x-a",))
    assert inputs.refused == "flashed messages"


# --- the environ ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("look", "names"),
    [
        (lambda e: e["REMOTE_ADDR"], ("address",)),
        (lambda e: e.get("HTTP_X_A"), ("header:x-a",)),
        (lambda e: e.get("HTTP_X_A", 1), ("header:x-a",)),
        (lambda e: "HTTP_X_A" in e, ("header:x-a",)),
        (lambda e: e.setdefault("HTTP_X_A", 1), ("header:x-a",)),
        (lambda e: e.pop("HTTP_X_A", 1), ("header:x-a",)),
        (lambda e: e.pop("HTTP_COOKIE", 1), ("cookies",)),
        (lambda e: e.__delitem__("REMOTE_ADDR"), ("address",)),
        (lambda e: e.get("CONTENT_TYPE"), ("header:content-type",)),
        (lambda e: e.get("x.own"), ("environ:x.own",)),
        (lambda e: (e["PATH_INFO"], e["HTTP_HOST"], e.get("REMOTE_USER")), ()),
        (lambda e: e.get(("a", "tuple")), ()),
        (lambda e: e.__setitem__("x.own", 1), ()),
        (lambda e: e.update({"x.own": 1}, b=2), ()),
        (lambda e: e.__ior__({"x.own": 1}), ()),
        (lambda e: e.clear(), ()),
        (lambda e: bool(e), ()),
        (lambda e: EnvironHeaders(e).get("x-A"), ("header:x-a",)),
    ],
)
def test_a_look_at_one_variable_is_noted(look, names):
    watched, inputs, _ = watch()
    look(watched)
    assert (inputs.names(), inputs.refused) == (names, "")


def match(watched):
    match watched:
        case {"HTTP_X_A": value}:
            return value


@pytest.mark.parametrize(
    "look",
    [
        list, dict, len, repr, str, sorted, json.dumps, copy.copy, copy.deepcopy,
        lambda e: {**e}, lambda e: [*e], lambda e: list(reversed(e)), lambda e: e.keys(),
        lambda e: e.values(), lambda e: e.items(), lambda e: e.copy(), lambda e: e.popitem(),
        lambda e: e == {}, lambda e: e == {}, lambda e: e != {}, lambda e: e != {},
        lambda e: e | {}, lambda e: {} | e, lambda e: dict(e, a=1), lambda e: {}.update(e),
        lambda e: set(e), lambda e: max(e), lambda e: next(iter(e)), lambda e: f"{e}",
        lambda e: dict(EnvironHeaders(e)), lambda e: list(EnvironHeaders(e)),
        lambda e: EnvironHeaders(e).to_wsgi_list(), lambda e: str(EnvironHeaders(e)),
    ],
)  # fmt: skip
def test_a_look_at_everything_is_refused(look):
    watched, inputs, _ = watch()
    look(watched)
    assert inputs.refused


def test_a_pattern_is_a_look_at_what_it_names():
    watched, inputs, _ = watch(HTTP_X_A="1")
    assert match(watched) == "1"
    assert inputs.names() == ("header:x-a",)


@pytest.mark.parametrize("name", ["QUERY_STRING", "RAW_URI", "REQUEST_URI"])
def test_a_look_at_the_query_is_one_at_all_parameters(name):
    watched, inputs, _ = watch()
    watched.get(name)
    assert inputs.parameters == {None}
    watched, inputs, _ = watch()
    watched.get("PATH_INFO")
    assert inputs.parameters == frozenset()


def test_an_environ_cannot_be_a_key():
    watched, _, _ = watch()
    with pytest.raises(TypeError):
        hash(watched)
    assert isinstance(watched, dict)


NAMES = st.sampled_from(["HTTP_X_A", "HTTP_COOKIE", "REMOTE_ADDR", "x.own", "PATH_INFO", "b"])
VALUES = st.sampled_from(["", "1", None, 2])


class AsADict(RuleBasedStateMachine):
    """An observed environ answers as a plain dict does; what is written reaches the original."""

    @initialize()
    def begin(self):
        self.original = environ(HTTP_X_A="1")
        self.model = dict(self.original)
        inputs = ObservedInputs(EnvironReader(dict(self.original)), InputRules(lambda: SECRET))
        self.watched = ObservedEnviron(self.original, inputs)

    def both(self, act):
        """Do it to both; the same value or the same error must come of it."""

        def run(one):
            try:
                return act(one)
            except (KeyError, TypeError) as error:
                return type(error), error.args

        assert run(self.watched) == run(self.model)

    @rule(name=NAMES, default=VALUES)
    def look(self, name, default):
        self.both(lambda e: (e.get(name), e.get(name, default), name in e))
        self.both(lambda e: e[name])

    @rule(name=NAMES, value=VALUES)
    def write(self, name, value):
        self.both(lambda e: e.__setitem__(name, value))

    @rule(name=NAMES, value=VALUES)
    def set_default(self, name, value):
        self.both(lambda e: e.setdefault(name, value))
        self.both(lambda e: e.setdefault(name))

    @rule(name=NAMES)
    def delete(self, name):
        self.both(lambda e: e.__delitem__(name))

    @rule(name=NAMES, value=VALUES)
    def take(self, name, value):
        self.both(lambda e: e.pop(name, value))
        self.both(lambda e: e.pop(name))

    @rule()
    def take_any(self):
        self.both(lambda e: e.popitem())

    @rule(changes=st.dictionaries(NAMES, VALUES), way=st.integers(0, 3))
    def update(self, changes, way):
        ways = (
            lambda e: e.update(changes),
            lambda e: e.update(list(changes.items())),
            lambda e: e.update(kwarg=1),
            lambda e: e.__ior__(changes) and None,
        )
        self.both(ways[way])

    @rule()
    def clear(self):
        self.both(lambda e: e.clear())

    @rule(other=st.dictionaries(NAMES, VALUES))
    def combine(self, other):
        self.both(lambda e: (e | other, other | e, e == other, e != other))

    @rule()
    def copy(self):
        self.both(lambda e: [e.copy(), {**e}, dict(e), copy.copy(e), copy.deepcopy(e)])
        assert type(self.watched.copy()) is dict
        assert type(copy.copy(self.watched)) is dict

    @rule()
    def read_all(self):
        self.both(lambda e: (list(e), len(e), list(reversed(e)), list(e.keys()), bool(e), repr(e)))
        self.both(lambda e: (list(e.values()), list(e.items())))

    @rule(wrong=st.sampled_from([[], {}]))
    def ask_for_no_key(self, wrong):
        self.both(lambda e: e.get(wrong))
        self.both(lambda e: wrong in e)

    @invariant()
    def the_original_has_what_was_written(self):
        if hasattr(self, "watched"):
            assert dict.items(self.watched) == self.original.items() == self.model.items()


TestAsADict = AsADict.TestCase
TestAsADict.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)


# --- in front -------------------------------------------------------------------------------------


def in_front(*names, seen=None, session=None, cookie="s", in_cookie=False, changed=False, **more):
    inputs = observe(session, **more)
    brought = environ(**more)
    inputs.address, inputs.session_cookie = inputs.rules.read_address(brought), cookie
    inputs.session_in_cookie = in_cookie
    inputs.session_changed, inputs.cookies = changed, brought.get("HTTP_COOKIE", "")
    for name in names:
        inputs.count(name)
    seen = brought if seen is None else environ(**seen)
    found = name_in_front(inputs, EnvironReader(seen), inputs.rules.read_address(seen))
    return (found.names, found.refused), inputs


def test_headers_and_cookies_can_be_compared_in_front():
    names = ("accept:accept:quality:[]", "cookie:a", "cookies", "header:x-a", "vary:x-b")
    assert in_front(*reversed(names[1:]))[0] == (tuple(sorted(names[1:])), "")
    assert in_front()[0] == ((), "")


@pytest.mark.parametrize("name", ["session:user", "session:_id"])
def test_a_session_is_its_cookie(name):
    found = in_front(name, session={"user": b"1"}, in_cookie=True, HTTP_COOKIE="s=1")
    assert found[0] == (("cookie:s",), "")
    names, refusal = in_front(name, session={"user": b"1"}, cookie="")[0]
    assert names == ()
    assert "session" in refusal


def test_the_cookie_of_a_session_on_the_server_tells_only_that_there_is_none():
    names, refusal = in_front("session:user", session={"user": b"1"}, HTTP_COOKIE="s=1")[0]
    assert (names, "server" in refusal) == ((), True)
    assert in_front("session:user", HTTP_COOKIE="other=1")[0] == (("cookie:s",), "")


def test_the_cookie_of_a_renewed_session_is_left_out():
    _, inputs = in_front()
    renewed, other = ("Set-Cookie", "s=2; Path=/"), ("Set-Cookie", "s2=2; Path=/")
    kept = [("X-A", "s=1"), other]
    assert leave_out_renewal([renewed, *kept], inputs) == kept
    assert leave_out_renewal([("set-cookie", "s="), *kept], inputs) == kept
    inputs.session_changed = True
    assert leave_out_renewal([renewed], inputs) == [renewed]
    _, inputs = in_front(cookie="")
    assert leave_out_renewal([("Set-Cookie", "=1")], inputs) == [("Set-Cookie", "=1")]


@pytest.mark.parametrize("name", ["address", "environ:x.own", "environ:REMOTE_PORT"])
def test_what_only_the_application_sees_is_refused_in_front(name):
    names, refusal = in_front("header:x-a", name)[0]
    assert (names, name in refusal) == ((), True)


@pytest.mark.parametrize(
    ("name", "seen"),
    [
        ("header:x-a", {"HTTP_X_A": "other"}),
        ("header:x-a", {}),
        ("cookie:a", {"HTTP_X_A": "1", "HTTP_COOKIE": "a=2"}),
        ("cookies", {"HTTP_COOKIE": "a=1; b=2"}),
        ("vary:x-a", {"HTTP_X_A": "2"}),
    ],
)
def test_what_middleware_changed_is_refused_in_front(name, seen):
    (names, refusal), _ = in_front(name, seen=seen, HTTP_X_A="1", HTTP_COOKIE="a=1")
    assert (names, refusal) == ((), f"middleware changed {name}")


@pytest.mark.parametrize(
    "seen",
    [{"PATH_INFO": "/q"}, {"HTTP_HOST": "b.example"}, {"REMOTE_USER": "ann"}, {"QUERY_STRING": ""}],
)
def test_another_address_or_identity_is_refused_in_front(seen):
    names, refusal = in_front(seen=seen)[0]
    assert (names, "address" in refusal) == ((), True)


def test_a_changed_session_and_an_earlier_refusal_are_refused_in_front():
    assert in_front(changed=True)[0] == ((), "the session was changed")
    _, inputs = in_front()
    inputs.refuse("all headers")
    named = name_in_front(inputs, EnvironReader(environ()), inputs.address)
    found = named.names, named.refused
    assert found == ((), "all headers")
