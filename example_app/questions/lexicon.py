"""The known words by concept. Both languages use the same concepts."""

from __future__ import annotations

__all__ = [
    "ENGLISH",
    "ENGLISH_FILLERS",
    "ENGLISH_PHRASES",
    "KOREAN",
    "KOREAN_ENDINGS",
    "KOREAN_FILLERS",
    "KOREAN_PHRASES",
    "NAMES",
]

ENGLISH: dict[str, str] = {
    "memory": "memory mem ram rss",
    "swap": "swap swapfile swapping swapped pagefile",
    "cpu": "cpu cpus processor processors",
    "disk": "disk disks disc drive drives partition partitions filesystem filesystems volume"
    " volumes mount mounts ssd hdd harddisk harddrive",
    "space": "space storage capacity room",
    "network": "network net traffic bandwidth internet ethernet throughput download downloads"
    " upload uploads downloaded uploaded downloading uploading sent received",
    "load": "load loads loadavg",
    "uptime": "uptime boot booted boots reboot rebooted rebooting restarted started startup",
    "process": "process processes program programs app apps application applications task tasks",
    "temperature": "temperature temperatures temp temps hot heat thermal sensors celsius degrees"
    " warm overheating",
    "core": "core cores",
    "system": "os kernel hostname distro",
    "most": "most highest biggest largest greatest top heaviest hungriest maximum max worst first"
    " bigger greedy greediest",
    "busy": "busy busiest",
    "least": "least lowest smallest",
    "full": "full fullest fuller filled filling",
    "left": "left free remaining remain remains available spare unused empty emptiest freest",
    "use": "use uses used using usage utilization utilisation consume consumes consuming consumed"
    " consumption eat eats eating hog hogs hogging take takes taking taken occupy occupies"
    " occupied occupying utilized need needs footprint burning burns chewing percentage percent"
    " user users consumer consumers",
    "count": "count number",
    "compare": "or vs versus compare compared comparison than higher between more",
    "change": "change changed changes changing trend trends history risen rising rise rose fallen"
    " fell grow grown grew growing earlier before past recently increase increased decrease"
    " decreased dropped ago last evolve evolved develop developed",
    "next": "next following another",
    "then": "then",
    "ok": "ok okay fine healthy health well alright wrong problem problems issue issues trouble"
    " status summary overview slow sluggish normal attention struggling report alarming",
    "help": "help hello hi hey thanks commands capabilities",
    "running": "running run runs alive active",
    "who": "which what whats who whos",
    "why": "why",
    "blocked": "kill killing terminate stop delete remove clean clear upgrade install buy add fix"
    " increase reduce write tomorrow predict forecast yesterday will should recommend price cost"
    " close end launch start restart shutdown format mean means definition",
}

ENGLISH_FILLERS = (
    "a an the is are was were be been being am do does did doing done have has had having it"
    " its this that these those there here now right currently current moment today please just"
    " me my mine i you your we our us of on in at to for by with from and as if so much many"
    " how when whats where long can could would tell show give list get see know want like say"
    " let any anything some all everything overall each every one ones still really very too"
    " also about up out down over server machine computer box host pc laptop system going go"
    " goes good minute minutes min mins second seconds sec secs hour hours half percentage"
    " level levels amount total size big high low s t re m ve ll only lot lots thing things way"
    " what's since both per look check quick quickly what answer question questions kind sort"
    " name named called than same hows them they he she average averages rate speed stats"
    " statistics info information details value reading readings data ask something exactly"
    " roughly"
    " fast hard work works working version enough"
)

