"""A notifier gets everything once and in order, also after hours and after a process was killed."""

from __future__ import annotations

import http.server
import json
import os
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager
from functools import partial
from itertools import pairwise

import pytest

from om_plugins import hookimpl, signals
from om_plugins.errors import InvalidRequest, Misconfigured, RateLimited
from om_plugins.notifications.delivery.delivery import ATTEMPTS
from om_plugins.types import Notification
from tests.patience import PATIENCE_S, wait_until

DAY_S = 86_400


class Chat:
    """A service that is away while ``error`` is set."""

    name = "chat"

    def __init__(self, error=None):
        self.error = error
        self.asked_at = []
        self.got = []
        self.now = lambda: 0.0

    def send(self, notification, timeout):
        self.asked_at.append(self.now())
        error = self.error(notification) if callable(self.error) else self.error
        if error is not None:
            raise error
        self.got.append(notification.message)


class ChatPlugin:
    def __init__(self, *notifiers):
        self.notifiers = notifiers

    @hookimpl
    def om_notifiers(self, context):
        return list(self.notifiers)


@pytest.fixture
def start(make_runtime, clock):
    """An application with a notifier, as one worker has it."""

    def start(*chats, **settings):
        for chat in chats:
            chat.now = clock.time
        runtime = make_runtime((ChatPlugin(*chats), "chat"), **settings)
        runtime.start()
        runtime.scheduler.run_pending()
        return runtime

    return start


@pytest.fixture
def shared(tmp_path):
    """The settings of workers with one hub."""
    return {"hub_url": f"sqlite:///{tmp_path}/hub.sqlite3"}


def say(runtime, *messages, to="operators"):
    for message in messages:
        runtime.part_of("notifications").error(message, to=to)
    runtime.scheduler.run_pending()


@pytest.fixture
def let_pass(clock):
    def let_pass(seconds, *runtimes, step_s=1.0):
        end = clock.time() + seconds
        while clock.time() < end:
            clock.advance(step_s)
            for runtime in runtimes:
                runtime.scheduler.run_due()
                runtime.scheduler.run_pending()

    return let_pass


def breaker(runtime, number=0):
    durable = [one for one in runtime.part_of("notifications").deliveries if one.durable]
    return durable[number].read_breaker()


def state(runtime):
    return next(one for one in runtime.plugins.get_statuses() if one.name == "chat").state


@contextmanager
def failures():
    seen = []

    def receiver(sender, notifier, error, notification, **extra):
        seen.append((notification.message, type(error).__name__))

    with signals.notification_failed.connected_to(receiver):
        yield seen


# --- outages ------------------------------------------------------------------------------------


OUTAGES = [
    *(
        (error, 12)
        for error in (TimeoutError(), OSError("503"), RateLimited("429"), Misconfigured("401"))
    ),
    *((ConnectionError("refused"), outage_s) for outage_s in (1, 60, 600, 3600, 6 * 3600)),
]


@pytest.mark.parametrize(("error", "outage_s"), OUTAGES, ids=lambda one: repr(one)[:20])
def test_what_was_said_in_an_outage_arrives_when_it_is_over(
    start, let_pass, clock, error, outage_s
):
    chat = Chat(error)
    runtime = start(chat)
    say(runtime, "first", "second")
    let_pass(outage_s, runtime, step_s=max(0.5, outage_s / 150))
    say(runtime, "third")
    chat.error = None
    let_pass(min(outage_s + 2, 60) + 1, runtime)
    assert chat.got == ["first", "second", "third"]
    assert state(runtime) == "active"
    assert breaker(runtime).failures == 0
    say(runtime, "fourth")
    assert chat.got[-1] == "fourth"  # at once again
    assert clock.slept == []


def test_while_it_is_away_it_is_asked_ever_more_rarely(start, let_pass):
    chat = Chat(ConnectionError())
    runtime = start(chat)
    for number in range(60):
        say(runtime, str(number))
        let_pass(60, runtime, step_s=5)
    pauses = [b - a for a, b in pairwise(chat.asked_at)]
    assert len(chat.asked_at) < 140
    assert all(29 <= pause <= 65 for pause in pauses[20:])


