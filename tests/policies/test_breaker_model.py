"""The breaker against a model of it that is too simple to be wrong: no bucket, no counter, no lock.

The model remembers every call and decides from the list of them.
"""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from om_plugins.policies.breaker import Breaker

WINDOW = 6
MIN_CALLS = 4
COOLDOWN_S = 5.0
LONGEST_S = 20.0
PERMITS = 2
SLOW_S = 1.0

Begun = tuple[int, int, bool, int] | None
"""A call that was let in: its number, its permit, whether it is a probe, and in which time."""


class Model:
    """What a breaker over the last calls should do."""

    def __init__(self) -> None:
        self.state = "closed"
        self.forced: str | None = None
        self.calls: list[tuple[bool, bool]] = []
        self.age = 0
        self.wait_s = COOLDOWN_S
        self.until = 0.0
        self.closed_at = float("-inf")
        self.last_s = 0.0
        self.in_a_row = 0
        self.out: dict[int, float] = {}
        self.succeeded = 0

    def opens(self) -> bool:
        failed = sum(failed for failed, _ in self.calls)
        slow = sum(slow for _, slow in self.calls)
        return len(self.calls) >= MIN_CALLS and (
            failed >= 0.5 * len(self.calls) or slow >= 0.9 * len(self.calls)
        )

    def open(self, now: float) -> None:
        if self.state == "closed" and now - self.closed_at >= max(30.0, self.last_s):
            self.in_a_row = 0
        self.last_s = min(COOLDOWN_S * 2**self.in_a_row, LONGEST_S)
        self.in_a_row += 1
        self.shut(now + self.last_s)

    def shut(self, until: float) -> None:
        self.state, self.until, self.age = "open", until, self.age + 1
        self.out, self.succeeded = {}, 0

    def close(self, now: float, calls: int = 0) -> None:
        self.state, self.closed_at, self.age = "closed", now, self.age + 1
        self.calls = [(False, False)] * calls
        self.out, self.succeeded = {}, 0

    def lets_in(self, now: float) -> bool:
        if self.state == "closed":
            return True
        if self.forced or now < self.until:
            return False
        self.out = {call: lost for call, lost in self.out.items() if now < lost}
        return len(self.out) + self.succeeded < PERMITS

    def ended(self, call: int, age: int, probe: bool, now: float, failed: bool, slow: bool) -> None:
        if age != self.age:
            return  # of another time
        if not probe:
            self.calls = [*self.calls, (failed, slow)][-WINDOW:]
            if (failed or slow) and self.opens() and not self.forced:
                self.open(now)
            return
        self.out.pop(call, None)
        if failed or slow:
            self.open(now)
            return
        self.succeeded += 1
        if self.succeeded == PERMITS:
            self.close(now, PERMITS)


class BreakerMachine(RuleBasedStateMachine):
    calls = Bundle("calls")

    def __init__(self) -> None:
        super().__init__()
        self.now = 100.0
        self.number = 0
        self.model = Model()
        self.breaker = Breaker(
            failure_rate=0.5, slow_s=SLOW_S, slow_rate=0.9, min_calls=MIN_CALLS,
            window_calls=WINDOW, half_open_permits=PERMITS, cooldown_s=COOLDOWN_S,
            cooldown_max_s=LONGEST_S,
        )  # fmt: skip

    @rule(seconds=st.sampled_from([0.1, 1.0, 4.9, 5.0, 10.0, 20.0, 31.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(target=calls)
    def a_call_begins(self) -> Begun:
        return self.begin()

    def begin(self) -> Begun:
        permit = self.breaker.permit or self.breaker.enter(self.now)
        assert bool(permit) == self.model.lets_in(self.now)
        if not permit:
            return None
        self.number += 1
        probe = self.model.state != "closed"
        if probe:
            self.model.out[self.number] = self.now + COOLDOWN_S
        return self.number, permit, probe, self.model.age

    @rule(call=consumes(calls), failed=st.booleans(), slow=st.booleans())
    def a_call_ends(self, call: Begun, failed: bool, slow: bool) -> None:
        self.end(call, failed, slow)

    def end(self, call: Begun, failed: bool, slow: bool) -> None:
        if call is not None:
            number, permit, probe, age = call
            self.breaker.leave(permit, self.now, SLOW_S if slow else 0.0, failed=failed)
            self.model.ended(number, age, probe, self.now, failed, slow)

    @rule(count=st.integers(1, WINDOW), failed=st.booleans(), slow=st.booleans())
    def calls_come_and_end_at_once(self, count: int, failed: bool, slow: bool) -> None:
        for _ in range(count):
            self.end(self.begin(), failed, slow)
            self.both_say_the_same()

    @rule(call=consumes(calls))
    def a_call_ends_neutrally(self, call: Begun) -> None:
        if call is not None:
            self.breaker.release(call[1], self.now)
            if call[3] == self.model.age:
                self.model.out.pop(call[0], None)

    @rule(state=st.sampled_from(["open", "closed", None]))
    def an_operator_decides(self, state: str | None) -> None:
        changed = self.breaker.force(state)  # type: ignore[arg-type]
        model = self.model
        assert changed == (state != model.forced)
        if not changed:
            return
        before, model.forced = model.forced, state
        model.in_a_row = 0
        if state == "open":
            model.shut(float("-inf"))
        elif state == "closed" and model.state != "closed":
            model.close(float("-inf"))
        elif before == "open":
            model.until = float("-inf")

    @invariant()
    def both_say_the_same(self) -> None:
        view = self.breaker.view(self.now)
        model = self.model
        if model.state == "closed":
            assert view.state == "closed"
            assert (view.calls, view.failures, view.slow) == (
                len(model.calls),
                sum(failed for failed, _ in model.calls),
                sum(slow for _, slow in model.calls),
            )
        else:
            assert view.state == ("open" if model.forced or self.now < model.until else "half-open")
            assert view.cooldown_s == self.model.last_s
        assert view.forced == model.forced

    @invariant()
    def no_more_probes_are_out_than_may_be(self) -> None:
        alive = [lost for lost in self.model.out.values() if self.now < lost]
        assert len(alive) <= PERMITS


BreakerMachine.TestCase.settings = settings(max_examples=100, stateful_step_count=40, database=None)
TestBreaker = BreakerMachine.TestCase