ENGLISH_PHRASES: tuple[tuple[str, str], ...] = (
    (r"\b(how|what) (do|can|could|should) (i|we)\b(?! (ask|see|know))|\bhow to\b", " kill "),
    (r"\bfree(ing)? up\b|\bmake (room|space)\b", " kill "),
    (r"\bwhat (can|do|could) (you|i) (do|answer|ask|know|help)\b", " help "),
    (r"\b(what|which) (questions|things) (can|could|do|should)\b.*", " help "),
    (r"\bhow many\b", " count "),
    (r"\bhard (disk|drive)s?\b", " disk "),
    (r"\bfile systems?\b", " disk "),
    (r"\bload (average|avg)s?\b", " load "),
    (r"\bswap (memory|space|file)\b|\bvirtual memory\b|\bpage file\b", " swap "),
    (r"\b(operating system|host name|(what|which) (linux|kernel|system|os))\b", " os "),
    (r"\bname of (this|the) (machine|server|computer|host)\b", " os "),
    (r"\b(turned|switched|powered) on\b|\bbeen (up|on)\b|\bup for\b|\bup time\b", " uptime "),
    (r"\bhow long\b.*\b(up|running|run|on|alive|going)\b", " uptime "),
    (r"\bsince when\b.*\b(up|on)\b", " uptime "),
    (r"\b(last|latest) (re)?(boot|start|restart)(ed)?\b", " uptime "),
    (r"\bwhen (did|was|were)\b.*\b(start|restart|boot|reboot)(ed)?\b", " uptime "),
    (r"\b(ram|memory) (stick|foam|card|lane)s?\b", " kill "),
    (r"\b(go|goes|going|gone|went|been going) (up|down)\b", " change "),
    (r"\bafter that\b|\bthe one after\b|\brunner[- ]up\b", " next "),
    (r"\b(what|how) about\b|^\s*and\b", " about "),
    (r"\bare you (ok|okay|fine|well)\b", " ok "),
    (r"\b(doing|holding|keeping) up?\b|\bdoing (well|ok|okay|fine)\b|\bhow (is|are) .*doing\b",
     " ok "),
    (r"\bhow('?s| is) (the |this |my |our )?(server|machine|computer|box|system|host|everything"
     r"|it going)\b(?! (up|on))", " ok "),
    (r"\b(in|under) (good|bad) shape\b|\b(all|everything) good\b|\bup and running\b", " ok "),
    (r"\bthe (second|third|fourth|fifth)\b", r" \1 "),
)  # fmt: skip

KOREAN: dict[str, str] = {
    "memory": "메모리 램 기억장치",
    "swap": "스왑 스와프 가상메모리",
    "cpu": "씨피유 시피유 프로세서 중앙처리장치",
    "disk": "디스크 하드 하드디스크 저장장치 저장공간 파티션 드라이브 스토리지 볼륨 파일시스템",
    "space": "용량 공간 자리",
    "network": "네트워크 네트웍 트래픽 인터넷 통신 대역폭 업로드 다운로드 전송량 송수신 받은"
    " 보낸 데이터",
    "load": "부하 로드 로드애버리지 평균부하 부하평균",
    "uptime": "가동 가동시간 업타임 부팅 재부팅 켜진 켜져 켜졌 켰 켠",
    "process": "프로세스 프로그램 앱 어플 애플리케이션 어플리케이션 작업 놈 녀석",
    "temperature": "온도 뜨거 뜨겁 발열 과열",
    "core": "코어",
    "system": "운영체제 커널 호스트이름 호스트명 서버이름 컴퓨터이름",
    "most": "제일 가장 최고 최대 젤 많이 많은 상위 높은 무거운 1등 1위",
    "busy": "바쁜 바빠 바쁘",
    "least": "적게 적은 최소",
    "full": "꽉 꽉찬 꽉찼 찼 찬 차있 가득",
    "left": "남았 남은 남아 남는 남나 남지 남 여유 빈 비어 비었 가용 잔여 쓸수있",
    "use": "사용 쓰 써 썼 쓴 쓰는 쓰고 점유 차지 먹 먹고 먹는 잡아먹 소모 소비 사용량 사용률"
    " 사용율 점유율 이용률 이용",
    "count": "몇 몇개 개수 갯수 숫자 수 총",
    "compare": "비교 보다 아니면 중에 중에서 둘중 둘 더 높아 커 클까 많아",
    "change": "변화 추이 추세 변했 변해 바뀌 바뀐 바꼈 달라 아까 늘었 늘어 줄었 줄어 올랐"
    " 올라 내렸 내려 최근 동안 지난 전에 전보다 전이랑 전과 이전 기록",
    "next": "다음 그다음 또",
    "ok": "괜찮 정상 문제 이상 상태 건강 요약 멀쩡 현황 점검 느려 느린 느리 버벅 잘 무사",
    "help": "고마워 감사 도움 도움말 도와 사용법 기능 안녕 물어볼 물어봐 할수있"
    " 대답할수있 답할수있 질문",
    "running": "실행 돌아가 돌고 돌아 떠있 구동",
    "who": "뭐 뭐가 무엇 무슨 어느 어떤 어떤게 누가 누구 뭔 뭘",
    "why": "왜",
    "about": "그럼 그러면",
    "blocked": "죽여 종료 삭제 지워 재시작 설치 추가 늘려 늘리 줄여 줄이 비워 정리 해결 고쳐"
    " 업그레이드 내일 예측 어제 추천 가격 사줘 꺼줘 끄 방법 뜻",
}

