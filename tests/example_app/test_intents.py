"""Questions and their intents.

The questions of ``BEFORE`` were written together with the rules, those of ``AFTER`` after the rules
were complete: they show how well the rules work for other wordings.
"""

from __future__ import annotations

import pytest

from example_app.questions import understand

RUNNING = ("python", "bash", "nginx", "gunicorn", "redis-server", "chrome", "systemd")

BEFORE = """
which process uses the most memory? | top_memory
what is eating my ram | top_memory
top 5 processes by memory | top_memory
why is memory so high | top_memory
wich procss uses the most memmory | top_memory
who uses the most cpu | top_cpu
which process is using the most CPU right now? | top_cpu
what are the busiest processes | top_cpu
how much disk space is left? | disk_use
how full is the disk? | disk_use
dsik space | disk_use
show free space on /home | disk_use
which disk is the fullest? | disk_fullest
which partition has the most free space | disk_roomiest
how much memory is used? | memory_use
how much free memory do I have | memory_use
memroy usage | memory_use
is swap being used? | swap_use
how much swap memory is left | swap_use
what is the cpu usage | cpu_use
how busy is the cpu | cpu_use
cpu load | cpu_use
load average? | load
network traffic | network
how much data was received over the network | network
uptime | uptime
how long has this server been running | uptime
when was the last reboot? | uptime
how many processes are running? | process_count
how hot is the cpu | temperature
how many cores does it have | cores
how many cpus | cores
how much memory does python use | process_named
is nginx running? | process_named
memory usage of redis-server | process_named
is everything ok? | health
any problems | health
why is the server slow | health
what can you do | help
hello | help
which operating system is this | system
is memory or disk fuller? | compare
compare cpu and memory | compare
cpu and memory usage | several
what was the cpu five minutes ago | history
how did memory change? | history
and the second one? | follow_up
the next one | follow_up
what about swap? | swap_use
what's the weather in Seoul | unknown
write a poem about memory | unknown
how do I add more memory | unknown
kill the process that uses the most memory | unknown
who won the world cup | unknown
gpu usage | unknown
how much memory does a human brain have | unknown
디스크 얼마나 남았어? | disk_use
저장 공간 얼마나 있어 | disk_use
어느 디스크가 제일 꽉 찼어? | disk_fullest
메모리 제일 많이 쓰는 프로세스가 뭐야 | top_memory
메모리를 가장 많이 사용하는 프로세스는? | top_memory
상위 프로세스 5개 | top_memory
CPU 제일 많이 쓰는 거 알려줘 | top_cpu
CPU 사용량 알려줘 | cpu_use
씨피유 얼마나 바빠? | cpu_use
그럼 CPU는? | cpu_use
메모리 얼마나 남았어? | memory_use
매모리 사용량 | memory_use
스왑 쓰고 있어? | swap_use
로드 애버리지 알려줘 | load
부하가 어때? | load
네트워크 트래픽 얼마야 | network
서버 켜진 지 얼마나 됐어? | uptime
언제 부팅했어? | uptime
가동 시간 알려줘 | uptime
프로세스 몇 개 돌아가고 있어? | process_count
프로세스 개수 | process_count
온도 어때 | temperature
코어가 몇 개야? | cores
파이썬이 메모리 얼마나 써? | process_named
nginx 실행 중이야? | process_named
redis-server는 메모리 얼마나 먹어 | process_named
서버 괜찮아? | health
문제 없어? | health
뭐 할 수 있어? | help
도움말 | help
운영체제가 뭐야 | system
메모리랑 디스크 중에 뭐가 더 찼어? | compare
CPU랑 메모리 알려줘 | several
5분 전 CPU는 어땠어? | history
메모리 어떻게 변했어? | history
그 다음은? | follow_up
두 번째는? | follow_up
오늘 날씨 어때? | unknown
점심 뭐 먹지 | unknown
메모리 어떻게 늘려? | unknown
프로세스 죽여줘 | unknown
"""

