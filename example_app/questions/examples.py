"""Example questions that the page shows."""

from __future__ import annotations

from .query import Language

__all__ = ["CONVERSATIONS", "EXAMPLES"]

EXAMPLES: dict[Language, tuple[str, ...]] = {
    "en": (
        "Which process uses the most memory?",
        "Top 5 processes by CPU",
        "How busy is the CPU?",
        "How much disk space is left?",
        "Which disk is the fullest?",
        "How much memory is available?",
        "Is swap being used?",
        "What is the load average?",
        "How much network traffic is there?",
        "How long has it been running?",
        "How many processes are running?",
        "How many cores does it have?",
        "How much memory does python use?",
        "Which operating system is this?",
        "Is everything ok?",
    ),
    "ko": (
        "메모리 제일 많이 쓰는 프로세스가 뭐야?",
        "CPU 많이 쓰는 프로세스 5개 알려줘",
        "CPU 사용량 알려줘",
        "디스크 얼마나 남았어?",
        "어느 디스크가 제일 꽉 찼어?",
        "메모리 얼마나 남았어?",
        "스왑 쓰고 있어?",
        "평균 부하가 어때?",
        "네트워크 트래픽 얼마야?",
        "서버 켜진 지 얼마나 됐어?",
        "프로세스 몇 개 실행 중이야?",
        "코어가 몇 개야?",
        "python이 메모리 얼마나 써?",
        "운영체제가 뭐야?",
        "서버 괜찮아?",
    ),
}
"""Single questions about the current state."""

CONVERSATIONS: dict[Language, tuple[str, ...]] = {
    "en": (
        "Is memory or disk fuller?",
        "How did memory change?",
        "What was the CPU five minutes ago?",
        "Which process uses the most memory? → And the second one?",
    ),
    "ko": (
        "메모리랑 디스크 중에 뭐가 더 찼어?",
        "메모리 어떻게 변했어?",
        "5분 전 CPU는 어땠어?",
        "메모리 제일 많이 쓰는 프로세스가 뭐야? → 그 다음은?",
    ),
}
"""Questions that need the conversation so far, two metrics or earlier readings."""