KOREAN_FILLERS = (
    "며칠 않 부족 모자 충분 버전"
    " 알려 어땠 보여 말해 얼마 얼마나 얼만큼 어때 어떻 어떻게 어떠 지금 현재 좀 이 그 저 우리 내"
    " 서버 컴퓨터 시스템 기계 머신 여기 장비 궁금 확인 있 없 되 돼 됐 됩 하 한 할 해 했 합 것"
    " 거 게 건 걸 정도 전체 모두 다 모든 각 다들 오늘 시간 시각 분 초 개 퍼센트 프로 줘 주"
    " 주세요 주라 봐 볼 언제 언제부터 얼마동안 오래 오랫동안 이거 그거 혹시 하나 마지막"
    " 마지막으로 가지 수준 속도 값 정보 목록 리스트 크기 이름 라는 이라는 때문 순 순서 순으로"
    " 평균 기준 그리고 요즘 너 넌 당신 중 돌려 보고 싶 부탁 의 별 리 별로 잡 완전 진짜 대체"
    " 도대체 이렇게 그렇게 지 가 나 안 못 좋 나쁘 양 측 켜 먼저 갖"
)

KOREAN_ENDINGS = (
    "이 가 은 는 을 를 의 에 에서 에는 에서는 로 으로 와 과 랑 이랑 도 만 까지 부터 하고 이나"
    " 나 요 야 이야 이에요 이예요 예요 에요 인가요 인가 인지 인데 입니까 입니다 임 니 냐 지"
    " 지요 죠 어 아 았 었 어요 아요 습니까 습니다 나요 는지 은지 ㄴ지 인 던 네 데 들 들은 들이"
    " 돼 되 됐 돼요 되나요 됩니까 해 해요 하 한 한지 할 했 하는 합니까 했어 고 고있 면 줘 줘요"
    " 주 세요 주세요 까 까요 다 다고 란 라 라고 있 있어 있어요 있나 있나요 있니 있는 있는지"
    " 있습니까 있는거 없 없어 없나 없니 야해 게 거 건 걸 것 는거 는게 는건 은거 은게 운 워 려"
    " 여 여서 서 며 자 량 율 률 용 중 중인 중이 간 별 쯤 씩 좀 점 니까 ㅂ니까 된 될 된지 됐어"
    " 됐나 적 째 때 뿐 밖에 처럼 같 구 군 구나 래 대 도록 기 음 ㅁ"
)

KOREAN_PHRASES: tuple[tuple[str, str], ...] = (
    (r"그\s*다음", "그다음"),
    (r"(두|세|네|다섯|\d)\s*번\s*째", r"\1번째"),
    (r"몇\s*(개|가지|코어)", r"몇개 "),
    (r"얼마나\s*(오래|됐|되었|지났)", r"업타임 "),
    (r"(켜|부팅|가동)\S*\s*(지|한\s*지|된\s*지)\s*얼마\S*", "업타임"),
    (r"저장\s*(공간|장치)", r"저장\1"),
    (r"하드\s*디스크", "하드디스크"),
    (r"파일\s*시스템", "파일시스템"),
    (r"가상\s*메모리|스(왑|와프)\s*메모리", "스왑"),
    (r"로드\s*(애버리지|평균)|평균\s*부하|부하\s*평균|load\s*average", "로드애버리지"),
    (r"(서버|컴퓨터|호스트)\s*이름", r"\1이름"),
    (r"(뭐|뭘|무엇|무얼|무엇을|뭐를)\s*(할|물어볼|대답할|답할|알)\s*수\s*있", "도움 "),
    (r"(할|대답할|답할|물어볼)\s*수\s*있는?", "도움 "),
    (r"쓸\s*수\s*있", "쓸수있"),
    (r"차\s*있", "차있"),
    (r"둘\s*중", "둘중"),
    (r"(\d+|[일이삼오육십]+|한|두|세|네|다섯|열)\s*(초|분|시간)\s*(전|동안|사이)", r" \1\2\3 "),
    (r"(이상|문제|별일|탈)\s*(은|는|이|가)?\s*없", "정상 "),
    (r"잘\s*(돌아가|되|돼|있)", "정상 "),
    (r"어떻게\s*(하면|해야|하지|하나)", "방법 "),
    (r"몇\s*(도)\b", "온도 "),
)

NAMES: dict[str, str] = {
    "파이썬": "python",
    "크롬": "chrome",
    "크로미움": "chromium",
    "도커": "docker",
    "레디스": "redis",
    "자바": "java",
    "엔진엑스": "nginx",
    "아파치": "apache",
    "포스트그레스": "postgres",
    "노드": "node",
    "구니콘": "gunicorn",
    "배시": "bash",
    "파이어폭스": "firefox",
    "마이에스큐엘": "mysql",
}
"""Programs as people write them in Korean."""
