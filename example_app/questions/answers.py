"""Answers from one reading of the machine, in English and Korean."""

from __future__ import annotations

import time
from collections.abc import Callable

from ..system import Process, Snapshot
from .disk_answers import describe_disk_use, describe_fullest_disk, describe_roomiest_disk
from .examples import EXAMPLES
from .formatting import (
    add_object_particle,
    choose_text,
    format_duration,
    format_duration_ko,
    format_percent,
    format_rank,
    format_rank_ko,
    format_size,
)
from .problems import find_problems
from .query import Query

__all__ = ["BEYOND", "answer"]

BEYOND = frozenset({"compare", "history", "follow_up"})
"""Intents that need more than one reading or more than one question."""


def answer(query: Query, now: Snapshot) -> str:
    """Answer a query from one reading, or explain that one reading is not enough."""
    if query.intent in BEYOND:
        return choose_text(
            query,
            "That needs the analyst, which remembers the talk and earlier readings, and it is not "
            "answering right now. I can answer one question at a time about this moment, such as "
            f"“{EXAMPLES['en'][3]}”",
            "그 질문에는 대화와 지난 기록을 기억하는 분석기가 필요한데, 지금은 응답하지 않습니다. "
            f"지금 상태에 대한 질문에는 하나씩 답할 수 있습니다. 예: “{EXAMPLES['ko'][3]}”",
        )
    return _ANSWERS[query.intent](query, now)


def _describe_top(query: Query, now: Snapshot, kind: str) -> str:
    ranked = now.sort_by_memory() if kind == "memory" else now.sort_by_cpu()
    first = max(query.rank, 1) - 1
    chosen = ranked[first : first + max(query.count, 1)]
    if not chosen:
        return choose_text(
            query,
            f"There are only {len(ranked)} processes that I may read.",
            f"읽을 수 있는 프로세스는 {len(ranked)}개뿐입니다.",
        )
    if len(chosen) > 1:
        return _list_top(query, chosen, kind)
    p = chosen[0]
    if kind == "memory":
        share = format_percent(p.memory / now.memory.total * 100)
        return choose_text(
            query,
            f"{p.name} (PID {p.pid}) uses the {format_rank(query.rank)}most memory: "
            f"{format_size(p.memory)}, "
            f"{share} of all memory.",
            f"메모리를 {format_rank_ko(query.rank)} 많이 쓰는 프로세스는 {p.name} (PID "
            f"{p.pid})입니다. "
            f"{format_size(p.memory)}, 전체 메모리의 {share}를 쓰고 있습니다.",
        )
    return choose_text(
        query,
        f"{p.name} (PID {p.pid}) uses the {format_rank(query.rank)}most CPU: "
        f"{format_percent(p.cpu_percent)} of "
        "one core.",
        f"CPU를 {format_rank_ko(query.rank)} 많이 쓰는 프로세스는 {p.name} (PID {p.pid})입니다. "
        f"코어 하나의 {format_percent(p.cpu_percent)}를 쓰고 있습니다.",
    )


def _list_top(query: Query, chosen: list[Process], kind: str) -> str:
    rows = [
        f"{query.rank + i}. {p.name} (PID {p.pid}): "
        + (format_size(p.memory) if kind == "memory" else format_percent(p.cpu_percent))
        for i, p in enumerate(chosen)
    ]
    word = {"memory": ("memory", "메모리"), "cpu": ("CPU (of one core)", "CPU(코어 하나 기준)")}
    en, ko = word[kind]
    head = choose_text(
        query,
        f"The {len(chosen)} processes that use the most {en}:",
        f"{add_object_particle(ko)} 가장 많이 쓰는 프로세스 {len(chosen)}개:",
    )
    return "\n".join([head, *rows])


def _describe_top_memory(query: Query, now: Snapshot) -> str:
    return _describe_top(query, now, "memory")


def _describe_top_cpu(query: Query, now: Snapshot) -> str:
    return _describe_top(query, now, "cpu")