def test_one_notification_is_the_probe_and_the_rest_follows(start, let_pass):
    chat = Chat(ConnectionError())
    runtime = start(chat)
    say(runtime, *"abcdef")
    assert len(chat.asked_at) == 1  # not one for each
    let_pass(600, runtime)
    asked = len(chat.asked_at)
    chat.error = None
    let_pass(61, runtime, step_s=0.5)
    assert chat.got == list("abcdef")
    assert len(chat.asked_at) == asked + 6
    assert len(set(chat.asked_at[asked:])) == 1


@pytest.mark.parametrize("asked_s", [2, 20, 90, 7200])
def test_a_wait_that_is_asked_for_is_kept(start, let_pass, asked_s):
    chat = Chat(RateLimited("slow down", retry_after=asked_s))
    runtime = start(chat)
    say(runtime, "a")
    chat.error = None
    for number in range(5):
        let_pass(asked_s / 6, runtime, step_s=asked_s / 6)
        say(runtime, str(number))  # what comes meanwhile does not ask earlier
    assert len(chat.asked_at) == 1
    let_pass(asked_s / 3, runtime, step_s=asked_s / 20)
    assert chat.got == ["a", "0", "1", "2", "3", "4"]
    assert chat.asked_at[1] - chat.asked_at[0] >= asked_s


def test_a_restart_does_not_make_it_ask_earlier(start, let_pass, shared, clock):
    chat = Chat(RateLimited("slow down", retry_after=900))
    first = start(chat, **shared)
    say(first, "a")
    first.close()
    clock.advance(1)
    chat.error = None
    second = start(chat, **shared)
    say(second, "b")
    let_pass(890, second, step_s=10)
    assert len(chat.asked_at) == 1
    let_pass(20, second)
    assert chat.got == ["a", "b"]


def test_an_outage_is_told_once_and_so_is_its_end(start, let_pass, caplog):
    caplog.set_level("INFO", "om_plugins")
    chat = Chat(ConnectionError("nobody there"))
    runtime = start(chat)
    say(runtime, "a", "b", "c")
    let_pass(300, runtime)
    chat.error = None
    let_pass(61, runtime)
    lines = [r.getMessage() for r in caplog.records if "chat" in r.getMessage()]
    assert [line for line in lines if "nobody there" in line] == [
        "plugin chat: Chat.send raised ConnectionError: nobody there; this does not count against "
        "the plugin"
    ]
    (end,) = [line for line in lines if "it works again after" in line]
    assert end.endswith("2 more notifications wait")


def test_one_that_is_away_delays_no_other(start, let_pass):
    away, near = Chat(ConnectionError()), Chat()
    runtime = start(away, near)
    say(runtime, "a")
    let_pass(30, runtime)
    say(runtime, "b")
    assert near.got == ["a", "b"]
    away.error = None
    let_pass(30, runtime)
    assert away.got == ["a", "b"]


# --- what is given up ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (InvalidRequest("400"), "refused"),
        (KeyError("title"), "failed"),
        (ValueError("no text"), "failed"),
        (TypeError("send()"), "failed"),
    ],
)
def test_a_notification_that_is_itself_to_blame_lets_the_next_ones_pass(
    start, let_pass, error, reason, caplog
):
    chat = Chat(lambda note: error if note.message == "bad" else None)
    runtime = start(chat)
    with failures() as failed:
        say(runtime, "a", "bad", "b", "c")
        let_pass(20, runtime)
    assert chat.got == ["a", "b", "c"]
    assert failed == [("bad", type(error).__name__)] * ATTEMPTS
    assert breaker(runtime).dropped == {reason: 1}
    assert breaker(runtime).failures == 0
    assert "a notification is dropped" in caplog.text


def test_an_outage_never_uses_up_the_attempts_of_a_notification(start, let_pass):
    errors = iter([InvalidRequest("x"), *[ConnectionError()] * 8, InvalidRequest("x"), None])
    chat = Chat(lambda note: next(errors))
    runtime = start(chat)
    say(runtime, "a")
    let_pass(300, runtime, step_s=4)
    assert chat.got == ["a"]


