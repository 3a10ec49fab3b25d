"""Answers from one reading of the machine, in English and Korean."""

from __future__ import annotations

import time
from collections.abc import Callable

from ..system import Process, Snapshot
from .concerns import concerns
from .disks import disk_fullest, disk_roomiest, disk_use
from .examples import EXAMPLES
from .query import Query
from .wording import duration, duration_ko, nth, nth_ko, object_ko, percent, pick, size

__all__ = ["BEYOND", "answer"]

BEYOND = frozenset({"compare", "history", "follow_up"})
"""Intents that one reading and one question are not enough for."""


def answer(query: Query, now: Snapshot) -> str:
    """Answer a query from one reading; says so when that is not enough."""
    if query.intent in BEYOND:
        return pick(
            query,
            "That needs the analyst, which remembers the talk and earlier readings, and it is not "
            "answering right now. I can answer one question at a time about this moment, such as "
            f"“{EXAMPLES['en'][3]}”",
            "그 질문에는 대화와 지난 기록을 기억하는 분석기가 필요한데, 지금은 응답하지 않습니다. "
            f"지금 상태에 대한 질문에는 하나씩 답할 수 있습니다. 예: “{EXAMPLES['ko'][3]}”",
        )
    return _ANSWERS[query.intent](query, now)


def _top(query: Query, now: Snapshot, kind: str) -> str:
    ranked = now.by_memory() if kind == "memory" else now.by_cpu()
    first = max(query.rank, 1) - 1
    chosen = ranked[first : first + max(query.count, 1)]
    if not chosen:
        return pick(
            query,
            f"There are only {len(ranked)} processes that I may read.",
            f"읽을 수 있는 프로세스는 {len(ranked)}개뿐입니다.",
        )
    if len(chosen) > 1:
        return _top_list(query, chosen, kind)
    p = chosen[0]
    if kind == "memory":
        share = percent(p.memory / now.memory.total * 100)
        return pick(
            query,
            f"{p.name} (PID {p.pid}) uses the {nth(query.rank)}most memory: {size(p.memory)}, "
            f"{share} of all memory.",
            f"메모리를 {nth_ko(query.rank)} 많이 쓰는 프로세스는 {p.name} (PID {p.pid})입니다. "
            f"{size(p.memory)}, 전체 메모리의 {share}를 쓰고 있습니다.",
        )
    return pick(
        query,
        f"{p.name} (PID {p.pid}) uses the {nth(query.rank)}most CPU: {percent(p.cpu_percent)} of "
        "one core.",
        f"CPU를 {nth_ko(query.rank)} 많이 쓰는 프로세스는 {p.name} (PID {p.pid})입니다. "
        f"코어 하나의 {percent(p.cpu_percent)}를 쓰고 있습니다.",
    )


def _top_list(query: Query, chosen: list[Process], kind: str) -> str:
    rows = [
        f"{query.rank + i}. {p.name} (PID {p.pid}): "
        + (size(p.memory) if kind == "memory" else percent(p.cpu_percent))
        for i, p in enumerate(chosen)
    ]
    word = {"memory": ("memory", "메모리"), "cpu": ("CPU (of one core)", "CPU(코어 하나 기준)")}
    en, ko = word[kind]
    head = pick(
        query,
        f"The {len(chosen)} processes that use the most {en}:",
        f"{object_ko(ko)} 가장 많이 쓰는 프로세스 {len(chosen)}개:",
    )
    return "\n".join([head, *rows])


def _top_memory(query: Query, now: Snapshot) -> str:
    return _top(query, now, "memory")


def _top_cpu(query: Query, now: Snapshot) -> str:
    return _top(query, now, "cpu")