def _describe_process(query: Query, now: Snapshot) -> str:
    wanted = query.name.lower()
    found = [p for p in now.processes if p.name.lower() == wanted]
    found = found or [p for p in now.processes if p.name.lower().startswith(wanted)]
    found = found or [p for p in now.processes if len(wanted) > 2 and wanted in p.name.lower()]
    if not found:
        return choose_text(
            query,
            f"No process called “{query.name}” is running, or I may not see it.",
            f"“{query.name}”라는 이름의 실행 중인 프로세스가 없거나, 볼 권한이 없습니다.",
        )
    memory = format_size(sum(p.memory for p in found))
    cpu = format_percent(sum(p.cpu_percent for p in found))
    name = found[0].name
    pids = ", ".join(str(p.pid) for p in found[:5]) + (", …" if len(found) > 5 else "")
    if len(found) == 1:
        return choose_text(
            query,
            f"{name} (PID {pids}) is running: it uses {memory} of memory and {cpu} of one core.",
            f"{name} (PID {pids}) 실행 중: 메모리 {memory}, CPU는 코어 하나의 {cpu}를 "
            "쓰고 있습니다.",
        )
    return choose_text(
        query,
        f"{len(found)} processes called {name} are running (PID {pids}): together they use "
        f"{memory} of memory and {cpu} of one core.",
        f"{name} 프로세스 {len(found)}개 실행 중 (PID {pids}): 합쳐서 메모리 {memory}, "
        f"CPU는 코어 하나의 {cpu}를 쓰고 있습니다.",
    )


def _count_processes(query: Query, now: Snapshot) -> str:
    n = len(now.processes)
    return choose_text(
        query,
        f"{n} processes are running that I may read.",
        f"읽을 수 있는 프로세스 {n}개가 실행 중입니다.",
    )


def _describe_memory_use(query: Query, now: Snapshot) -> str:
    m = now.memory
    return choose_text(
        query,
        f"Memory is {format_percent(m.percent)} used: {format_size(m.available)} of "
        f"{format_size(m.total)} is "
        "available.",
        f"메모리는 {format_percent(m.percent)} 사용 중입니다. 전체 {format_size(m.total)} 중 "
        f"{format_size(m.available)} 남았습니다.",
    )


def _describe_swap_use(query: Query, now: Snapshot) -> str:
    s = now.swap
    if not s.total:
        return choose_text(query, "This machine has no swap.", "이 서버에는 스왑이 없습니다.")
    return choose_text(
        query,
        f"Swap is {format_percent(s.percent)} used: {format_size(s.used)} of "
        f"{format_size(s.total)}, "
        f"{format_size(s.free)} free.",
        f"스왑은 {format_percent(s.percent)} 사용 중입니다. 전체 {format_size(s.total)} 중 "
        f"{format_size(s.used)} 사용, "
        f"{format_size(s.free)} 남았습니다.",
    )


def _describe_cpu_use(query: Query, now: Snapshot) -> str:
    c = now.cpu
    load_en = load_ko = ""
    if c.load:
        load_en = f" The load average is {c.load[0]:.2f}."
        load_ko = f" 평균 부하는 {c.load[0]:.2f}입니다."
    return choose_text(
        query,
        f"The CPU is {format_percent(c.percent)} busy over {_count_cores(c.logical)}.{load_en}",
        f"CPU 사용률은 {format_percent(c.percent)}입니다 (코어 {c.logical}개).{load_ko}",
    )


def _count_cores(n: int) -> str:
    return f"{n} core{'' if n == 1 else 's'}"


def _describe_cores(query: Query, now: Snapshot) -> str:
    c = now.cpu
    shown = ", ".join(format_percent(p) for p in c.per_core[:16]) + (
        ", …" if len(c.per_core) > 16 else ""
    )
    physical_en = f" ({c.physical} physical)" if c.physical else ""
    physical_ko = f" (물리 코어 {c.physical}개)" if c.physical else ""
    return choose_text(
        query,
        f"This machine has {_count_cores(c.logical)}{physical_en}; each is busy: {shown}.",
        f"코어는 {c.logical}개입니다{physical_ko}. 코어별 사용률: {shown}.",
    )


def _describe_load(query: Query, now: Snapshot) -> str:
    c = now.cpu
    if c.load is None:
        return choose_text(
            query,
            "This machine does not tell a load average.",
            "이 서버는 평균 부하를 알려 주지 않습니다.",
        )
    one, five, fifteen = c.load
    return choose_text(
        query,
        f"The load average is {one:.2f} (1 min), {five:.2f} (5 min), {fifteen:.2f} (15 min) on "
        f"{_count_cores(c.logical)}.",
        f"평균 부하는 {one:.2f} (1분), {five:.2f} (5분), {fifteen:.2f} (15분)입니다. "
        f"코어는 {c.logical}개입니다.",
    )