def test_a_flood_in_an_outage_drops_the_oldest_counts_and_says_it(start, let_pass, caplog):
    chat = Chat(ConnectionError("nobody there"))
    runtime = start(chat, notify_queue=100)
    with failures() as failed:
        for number in range(400):
            say(runtime, str(number))
    waiting = runtime.hub.scan("delivery.1.")
    assert len(waiting) <= 100 + 50 + 1
    chat.error = None
    let_pass(30, runtime)
    assert chat.got == [str(number) for number in range(300, 400)]
    assert breaker(runtime).dropped == {"too many": 300}
    assert failed.count(("0", "OverflowError")) == 1
    assert "notifications: more than 100 notifications" in caplog.text


@pytest.mark.parametrize("at_once", [5, 200])
def test_the_bounds_hold_while_a_slow_service_takes_what_is_sent(start, clock, let_pass, at_once):
    def answer_slowly(notification):
        waits.append(len(runtime.hub.scan("delivery.1.chat%2Fchat:")))
        clock.advance(5)
        if len(waits) < 30:
            for _ in range(at_once):  # another thread puts them meanwhile
                delivery.put(Notification(kind="info", message="more", to="operators"))

    waits = []
    chat = Chat(answer_slowly)
    runtime = start(chat, notify_queue=20)
    (delivery,) = (one for one in runtime.part_of("notifications").deliveries if one.durable)
    say(runtime, *map(str, range(20)))
    let_pass(10, runtime)
    assert len(waits) >= 30
    assert max(waits) <= 20
    assert breaker(runtime).dropped["too many"] >= 29 * (at_once - 1) - 20


def test_the_bytes_that_wait_are_bounded(start, let_pass):
    chat = Chat(ConnectionError())
    runtime = start(chat, notify_queue_bytes=20_000)
    say(runtime, *(f"{number:03d}" + "x" * 1000 for number in range(60)))
    let_pass(2, runtime)
    chat.error = None
    let_pass(30, runtime)
    assert [one[:3] for one in chat.got] == [f"{number:03d}" for number in range(60)][
        -len(chat.got) :
    ]
    assert 10 < len(chat.got) < 20
    assert breaker(runtime).dropped == {"too many": 60 - len(chat.got)}


def test_what_is_too_old_is_dropped_counted_and_said(start, let_pass, caplog):
    chat = Chat(ConnectionError())
    runtime = start(chat, notify_queue_age=3600)
    say(runtime, "old")
    let_pass(3000, runtime, step_s=60)
    say(runtime, "newer")
    let_pass(1200, runtime, step_s=60)
    chat.error = None
    let_pass(61, runtime)
    assert chat.got == ["newer"]
    assert breaker(runtime).dropped == {"too old": 1}
    assert "dropped 1 notification: it waited for more than 3600 s" in caplog.text


def test_what_grew_too_old_while_no_process_ran_is_counted(start, clock, shared, let_pass):
    chat = Chat(ConnectionError())
    first = start(chat, **shared)
    say(first, "old")
    first.close()
    clock.advance(1.5 * DAY_S)
    chat.error = None
    second = start(chat, **shared)
    let_pass(2, second)
    assert (chat.got, breaker(second).dropped) == ([], {"too old": 1})


def test_a_plugin_in_quarantine_keeps_what_waits_for_its_repair(start, let_pass, shared):
    chat = Chat(KeyError("token"))
    first = start(chat, plugin_failures=2, **shared)
    say(first, "a")
    let_pass(20, first)
    assert state(first) == "quarantined"
    asked = len(chat.asked_at)
    say(first, "b")
    let_pass(100, first)
    assert len(chat.asked_at) == asked
    first.close()
    chat.error = None
    second = start(chat, **shared)
    let_pass(10, second)
    assert chat.got == ["a", "b"]


def test_the_console_and_the_metrics_tell_what_waits_and_what_was_dropped(start, let_pass):
    chat = Chat(ConnectionError("nobody there"))
    runtime = start(chat, notify_queue=2)
    for message in "abc":
        say(runtime, message)
    let_pass(4, runtime)
    (shown,) = runtime.kit.cards()["notifications"].data["deliveries"]
    assert (shown["notifier"], shown["waiting"], shown["dropped"]) == (
        "chat/chat", 2, {"too many": 1},
    )  # fmt: skip
    assert shown["error"] == "ConnectionError: nobody there"
    assert shown["retry_at"] > shown["since"]
    chat.error = None
    let_pass(30, runtime)
    (shown,) = runtime.kit.cards()["notifications"].data["deliveries"]
    assert (shown["waiting"], shown["error"], shown["retry_at"]) == (0, "", None)
    (metric,) = [one for one in runtime.kit.metrics() if one.name == "om_notifications_dropped"]
    assert (metric.value, metric.labels) == (1, {"notifier": "chat/chat", "reason": "too many"})


