"""Notifications: toasts in browsers, messages through notifiers, problem reports."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from ..plugins.feature import Feature
from ..plugins.kit import Card, Metric
from ..settings.kinds import LISTING_CALLBACK, integer, number
from ..settings.table import Table, key

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

    from ..plugins.kit import Kit
    from .notifications import Notifications
    from .report_form import MakePage

MAX_SHOWN = 20
"""How many problem reports the console shows."""

_ABOUT_DROPPED = "Notifications that a notifier did not get"


@dataclass(frozen=True, slots=True, kw_only=True)
class NotificationKeys(Table):
    """The settings of notifications."""

    PREFIX: ClassVar[str] = "OM_"

    notify_audience: Callable[..., Any] | None = key(
        None,
        LISTING_CALLBACK,
        "called with the request, in the host's request context; gives the addresses that it "
        "speaks for, such as `['user:7', 'role:editor', 'operators']`",
        "Notifications",
    )
    notify_queue: int = key(
        1_000,
        integer(1, 100_000),
        "notifications that wait for one notifier at most; the oldest are dropped",
        "Notifications",
    )
    notify_queue_bytes: int = key(
        4_000_000,
        integer(10_000),
        "bytes of the notifications that wait for one notifier at most; the oldest are dropped",
        "Notifications",
    )
    notify_queue_age: float = key(
        86_400.0,
        number(1.0, unit="seconds"),
        "seconds that a notification waits for its notifier; then it is dropped",
        "Notifications",
    )


class NotificationsFeature(Feature["Notifications", NotificationKeys]):
    """``om.notify``, the browsers' event stream and the reports of problems."""

    name = "notifications"
    keys = NotificationKeys

    def is_needed(self, kit: Kit, keys: NotificationKeys) -> bool:
        """Return whether a process that has ended may have left notifications for a notifier."""
        return any(
            status.source != "built-in" or status.name in kit.keys.plugin_config
            for status in kit.plugins.find_statuses("om_notifiers")
        )

    def build(self, kit: Kit, keys: NotificationKeys) -> Notifications:
        from .audience import Browsers
        from .changed_keys import ChangedKeys
        from .delivery.bounds import QueueLimits
        from .notifications import TOPIC, Notifications
        from .problem_reports import ProblemReports
        from .recent import RecentNotifications

        notifications = Notifications(
            hub=kit.hub,
            scheduler=kit.scheduler,
            clock=kit.clock,
            emit=kit.emit,
            notifiers=lambda: kit.plugin_parts.notifiers,
            guarded=kit.plugins.call_guarded,
            limits=QueueLimits(
                count=keys.notify_queue,
                size_bytes=keys.notify_queue_bytes,
                age_s=keys.notify_queue_age,
            ),
            browsers=Browsers(kit.secret),
            environ=kit.environ,
        )
        notifications.problem_reports = ProblemReports(
            hub=kit.hub, clock=kit.clock, emit=kit.emit, notify=notifications
        )
        notifications.changed_keys = ChangedKeys(kit.hub)
        notifications.recent = RecentNotifications(kit.hub, TOPIC)
        notifications.report_form = functools.partial(_report_form, kit, notifications)
        return notifications

    def start(self, kit: Kit, part: Notifications) -> None:
        part.start()

    def card(self, kit: Kit, part: Notifications) -> Card:
        data = {
            "notifications": part.recent.read(),
            "deliveries": list(_list_deliveries(kit, part)),
            "problems": part.problem_reports.read(MAX_SHOWN),
        }
        return Card("Notices", data=data)

    def metrics(self, kit: Kit, part: Notifications) -> Iterable[Metric]:
        for delivery in part.deliveries:
            for reason, count in delivery.count_dropped().items():
                labels = {"notifier": delivery.name, "reason": reason}
                yield Metric("om_notifications_dropped", _ABOUT_DROPPED, count, labels)

    def endpoints(self, kit: Kit, part: Notifications) -> Mapping[str, WSGIApplication]:
        from ..workers.rate_limit import PostGuard
        from .event_stream import EventsEndpoint
        from .problem_reports import ProblemEndpoint

        events = EventsEndpoint(
            hub=kit.hub,
            clock=kit.clock,
            browsers=part.browsers,
            updates=part.changed_keys,
            prefix=kit.keys.prefix,
            sse_max=kit.keys.sse_max,
            audience=kit.settings.of(NotificationKeys).notify_audience,
            host_context=kit.host.request_context,
            closed=kit.is_closed,
        )
        return {
            "/events": PostGuard(events),
            "/problems": _limited(kit, ProblemEndpoint(part.problem_reports)),
        }


def _list_deliveries(kit: Kit, part: Notifications) -> Iterator[dict[str, Any]]:
    """The notifiers that something waits for, or that did not get something, as data for JSON."""
    for delivery in part.deliveries:
        breaker = delivery.read_breaker()
        if breaker.failures or breaker.dropped:
            yield {
                "notifier": delivery.name,
                "waiting": breaker.waiting,
                "since": breaker.since or None,
                "retry_at": breaker.retry_at or None,
                "error": breaker.error,
                "dropped": breaker.dropped,
            }


def _report_form(kit: Kit, part: Notifications, make_page: MakePage) -> WSGIApplication:
    """The endpoint of the form on a page that was sent in place of one that failed."""
    from .report_form import ReportForm

    return _limited(kit, ReportForm(part.problem_reports, make_page))


def _limited(kit: Kit, app: WSGIApplication) -> WSGIApplication:
    """What reports a problem may be sent ten times a minute by one client, in all ways together."""
    from ..workers.rate_limit import PostGuard, RateLimit

    name = kit.keys.prefix + "/problems"
    return PostGuard(app, RateLimit(name, (10, 60), kit.hub, kit.secret, kit.clock))