AFTER = """
What's hogging the RAM on this box? | top_memory
show me the biggest memory consumers | top_memory
list the three heaviest processes | top_memory
which app needs the most RAM at the moment | top_memory
Name the program with the largest memory footprint | top_memory
second biggest memory user please | top_memory
whats burning cpu | top_cpu
give me the top ten cpu hogs | top_cpu
which task keeps the processor busy? | top_cpu
is there enough room on the disk | disk_use
storage remaining? | disk_use
how many gigabytes are free on the hard drive | disk_use
disk usage in percent | disk_use
what's the fullest filesystem | disk_fullest
which mount has the least space left | disk_fullest
where is the most free disk space | disk_roomiest
RAM usage now | memory_use
is there any memory available | memory_use
what percentage of memory is in use | memory_use
are we swapping? | swap_use
page file usage | swap_use
processor utilisation | cpu_use
how hard is the CPU working | cpu_use
what's the system load? | load
loadavg | load
current bandwidth usage | network
how fast are we downloading | network
bytes sent and received since boot | network
how long since the last restart? | uptime
since when is this machine up | uptime
number of running tasks | process_count
total process count | process_count
is the processor overheating? | temperature
what's the temperature of the machine | temperature
does this computer have many cores? | cores
is redis-server alive? | process_named
how much cpu is chrome taking | process_named
bash's memory | process_named
status report please | health
is the server healthy | health
does anything look wrong? | health
what kernel is running | system
what questions can I ask? | help
has memory usage gone up in the last ten minutes? | history
cpu trend | history
how much RAM was used a minute ago? | history
which is higher, cpu or memory? | compare
memory vs swap | compare
and after that? | follow_up
what about the third? | follow_up
how tall is mount everest | unknown
tell me a joke | unknown
what will the cpu be tomorrow | unknown
should I buy a bigger disk | unknown
translate memory into french | unknown
please restart nginx | unknown
mem? | memory_use
am I running out of disk space? | disk_use
what is using all my memory | top_memory
list processes | top_cpu
what's running on this machine | top_cpu
how many threads does the cpu have | cores
how long has python been running | unknown
which processes use more than 1 GB of memory | unknown
what is my ip address | unknown
which user is logged in | unknown
kernel version | system
did cpu go up? | history
memory over the last hour | history
is load higher than an hour ago? | history
systemd memory | process_named
delete old files to free disk space | unknown
램을 제일 많이 잡아먹는 놈이 누구야? | top_memory
메모리 사용량 상위 3개 프로세스 보여줘 | top_memory
어떤 프로그램이 메모리를 많이 차지하고 있나요? | top_memory
두 번째로 메모리를 많이 쓰는 프로세스는 뭐예요 | top_memory
지금 CPU를 가장 많이 점유하는 프로세스 알려주세요 | top_cpu
누가 CPU를 이렇게 먹고 있지? | top_cpu
디스크 여유 공간이 얼마나 되나요? | disk_use
하드 용량 남은 거 확인해줘 | disk_use
디스크 사용률이 몇 퍼센트야? | disk_use
제일 많이 찬 파티션은 어디야 | disk_fullest
여유 공간이 가장 많은 디스크는? | disk_roomiest
메모리 사용률 좀 알려줄래? | memory_use
램 얼마나 쓰고 있어요? | memory_use
남은 메모리가 얼마지 | memory_use
스왑 메모리 사용 중인가요? | swap_use
CPU 지금 몇 퍼센트 쓰고 있어? | cpu_use
프로세서 사용률은 어떻게 되나요 | cpu_use
시스템 부하 좀 보여줘 | load
평균 부하가 얼마나 돼? | load
인터넷 트래픽이 얼마나 나와? | network
다운로드 속도 알려줘 | network
네트웍으로 받은 데이터 양이 얼마야 | network
서버가 켜진 지 며칠 됐어? | uptime
마지막 재부팅이 언제야? | uptime
실행 중인 프로세스 수는? | process_count
프로그램이 총 몇 개 돌고 있나요 | process_count
CPU 온도가 몇 도야? | temperature
서버 너무 뜨겁지 않아? | temperature
CPU 코어 수 알려줘 | cores
크롬이 메모리를 얼마나 쓰고 있어? | process_named
gunicorn 돌아가고 있어? | process_named
nginx 프로세스 CPU 사용량 | process_named
전체 상태 요약해줘 | health
지금 서버에 이상 있어? | health
시스템 잘 돌아가고 있니 | health
커널 버전이 뭐야? | system
너는 뭘 도와줄 수 있어? | help
안녕하세요 | help
최근 10분 동안 CPU 추이 보여줘 | history
메모리가 늘었어 줄었어? | history
1분 전 메모리 사용량은? | history
CPU랑 메모리 중 어느 게 더 높아? | compare
디스크와 메모리를 비교해줘 | compare
그다음은 뭐야? | follow_up
세 번째는? | follow_up
노래 하나 추천해줘 | unknown
비트코인 시세 알려줘 | unknown
내일 CPU 사용량 예측해줘 | unknown
서버 재시작해줘 | unknown
그래픽카드 사용량 알려줘 | unknown
메모리 부족해? | memory_use
디스크 용량 부족하지 않아? | disk_use
메모리 왜 이렇게 많이 써? | top_memory
프로세스 목록 보여줘 | top_cpu
서버 느린데 왜 그래? | health
메모리 1기가 이상 쓰는 프로세스 | unknown
지금 몇 시야 | unknown
한 시간 전 부하는? | history
CPU가 올라갔어? | history
디스크가 메모리보다 더 찼어? | compare
systemd 메모리 | process_named
로그 보여줘 | unknown
"""


def _cases(text: str) -> list[tuple[str, str]]:
    rows = [line.rsplit("|", 1) for line in text.strip().splitlines()]
    return [(question.strip(), intent.strip()) for question, intent in rows]


@pytest.mark.parametrize(("question", "intent"), _cases(BEFORE) + _cases(AFTER))
def test_a_question_is_understood(question: str, intent: str) -> None:
    assert understand(question, RUNNING).intent == intent


@pytest.mark.parametrize("language", ["en", "ko"])
def test_enough_phrasings_and_intents_are_tried_in_each_language(language: str) -> None:
    for text in (BEFORE, AFTER):
        asked = [q for q, _ in _cases(text) if understand(q).language == language]
        assert len(asked) >= 40
    assert len({i for _, i in _cases(BEFORE + AFTER.lstrip())} - {"unknown"}) >= 18


def test_every_question_is_answered_in_its_own_language() -> None:
    for question, _ in _cases(BEFORE) + _cases(AFTER):
        korean = any("가" <= letter <= "힣" for letter in question)
        assert understand(question, RUNNING).language == ("ko" if korean else "en"), question