def _describe_network(query: Query, now: Snapshot) -> str:
    n = now.network
    return choose_text(
        query,
        f"Receiving {format_size(n.received_rate)}/s and sending {format_size(n.sent_rate)}/s; "
        f"since boot "
        f"{format_size(n.received)} received and {format_size(n.sent)} sent.",
        f"초당 {format_size(n.received_rate)} 받고 {format_size(n.sent_rate)} 보내는 중입니다. "
        f"부팅 후 모두 "
        f"{format_size(n.received)} 받고 {format_size(n.sent)} 보냈습니다.",
    )


def _describe_uptime(query: Query, now: Snapshot) -> str:
    up = now.at - now.boot_time
    since = time.strftime("%Y-%m-%d %H:%M", time.localtime(now.boot_time))
    return choose_text(
        query,
        f"Up for {format_duration(up)}, since {since}.",
        f"가동한 지 {format_duration_ko(up)} 됐습니다 ({since}부터).",
    )


def _describe_temperature(query: Query, now: Snapshot) -> str:
    if not now.temperatures:
        return choose_text(
            query,
            "This machine shows no temperature sensor.",
            "이 서버에서는 온도 센서를 읽을 수 없습니다.",
        )
    hottest = sorted(now.temperatures, key=lambda t: -t.celsius)[:3]
    return choose_text(query, "Hottest sensors: ", "가장 뜨거운 센서: ") + ", ".join(
        f"{t.label} {t.celsius:.0f} °C" for t in hottest
    )


def _describe_system(query: Query, now: Snapshot) -> str:
    return choose_text(
        query,
        f"This is {now.hostname}, running {now.system}.",
        f"이 서버는 {now.hostname}이고, {now.system}에서 돌아갑니다.",
    )


def _describe_health(query: Query, now: Snapshot) -> str:
    disk = max(now.disks, key=lambda d: d.percent, default=None)
    figures_en = (
        f"CPU {format_percent(now.cpu.percent)}, memory {format_percent(now.memory.percent)}"
    )
    figures_ko = (
        f"CPU {format_percent(now.cpu.percent)}, 메모리 {format_percent(now.memory.percent)}"
    )
    if disk:
        figures_en += f", fullest disk {disk.mount} {format_percent(disk.percent)}"
        figures_ko += f", 가장 찬 디스크 {disk.mount} {format_percent(disk.percent)}"
    wrong = find_problems(now)
    if not wrong:
        return choose_text(
            query,
            f"Nothing looks wrong: {figures_en}.",
            f"문제가 없어 보입니다: {figures_ko}.",
        )
    return choose_text(
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


def _list_topics(query: Query, now: Snapshot) -> str:
    return choose_text(
        query,
        f"I can answer questions about this machine: {_TOPICS_EN}. For example "
        f"“{EXAMPLES['en'][0]}”",
        f"이 서버에 대한 질문에 답할 수 있습니다: {_TOPICS_KO}. 예: “{EXAMPLES['ko'][0]}”",
    )


def _admit_unknown(query: Query, now: Snapshot) -> str:
    return choose_text(
        query,
        f"I don't know that; I can answer questions about {_TOPICS_EN}.",
        f"그건 모르겠습니다. 다음에 대해 답할 수 있습니다: {_TOPICS_KO}.",
    )


def _describe_several(query: Query, now: Snapshot) -> str:
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
    "top_memory": _describe_top_memory,
    "top_cpu": _describe_top_cpu,
    "process_named": _describe_process,
    "process_count": _count_processes,
    "disk_use": describe_disk_use,
    "disk_fullest": describe_fullest_disk,
    "disk_roomiest": describe_roomiest_disk,
    "memory_use": _describe_memory_use,
    "swap_use": _describe_swap_use,
    "cpu_use": _describe_cpu_use,
    "cores": _describe_cores,
    "load": _describe_load,
    "network": _describe_network,
    "uptime": _describe_uptime,
    "temperature": _describe_temperature,
    "system": _describe_system,
    "health": _describe_health,
    "help": _list_topics,
    "several": _describe_several,
    "unknown": _admit_unknown,
}