def test_nothing_is_told_of_a_notifier_that_works(start):
    runtime = start(Chat())
    say(runtime, "a")
    assert runtime.kit.cards()["notifications"].data["deliveries"] == []


# --- what a notifier wants ----------------------------------------------------------------------


def test_what_a_notifier_does_not_want_takes_no_place(start, let_pass):
    chat = Chat(ConnectionError())
    chat.accepts = lambda note: note.to == "operators"
    runtime = start(chat, notify_queue=3)
    say(runtime, "a")
    say(runtime, *map(str, range(50)), to="user:7")
    say(runtime, "b")
    chat.error = None
    let_pass(10, runtime)
    assert chat.got == ["a", "b"]
    assert breaker(runtime).dropped == {}


@pytest.mark.parametrize("answer", [None, 1, "yes", {"yes": True}, [True], lambda: True])
def test_only_true_is_yes(start, answer, caplog):
    chat = Chat()
    chat.accepts = lambda note: answer
    runtime = start(chat)
    say(runtime, "a")
    assert chat.got == []
    assert "notifier chat/chat: accepts() returned" in caplog.text


@pytest.mark.parametrize("kind", ["coroutine", "generator", "False"])
def test_a_send_that_did_not_run_or_says_no_is_no_delivery(start, let_pass, kind, caplog):
    async def send_later(notification):
        raise AssertionError

    def send_slowly(notification):
        yield

    answers = {"coroutine": send_later, "generator": send_slowly, "False": lambda note: False}
    chat = Chat()
    chat.send = lambda notification, timeout: answers[kind](notification)
    runtime = start(chat)
    with failures() as failed:
        say(runtime, "a")
        let_pass(20, runtime)
    assert failed == [("a", "TypeError")] * ATTEMPTS
    assert breaker(runtime).dropped == {"failed": 1}
    assert "send() returned" in caplog.text


def test_what_a_broken_notifier_was_not_asked_about_waits_for_its_repair(start, let_pass, shared):
    chat = Chat()
    chat.accepts = lambda note: note.nothing
    runtime = start(chat, plugin_failures=1, **shared)
    with failures() as failed:
        say(runtime, "a", "b")  # the first one ends in quarantine
    assert failed == [("a", "RuntimeError")]
    assert (chat.got, state(runtime)) == ([], "quarantined")
    say(runtime, "c", "private")
    runtime.close()
    chat.accepts = lambda note: note.message != "private"
    let_pass(10, start(chat, **shared))
    assert chat.got == ["a", "b", "c"]


@pytest.mark.parametrize("error", [ConnectionError("directory"), TimeoutError(), OSError(113, "")])
def test_what_a_notifier_cannot_say_now_whether_it_wants_waits(start, let_pass, error):
    def ask(note):
        if away:
            raise error
        return note.message != "private"

    away = True
    chat = Chat()
    chat.accepts = ask
    runtime = start(chat, plugin_failures=1)
    say(runtime, "a", "private", "b")
    let_pass(120, runtime)
    assert (chat.got, breaker(runtime).waiting, state(runtime)) == ([], 3, "active")
    away = False
    let_pass(120, runtime)
    assert chat.got == ["a", "b"]
    assert breaker(runtime).dropped == {}


@pytest.mark.parametrize("kind", ["coroutine", "generator", "bug"])
def test_an_accepts_that_says_nothing_sends_nothing(start, let_pass, kind):
    async def ask_later(note):
        raise AssertionError

    def ask_slowly(note):
        yield

    answers = {"coroutine": ask_later, "generator": ask_slowly, "bug": lambda note: note.nothing}
    chat = Chat()
    chat.accepts = lambda note: answers[kind](note)
    runtime = start(chat, plugin_failures=100)
    say(runtime, "a")
    let_pass(60, runtime)
    assert (chat.got, breaker(runtime).dropped) == ([], {"failed": 1})