def _process_named(query: Query, now: Snapshot) -> str:
    wanted = query.name.lower()
    found = [p for p in now.processes if p.name.lower() == wanted]
    found = found or [p for p in now.processes if p.name.lower().startswith(wanted)]
    found = found or [p for p in now.processes if len(wanted) > 2 and wanted in p.name.lower()]
    if not found:
        return pick(
            query,
            f"No process called “{query.name}” is running, or I may not see it.",
            f"“{query.name}”라는 이름의 실행 중인 프로세스가 없거나, 볼 권한이 없습니다.",
        )
    memory = size(sum(p.memory for p in found))
    cpu = percent(sum(p.cpu_percent for p in found))
    name = found[0].name
    pids = ", ".join(str(p.pid) for p in found[:5]) + (", …" if len(found) > 5 else "")
    if len(found) == 1:
        return pick(
            query,
            f"{name} (PID {pids}) is running: it uses {memory} of memory and {cpu} of one core.",
            f"{name} (PID {pids}) 실행 중: 메모리 {memory}, CPU는 코어 하나의 {cpu}를 "
            "쓰고 있습니다.",
        )
    return pick(
        query,
        f"{len(found)} processes called {name} are running (PID {pids}): together they use "
        f"{memory} of memory and {cpu} of one core.",
        f"{name} 프로세스 {len(found)}개 실행 중 (PID {pids}): 합쳐서 메모리 {memory}, "
        f"CPU는 코어 하나의 {cpu}를 쓰고 있습니다.",
    )


def _process_count(query: Query, now: Snapshot) -> str:
    n = len(now.processes)
    return pick(
        query,
        f"{n} processes are running that I may read.",
        f"읽을 수 있는 프로세스 {n}개가 실행 중입니다.",
    )


def _memory_use(query: Query, now: Snapshot) -> str:
    m = now.memory
    return pick(
        query,
        f"Memory is {percent(m.percent)} used: {size(m.available)} of {size(m.total)} is "
        "available.",
        f"메모리는 {percent(m.percent)} 사용 중입니다. 전체 {size(m.total)} 중 "
        f"{size(m.available)} 남았습니다.",
    )


def _swap_use(query: Query, now: Snapshot) -> str:
    s = now.swap
    if not s.total:
        return pick(query, "This machine has no swap.", "이 서버에는 스왑이 없습니다.")
    return pick(
        query,
        f"Swap is {percent(s.percent)} used: {size(s.used)} of {size(s.total)}, "
        f"{size(s.free)} free.",
        f"스왑은 {percent(s.percent)} 사용 중입니다. 전체 {size(s.total)} 중 {size(s.used)} 사용, "
        f"{size(s.free)} 남았습니다.",
    )


def _cpu_use(query: Query, now: Snapshot) -> str:
    c = now.cpu
    load_en = load_ko = ""
    if c.load:
        load_en = f" The load average is {c.load[0]:.2f}."
        load_ko = f" 평균 부하는 {c.load[0]:.2f}입니다."
    return pick(
        query,
        f"The CPU is {percent(c.percent)} busy over {_cores(c.logical)}.{load_en}",
        f"CPU 사용률은 {percent(c.percent)}입니다 (코어 {c.logical}개).{load_ko}",
    )


def _cores(n: int) -> str:
    return f"{n} core{'' if n == 1 else 's'}"


def _core_count(query: Query, now: Snapshot) -> str:
    c = now.cpu
    shown = ", ".join(percent(p) for p in c.per_core[:16]) + (", …" if len(c.per_core) > 16 else "")
    physical_en = f" ({c.physical} physical)" if c.physical else ""
    physical_ko = f" (물리 코어 {c.physical}개)" if c.physical else ""
    return pick(
        query,
        f"This machine has {_cores(c.logical)}{physical_en}; each is busy: {shown}.",
        f"코어는 {c.logical}개입니다{physical_ko}. 코어별 사용률: {shown}.",
    )


def _load(query: Query, now: Snapshot) -> str:
    c = now.cpu
    if c.load is None:
        return pick(
            query,
            "This machine does not tell a load average.",
            "이 서버는 평균 부하를 알려 주지 않습니다.",
        )
    one, five, fifteen = c.load
    return pick(
        query,
        f"The load average is {one:.2f} (1 min), {five:.2f} (5 min), {fifteen:.2f} (15 min) on "
        f"{_cores(c.logical)}.",
        f"평균 부하는 {one:.2f} (1분), {five:.2f} (5분), {fifteen:.2f} (15분)입니다. "
        f"코어는 {c.logical}개입니다.",
    )


def _network(query: Query, now: Snapshot) -> str:
    n = now.network
    return pick(
        query,
        f"Receiving {size(n.received_rate)}/s and sending {size(n.sent_rate)}/s; since boot "
        f"{size(n.received)} received and {size(n.sent)} sent.",
        f"초당 {size(n.received_rate)} 받고 {size(n.sent_rate)} 보내는 중입니다. 부팅 후 모두 "
        f"{size(n.received)} 받고 {size(n.sent)} 보냈습니다.",
    )


