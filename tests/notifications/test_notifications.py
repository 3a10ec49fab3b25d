"""Notifications reach browsers and notifiers; a broken notifier stops nobody."""

from __future__ import annotations

import pytest

from om_plugins import hookimpl, signals
from om_plugins.errors import InvalidRequest
from om_plugins.types import Action, Notification


class Kept:
    name = "kept"

    def __init__(self):
        self.got = []

    def send(self, notification, timeout):
        self.got.append((notification, timeout))


class Broken:
    """Fails so many times, then works."""

    name = "broken"

    def __init__(self, times=10**6, error=ConnectionError):
        self.left = times
        self.error = error
        self.got = []

    def send(self, notification, timeout):
        self.left -= 1
        if self.left >= 0:
            raise self.error("nobody there")
        self.got.append(notification.message)


class Plugin:
    def __init__(self, *notifiers):
        self.notifiers = notifiers

    @hookimpl
    def om_notifiers(self, context):
        return list(self.notifiers)


def published(runtime):
    runtime.scheduler.run_pending()
    return [message.data for message in runtime.hub.read("notifications", limit=10_000)]


def test_a_notification_reaches_notifier_hub_and_signal(make_runtime):
    kept = Kept()
    runtime = make_runtime((Plugin(kept), "kept"))
    seen = []

    def receiver(sender, notification, **extra):
        seen.append(notification)

    note = Notification(
        kind="error", message="No answer", actions=(Action("Refresh", "refresh"),), key="k"
    )
    with signals.notification_sent.connected_to(receiver):
        runtime.part_of("notifications")(note)
        assert kept.got == []  # nothing happens on the caller's path
        runtime.scheduler.run_pending()
    ((got, timeout),) = kept.got
    assert (got.message, got.at > 0, timeout > 0) == ("No answer", True, True)
    (message,) = runtime.hub.read("notifications")
    assert message.data["actions"] == [{"label": "Refresh", "action": "refresh", "value": ""}]
    assert seen[0].id == message.id


@pytest.mark.parametrize("kind", ["success", "error", "warning", "info"])
def test_each_kind_has_a_method_that_takes_the_same_keywords(make_runtime, kind):
    runtime = make_runtime()
    getattr(runtime.part_of("notifications"), kind)(
        "Saved",
        title="File",
        to="user:7",
        actions=[Action("Open", "link", "/file/7")],
        duration=9,
        key="file",
        data={"file": 7},
    )
    (data,) = published(runtime)
    assert {name: data[name] for name in ("kind", "message", "title", "to", "duration_s")} == {
        "kind": kind, "message": "Saved", "title": "File", "to": "user:7", "duration_s": 9,
    }  # fmt: skip
    assert (data["key"], data["data"]) == ("file", {"file": 7})


@pytest.mark.parametrize("to", ["", "alice", "user:", "sid:short", "user:a b", "all", "EVERYONE"])
def test_a_wrong_address_is_an_error_that_names_the_ways_out(make_runtime, to):
    runtime = make_runtime()
    with pytest.raises(ValueError, match=r"must be 'everyone', 'operators', 'user:<id>'"):
        runtime.part_of("notifications").info("x", to=to)
    with pytest.raises(ValueError, match="must be"):
        runtime.part_of("notifications").progress("x", to=to)
    assert published(runtime) == []


def test_outside_a_request_it_goes_to_the_operators(make_runtime):
    runtime = make_runtime()
    runtime.part_of("notifications").info("Nightly job done")
    assert published(runtime)[0]["to"] == "operators"


def test_in_a_request_it_goes_to_the_browser_that_asked(make_runtime):
    asked = {}
    runtime = make_runtime(environ=lambda: asked)
    address, cookie = runtime.part_of("notifications").browsers.assign_address({}, "")
    asked["HTTP_COOKIE"] = cookie.partition(";")[0]
    runtime.part_of("notifications").success("Saved")
    progress = runtime.part_of("notifications").progress("Working")
    asked.clear()  # the request is over; the progress still goes to the same browser
    progress.complete("Done")
    assert [data["to"] for data in published(runtime)] == [address] * 3


@pytest.mark.parametrize("cookies", ["", "om_sid=AAAAAAAAAAAAAAAAAAAAAA.AAAAAAAAAAAAAAAAAAAAAA"])
def test_a_browser_that_is_not_known_gets_nothing_and_notifiers_do(make_runtime, cookies):
    kept = Kept()
    runtime = make_runtime((Plugin(kept), "kept"), environ=lambda: {"HTTP_COOKIE": cookies})
    runtime.part_of("notifications").success("Saved")
    assert published(runtime) == []
    assert kept.got[0][0].to == "sid:"


