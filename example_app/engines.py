"""The assistant's three tiers.

Tier 1 (*optimized*) is an OpenAI-compatible service: the analyst or any other. Tier 2
(*integrated*) answers the same questions in this process, one at a time. Tier 3 (*local*) gives
fixed guidance, which needs no other part.
"""

from __future__ import annotations

from collections.abc import Mapping

from om_plugins import Answer, Call, EngineTraits, OpenAIEngine, OpenManager
from om_plugins.builtin.engines.static import StaticEngine
from om_plugins.errors import InvalidRequest, Transient

from .analyst.server import MODEL
from .config import DemoConfig
from .fault_injection import FaultInjector
from .questions import Query, answer, understand
from .supervisor import Supervisor
from .system import Sampler, Snapshot

__all__ = ["CHAIN", "add_engines", "read_messages"]

CHAIN = "assistant"
_MAX_MESSAGES = 24
_MAX_CHARS = 2000

_GUIDANCE = {
    "en": "The assistant cannot read the machine right now. The panels on this page may still "
    "show it; on the machine itself, `free -h` shows memory, `df -h` disks, `top` processes "
    "and `uptime` the load.",
    "ko": "지금은 도우미가 서버를 읽을 수 없습니다. 이 페이지의 패널에는 아직 "
    "보일 수 있고, 서버에서 직접 `free -h`는 메모리, `df -h`는 디스크, "
    "`top`은 프로세스, `uptime`은 부하를 보여 줍니다.",
}


def add_engines(
    om: OpenManager,
    config: DemoConfig,
    supervisor: Supervisor,
    faults: FaultInjector,
    sampler: Sampler,
) -> None:
    """Add the three tiers to the chain ``assistant``."""
    om.add_engine(AnalystEngine(config, supervisor, sampler), chain=CHAIN, tier=1)

    @om.engine("in-process", chain=CHAIN, tier=2, local=True, idempotent=True)
    def answer_in_process(call: Call) -> dict[str, str]:
        if faults.is_on("analysis"):
            raise RuntimeError("the in-process analysis is broken on the fault panel")
        now = sampler.snapshot(max_age_s=0.5)
        question = read_messages(call.payload)[-1]["content"]
        return {"answer": answer(understand(question, {p.name for p in now.processes}), now)}

    om.add_engine(StaticEngine("guidance", _give_guidance), chain=CHAIN, tier=3)


def _give_guidance(call: Call) -> dict[str, str]:
    language = understand(read_messages(call.payload)[-1]["content"]).language
    return {"answer": _GUIDANCE[language]}


def read_messages(payload: object) -> list[dict[str, str]]:
    """Return the messages of the user and the assistant in a payload, limited in number and length.

    Raises:
        InvalidRequest: the payload has no question.
    """
    given: object = [payload]
    if isinstance(payload, Mapping):
        question = payload.get("question")
        given = payload.get("messages") or [{"role": "user", "content": question}]
    messages = [
        {"role": m["role"], "content": m["content"][:_MAX_CHARS]}
        for m in (given[-_MAX_MESSAGES:] if isinstance(given, list) else ())
        if isinstance(m, Mapping)
        and m.get("role") in ("user", "assistant")
        and isinstance(m.get("content"), str)
        and m["content"].strip()
    ]
    if not messages or messages[-1]["role"] != "user":
        raise InvalidRequest("a payload needs 'question', or 'messages' that end with one")
    return messages


class AnalystEngine:
    """Tier 1: an :class:`OpenAIEngine` with the current address of the service.

    The analyst may have another port after a restart; a new engine is then made. Another service
    gets the current readings in a system message.

    Args:
        config: the address of another service, if one is set.
        supervisor: knows the analyst's port.
        sampler: reads the machine.
    """

    def __init__(self, config: DemoConfig, supervisor: Supervisor, sampler: Sampler) -> None:
        self.name = config.llm_model or "analyst"
        self.traits = EngineTraits(streaming=True, idempotent=True, cancellable=True)
        self._config = config
        self._supervisor = supervisor
        self._sampler = sampler
        self._engine: tuple[str, OpenAIEngine] | None = None

    def call(self, call: Call) -> Answer:
        """Ask the service.

        Raises:
            EngineError: it did not answer.
        """
        messages = read_messages(call.payload)
        if self._config.llm_url:
            readings = _describe_readings(self._sampler.snapshot(max_age_s=0.5))
            messages = [{"role": "system", "content": readings}, *messages]
        inner = Call(
            {"messages": messages},
            call.chain,
            headers=call.headers,
            method=call.method,
            stream=call.stream,
            idempotency_key=call.idempotency_key,
            deadline=call.deadline,
        )
        inner.attempt, inner.tier = call.attempt, call.tier
        inner.attempt_deadline = call.attempt_deadline
        call.on_cancel(inner.cancel)
        return self._find_engine().call(inner)

    def probe(self, call: Call) -> None:
        """Raise an error when the service is not healthy. No question is asked."""
        self._find_engine().probe(call)

    def close(self) -> None:
        """Close the connections."""
        engine, self._engine = self._engine, None
        if engine is not None:
            engine[1].close()

    def _find_engine(self) -> OpenAIEngine:
        url = self._config.llm_url
        if not url:
            port = self._supervisor.port
            if port is None:
                raise Transient("the analyst was never started", sent="no")
            url = f"http://127.0.0.1:{port}/v1"
        engine = self._engine
        if engine is None or engine[0] != url:
            key = self._config.llm_key or None
            model = self._config.llm_model or MODEL
            engine = url, OpenAIEngine(self.name, url, model, api_key=key)
            old, self._engine = self._engine, engine
            if old is not None:
                old[1].close()
        return engine[1]


def _describe_readings(now: Snapshot) -> str:
    """Return the current readings as a system message."""
    intents = ("system", "uptime", "cpu_use", "load", "memory_use", "swap_use", "disk_use",
               "network", "temperature", "process_count", "health")  # fmt: skip
    lines = [answer(Query(intent), now) for intent in intents]
    lines += [answer(Query(f"top_{kind}", count=8), now) for kind in ("memory", "cpu")]
    return (
        "You answer questions about one server, briefly, in the language of the question. These "
        "are its readings at this moment; when they do not hold the answer, say so.\n"
        + "\n".join(lines)
    )