def test_what_a_client_of_a_service_returns_is_no_failure(start):
    chat = Chat()
    chat.send = lambda notification, timeout: {"ok": True}
    runtime = start(chat)
    with failures() as failed:
        say(runtime, "a")
    assert failed == []


@pytest.mark.parametrize("said", [None, True, 1, "id-17", 0, object()])
def test_what_send_returns_else_says_nothing(start, said):
    class Says(Chat):
        def send(self, notification, timeout):
            super().send(notification, timeout)
            return said

    chat = Says()
    say(start(chat), "a")
    assert chat.got == ["a"]


def test_a_notifier_that_writes_into_this_process_alone_stores_nothing(start):
    chat = Chat()
    chat.durable = False
    runtime = start(chat)
    say(runtime, "a", "b")
    assert chat.got == ["a", "b"]
    assert runtime.hub.scan("delivery.") == {}


# --- several workers ----------------------------------------------------------------------------


def test_several_workers_send_each_notification_once_and_in_order(start, let_pass, shared):
    chats = [Chat(ConnectionError()) for _ in range(3)]
    runtimes = [start(chat, **shared) for chat in chats]
    for number in range(30):
        say(runtimes[number % 3], f"{number:02d}")
        let_pass(0.5, *runtimes, step_s=0.5)
    for chat in chats:
        chat.error = None
    let_pass(100, *runtimes)
    assert sorted(one for chat in chats for one in chat.got) == [f"{n:02d}" for n in range(30)]
    for chat in chats:
        assert chat.got == sorted(chat.got)


def test_several_workers_together_send_one_probe(start, let_pass, shared):
    chats = [Chat(ConnectionError()) for _ in range(3)]
    runtimes = [start(chat, **shared) for chat in chats]
    for runtime in runtimes:
        say(runtime, "a")
    let_pass(600, *runtimes, step_s=2)
    asked = sorted(at for chat in chats for at in chat.asked_at)
    pauses = [b - a for a, b in pairwise(asked)]
    assert all(pause >= 28 for pause in pauses[12:])


def test_another_worker_sends_what_one_that_ended_has_left(start, let_pass, shared):
    gone, other = Chat(ConnectionError()), Chat()
    first, second = start(gone, **shared), start(other, **shared)
    say(first, "a", "b")
    let_pass(100, second)  # the first one does nothing any more
    assert other.got == ["a", "b"]


def test_a_process_that_starts_anew_sends_what_is_left_without_a_new_notification(
    start, let_pass, shared
):
    chat = Chat(ConnectionError())
    first = start(chat, **shared)
    say(first, "a", "b", "c")
    first.close()
    chat.error = None
    second = start(chat, **shared)
    let_pass(5, second)
    assert chat.got == ["a", "b", "c"]


def test_a_send_that_never_returns_holds_up_its_own_worker_only(
    start, clock, shared, let_pass, caplog
):
    def hang(notification):
        for _ in range(50):  # the timer goes on meanwhile
            clock.advance(2)
            first.scheduler.run_due()
            second.scheduler.run_due()
            second.scheduler.run_pending()

    stuck, well = Chat(hang), Chat()
    first, second = start(stuck, **shared), start(well, **shared)
    say(first, "a", "b")
    assert well.got[:2] == ["a", "b"]
    assert caplog.text.count("send() has not returned for more than 60 s") == 1
    say(second, "c")
    let_pass(60, first, second)
    assert sorted({*stuck.got, *well.got}) == ["a", "b", "c"]


@pytest.mark.parametrize("asked_s", [DAY_S, 10 * DAY_S, 2**40])
def test_a_wait_without_end_does_not_outlast_what_waits(start, let_pass, asked_s):
    chat = Chat(RateLimited("later", retry_after=asked_s))
    runtime = start(chat, notify_queue_age=1000.0)
    say(runtime, "a")
    let_pass(890, runtime, step_s=10)
    assert len(chat.asked_at) == 1
    chat.error = None
    let_pass(60, runtime, step_s=10)
    assert (chat.got, breaker(runtime).dropped) == (["a"], {})


