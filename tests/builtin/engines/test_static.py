"""The static engine: one answer, a copy for each caller."""

from __future__ import annotations

import pytest

from om_plugins.builtin.engines.static import StaticEngine
from om_plugins.types import Answer, Call


def test_it_answers_with_its_payload():
    assert StaticEngine("s", "resting").call(Call()) == "resting"
    assert StaticEngine("s", None).call(Call()).payload is None


def test_no_caller_can_change_what_the_next_one_gets():
    engine = StaticEngine("s", {"links": ["/status"]})
    engine.call(Call())["links"].append("/evil")
    assert engine.call(Call()) == {"links": ["/status"]}


def test_a_function_makes_the_payload_from_the_call():
    engine = StaticEngine("s", lambda call: {"you asked": call.payload})
    assert engine.call(Call("why")) == {"you asked": "why"}


def test_a_ready_made_answer_is_refused_with_the_way_out():
    with pytest.raises(TypeError, match="pass its payload"):
        StaticEngine("s", Answer("x"))


def test_it_is_local_and_idempotent():
    traits = StaticEngine("s", "x").traits
    assert (traits.local, traits.idempotent, traits.streaming) == (True, True, False)


async def later(call):
    return "late"


def chunks(call):
    yield "a"


class AsyncObject:
    async def __call__(self, call):
        return "late"


@pytest.mark.parametrize(
    ("payload", "why"),
    [
        (later, "async"),
        (AsyncObject(), "async"),
        (chunks, "write return, not yield"),
        (lambda: "x", "must take 1 argument"),
        (lambda call, more: "x", "must take 1 argument"),
    ],
)
def test_a_function_that_makes_no_payload_is_refused(payload, why):
    with pytest.raises(TypeError, match=f"engine 's': the payload is a function.*{why}"):
        StaticEngine("s", payload)