def _uptime(query: Query, now: Snapshot) -> str:
    up = now.at - now.boot_time
    since = time.strftime("%Y-%m-%d %H:%M", time.localtime(now.boot_time))
    return pick(
        query,
        f"Up for {duration(up)}, since {since}.",
        f"가동한 지 {duration_ko(up)} 됐습니다 ({since}부터).",
    )


def _temperature(query: Query, now: Snapshot) -> str:
    if not now.temperatures:
        return pick(
            query,
            "This machine shows no temperature sensor.",
            "이 서버에서는 온도 센서를 읽을 수 없습니다.",
        )
    hottest = sorted(now.temperatures, key=lambda t: -t.celsius)[:3]
    return pick(query, "Hottest sensors: ", "가장 뜨거운 센서: ") + ", ".join(
        f"{t.label} {t.celsius:.0f} °C" for t in hottest
    )


def _system(query: Query, now: Snapshot) -> str:
    return pick(
        query,
        f"This is {now.hostname}, running {now.system}.",
        f"이 서버는 {now.hostname}이고, {now.system}에서 돌아갑니다.",
    )


def _health(query: Query, now: Snapshot) -> str:
    disk = max(now.disks, key=lambda d: d.percent, default=None)
    figures_en = f"CPU {percent(now.cpu.percent)}, memory {percent(now.memory.percent)}"
    figures_ko = f"CPU {percent(now.cpu.percent)}, 메모리 {percent(now.memory.percent)}"
    if disk:
        figures_en += f", fullest disk {disk.mount} {percent(disk.percent)}"
        figures_ko += f", 가장 찬 디스크 {disk.mount} {percent(disk.percent)}"
    wrong = concerns(now)
    if not wrong:
        return pick(
            query,
            f"Nothing looks wrong: {figures_en}.",
            f"문제가 없어 보입니다: {figures_ko}.",
        )
    return pick(
        query,
        f"Worth a look: {'; '.join(en for en, _ in wrong)}. Overall: {figures_en}.",
        f"살펴볼 점: {'; '.join(ko for _, ko in wrong)}. 전체: {figures_ko}.",
    )


_TOPICS_EN = (
    "memory, swap, CPU, cores, load, temperature, disks, network, uptime, processes and what uses "
    "most, the system, and whether all is well"
)
_TOPICS_KO = (
    "메모리, 스왑, CPU, 코어, 부하, 온도, 디스크, 네트워크, 가동 시간, 프로세스와 사용량 순위, "
    "운영체제, 전체 상태"
)


def _help(query: Query, now: Snapshot) -> str:
    return pick(
        query,
        f"I can answer questions about this machine: {_TOPICS_EN}. For example "
        f"“{EXAMPLES['en'][0]}”",
        f"이 서버에 대한 질문에 답할 수 있습니다: {_TOPICS_KO}. 예: “{EXAMPLES['ko'][0]}”",
    )


def _unknown(query: Query, now: Snapshot) -> str:
    return pick(
        query,
        f"I don't know that; I can answer questions about {_TOPICS_EN}.",
        f"그건 모르겠습니다. 다음에 대해 답할 수 있습니다: {_TOPICS_KO}.",
    )


def _several(query: Query, now: Snapshot) -> str:
    return "\n".join(_ANSWERS[_USE[s]](Query(_USE[s], query.language), now) for s in query.subjects)


_USE = {
    "memory": "memory_use",
    "swap": "swap_use",
    "cpu": "cpu_use",
    "disk": "disk_use",
    "network": "network",
    "load": "load",
    "processes": "process_count",
}

_ANSWERS: dict[str, Callable[[Query, Snapshot], str]] = {
    "top_memory": _top_memory,
    "top_cpu": _top_cpu,
    "process_named": _process_named,
    "process_count": _process_count,
    "disk_use": disk_use,
    "disk_fullest": disk_fullest,
    "disk_roomiest": disk_roomiest,
    "memory_use": _memory_use,
    "swap_use": _swap_use,
    "cpu_use": _cpu_use,
    "cores": _core_count,
    "load": _load,
    "network": _network,
    "uptime": _uptime,
    "temperature": _temperature,
    "system": _system,
    "health": _health,
    "help": _help,
    "several": _several,
    "unknown": _unknown,
}