def test_a_progress_is_one_toast_that_ends_as_a_success(make_runtime):
    kept = Kept()
    runtime = make_runtime((Plugin(kept), "kept"))
    progress = runtime.part_of("notifications").progress("Reading", to="everyone")
    for done in range(1000):
        progress.update(done / 10)
    progress.update(99, "Writing")
    progress.complete("All done")
    notes = published(runtime)
    assert len({note["key"] for note in notes}) == 1
    assert len(notes) == 1 + 99 + 1 + 1  # what would look the same is not sent
    assert [note["progress"] for note in notes[:100]] == sorted(n["progress"] for n in notes[:100])
    assert (notes[-2]["message"], notes[-2]["progress"]) == ("Writing", 99)
    assert (notes[-1]["kind"], notes[-1]["message"], notes[-1]["progress"]) == (
        "success", "All done", 100,
    )  # fmt: skip
    assert [note.message for note, _ in kept.got] == ["Reading", "All done"]


def test_a_failed_progress_stays_when_it_has_actions(make_runtime):
    runtime = make_runtime()
    runtime.part_of("notifications").progress("Repairing", to="everyone").fail()
    runtime.part_of("notifications").progress("Repairing", to="everyone").fail(
        "It did not work", actions=[Action("Refresh", "refresh")]
    )
    _, first, _, second = published(runtime)
    assert (first["kind"], first["message"], first["duration_s"]) == ("error", "Repairing", 5)
    assert (second["message"], second["duration_s"]) == ("It did not work", None)


def test_a_notifier_that_fails_is_tried_again_after_1_2_and_4_seconds(make_runtime, clock):
    broken = Broken(times=3)
    runtime = make_runtime((Plugin(broken), "broken"))
    runtime.part_of("notifications")(Notification(kind="info", message="first"))
    runtime.part_of("notifications")(Notification(kind="info", message="second"))
    runtime.scheduler.run_pending()
    for wait_s in (1, 2, 4):
        assert broken.got == []
        clock.advance(0.4 * wait_s)
        assert runtime.scheduler.run_due() == 0
        clock.advance(0.6 * wait_s)
        assert runtime.scheduler.run_due() == 1
    assert broken.got == ["first", "second"]  # in order
    clock.advance(60)
    assert runtime.scheduler.run_due() == 0
    assert clock.slept == []


def test_after_the_last_try_the_next_notification_has_its_turn(make_runtime, clock):
    broken = Broken(times=4, error=InvalidRequest)
    runtime = make_runtime((Plugin(broken), "broken"))
    runtime.part_of("notifications")(Notification(kind="info", message="first"))
    runtime.part_of("notifications")(Notification(kind="info", message="second"))
    runtime.scheduler.run_pending()
    for _ in range(3):
        clock.advance(5)
        runtime.scheduler.run_due()
    assert broken.got == ["second"]


def test_a_broken_notifier_is_told_of_quarantined_and_the_others_still_get_it(make_runtime, clock):
    kept, broken = Kept(), Broken(error=KeyError)
    runtime = make_runtime((Plugin(broken), "broken"), (Plugin(kept), "kept"), plugin_failures=2)
    failed = []

    def receiver(sender, notifier, error, **extra):
        failed.append((notifier, type(error)))

    with signals.notification_failed.connected_to(receiver):
        for _ in range(4):
            runtime.part_of("notifications")(Notification(kind="info", message="hello"))
            runtime.scheduler.run_pending()
        assert len(kept.got) == 4
        clock.advance(5)
        runtime.scheduler.run_due()
    states = {status.name: status.state for status in runtime.plugins.get_statuses()}
    assert states["broken"] == "quarantined"
    assert failed[:2] == [("broken", KeyError)] * 2
    clock.advance(5)
    runtime.scheduler.run_due()
    runtime.part_of("notifications")(Notification(kind="info", message="hello"))
    runtime.scheduler.run_pending()
    assert broken.left == 10**6 - 2  # it is not called any more
    assert len(kept.got) == 5


def test_a_flood_is_bounded_and_said_once(make_runtime, caplog):
    runtime = make_runtime()
    for _ in range(1500):
        runtime.part_of("notifications").info("flood", to="everyone")
    runtime.scheduler.run_pending()
    assert len(runtime.hub.read("notifications", limit=10_000)) == 1000
    assert [r.message for r in caplog.records if "left out" in r.message] == [
        "more than 1000 notifications wait to be sent: some are left out"
    ]