def test_the_reason_of_a_failure_shows_no_secrets(start):
    chat = Chat(
        ConnectionError(
            "HTTPSConnectionPool(host='hooks.slack.com', port=443): Max retries exceeded with url: "
            "/services/T0AB/B0CD/s3cretpath (token=s3cret1)\x1b[31m\nAuthorization: Bearer s3cret22"
        )
    )
    runtime = start(chat)
    say(runtime, "a")
    said = breaker(runtime).error
    assert "s3cret" not in said
    assert said.isprintable()
    (status,) = (one for one in runtime.plugins.get_statuses() if one.name == "chat")
    assert "s3cret" not in status.reason


def test_a_slow_notifier_is_not_overtaken_by_another_worker(start, clock, shared, let_pass):
    slow, other = Chat(), Chat()
    first, second = start(slow, **shared), start(other, **shared)

    def take_long(note):
        for _ in range(10):  # much longer than it may
            clock.advance(3.5)
            first.scheduler.run_due()
            for delivery in second.part_of("notifications").deliveries:
                delivery.look()
            second.scheduler.run_pending()

    slow.error = take_long
    say(first, "a")
    let_pass(60, first, second)
    assert (slow.got, other.got) == (["a"], [])


@pytest.mark.parametrize(
    ("settings", "plugins", "looks"),
    [
        ({}, [], False),
        ({"plugin_config": {"notifier-log": {}}}, [], True),
        ({"plugin_config": {"notifier-webhook": {}}}, [], True),
        ({}, [(ChatPlugin(Chat()), "chat")], True),
        ({"plugins_disabled": ["notifier-webhook"]}, [], False),
    ],
)
def test_only_an_application_with_notifiers_of_its_own_looks_for_what_is_left(
    make_runtime, settings, plugins, looks
):
    runtime = make_runtime(*plugins, **settings)
    assert (runtime.kit.find_built("notifications") is not None) is looks


# --- a real process -----------------------------------------------------------------------------

WORKER = """
import sys, time
from om_plugins import OpenManagerMiddleware, Settings
from werkzeug.test import Client

def page(environ, start_response):
    start_response("200 OK", [("Content-Length", "0")])
    return [b""]

app = OpenManagerMiddleware(page, Settings(
    hub_url=sys.argv[1],
    plugin_config={"notifier-webhook": {"url": sys.argv[2], "template": {"text": "{text}"}}},
))
Client(app).get("/")
for message in sys.argv[3:]:
    app.runtime.part_of("notifications").error(message, to="operators")
print("said", flush=True)
time.sleep(600)
"""


class Hook(http.server.ThreadingHTTPServer):
    """A webhook that refuses until ``good`` is set."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), HookHandler)
        self.good = threading.Event()
        self.refused = []
        self.got = []


class HookHandler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        text = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["text"]
        good = self.server.good.is_set()
        (self.server.got if good else self.server.refused).append(text)
        self.send_response(204 if good else 503)
        self.end_headers()

    def log_message(self, *args):
        pass


@pytest.mark.server
@pytest.mark.skipif(os.name != "posix", reason="kills as POSIX does")
def test_a_process_that_is_killed_loses_nothing_and_nothing_is_sent_twice(tmp_path):
    pytest.importorskip("h11")
    hook = Hook()
    serving = threading.Thread(target=partial(hook.serve_forever, 0.05))
    serving.start()
    started = []

    def run(*messages):
        process = subprocess.Popen(
            [
                sys.executable, "-c", WORKER, f"sqlite:///{tmp_path}/om/hub.sqlite3",
                f"http://127.0.0.1:{hook.server_port}/in", *messages,
            ],
            stdout=subprocess.PIPE,
        )  # fmt: skip
        started.append(process)
        assert process.stdout.readline() == b"said\n"
        return process

    try:
        first = run("a", "b", "c")
        wait_until(lambda: len(hook.refused) >= 2)  # all are stored, and it waits
        os.kill(first.pid, signal.SIGKILL)
        first.wait(PATIENCE_S)
        hook.good.set()
        run()
        run("d")
        wait_until(lambda: len(hook.got) == 4, lambda: str(hook.got), patience_s=2 * PATIENCE_S)
        assert sorted(hook.got) == ["a", "b", "c", "d"]
        assert hook.got[:3] == ["a", "b", "c"]
        assert set(hook.refused) == {"a"}
    finally:
        for process in started:
            process.kill()
            process.wait(PATIENCE_S)
            process.stdout.close()
        hook.shutdown()
        hook.server_close()
        serving.join(PATIENCE_S)
