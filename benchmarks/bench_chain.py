"""Measures a successful call to a chain with all defaults, and other libraries in the same run.

Only the chain has all parts: a total deadline, retries with a budget, a breaker on rates, fallback
and health. The name of another row says which of these parts it has.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from measure import alternate

from om_plugins.builtin.engines.callable import CallableEngine
from om_plugins.builtin.engines.static import StaticEngine
from om_plugins.chains.chain import ChainPolicy, EngineChain
from om_plugins.core.clock import SystemClock
from om_plugins.types import EngineSpec

PAYLOAD = {"question": "how much memory is free?"}
ANSWER = {"answer": "3.1 GB"}


def answer(payload: object) -> object:
    """The bare call."""
    return ANSWER


def make_chain(*engines: object) -> EngineChain:
    chain = EngineChain("bench", ChainPolicy(), clock=SystemClock())
    for tier, engine in enumerate(engines, 1):
        chain.add(EngineSpec(engine, "bench", tier))
    return chain


def make_ours() -> dict[str, Callable[[object], object]]:
    one = CallableEngine("one", answer)
    return {
        "ours: one engine, all defaults": make_chain(one).call,
        "ours: one engine, all defaults and a bulkhead": make_chain(
            CallableEngine("full", answer, max_concurrency=64)
        ).call,
        "ours: three tiers, all defaults": make_chain(
            one, CallableEngine("two", answer), StaticEngine("static", "resting")
        ).call,
    }


def make_peers() -> dict[str, Callable[[object], object]]:
    """Return the cases of the installed libraries."""
    found: dict[str, Callable[[object], object]] = {}
    try:
        import nopanic
    except ImportError:
        pass
    else:
        found["nopanic: deadline"] = _add_deadline(nopanic.deadline, answer)
        breaker = nopanic.circuit_breaker(slow_call_duration=5.0)
        retry = nopanic.retry(4, budget=nopanic.RetryBudget())
        found["nopanic: retry, budget, breaker"] = nopanic.compose(retry, breaker)(answer)
        found["nopanic: deadline, retry, budget, breaker"] = _add_deadline(
            nopanic.deadline, nopanic.compose(retry, breaker)(answer)
        )
    try:
        import pybreaker
    except ImportError:
        pass
    else:
        found["pybreaker: breaker"] = pybreaker.CircuitBreaker()(answer)
    try:
        import pyresilience as pr
    except ImportError:
        pass
    else:
        found["pyresilience: retry, budget, breaker"] = pr.resilient(
            retry=pr.RetryConfig(max_attempts=4),
            retry_budget=pr.RetryBudgetConfig(),
            circuit_breaker=pr.CircuitBreakerConfig(sliding_window_size=100, minimum_calls=10),
        )(answer)
    try:
        import stamina
    except ImportError:
        pass
    else:
        found["stamina: retry with a time limit"] = stamina.retry(
            on=Exception, attempts=4, timeout=10
        )(answer)
    try:
        import tenacity
    except ImportError:
        pass
    else:
        found["tenacity: retry with a time limit"] = tenacity.retry(
            stop=tenacity.stop_after_attempt(4) | tenacity.stop_after_delay(10),
            wait=tenacity.wait_random_exponential(max=4),
        )(answer)
    return found


def _add_deadline(
    deadline: Callable[..., object], function: Callable[[object], object]
) -> Callable[[object], object]:
    def call(payload: object) -> object:
        with deadline(10.0):  # type: ignore[attr-defined]
            return function(payload)

    return call


def make_litellm_router() -> dict[str, Callable[[object], object]]:
    """Return the case of LiteLLM's router with a mock model, if installed.

    It is slow, so it is measured separately.
    """
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # otherwise the import downloads one
    try:
        import litellm
    except ImportError:
        return {}
    model = {"model": "openai/none", "api_key": "none", "mock_response": ANSWER["answer"]}
    router = litellm.Router(
        model_list=[{"model_name": "bench", "litellm_params": model}], num_retries=3, timeout=10
    )
    messages = [{"role": "user", "content": PAYLOAD["question"]}]
    return {
        "litellm: router, mock model": lambda payload: router.completion(
            model="bench", messages=messages
        )
    }


def _bind_payload(function: Callable[[object], object]) -> Callable[[], object]:
    return lambda: function(PAYLOAD)


def measure(repeats: int = 30) -> dict[str, float]:
    """Measure microseconds per call: the minimum over the rounds, in which all take turns."""
    subjects = {"bare call": answer, **make_ours(), **make_peers()}
    costs = alternate(
        {name: _bind_payload(function) for name, function in subjects.items()}, repeats
    )
    slow = {name: _bind_payload(function) for name, function in make_litellm_router().items()}
    return costs | alternate(slow, min(repeats, 10), number=20)


if __name__ == "__main__":
    for subject, cost in measure().items():
        print(f"{subject:<44} {cost:8.2f} µs")
