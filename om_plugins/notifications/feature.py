"""Notifications: toasts in browsers, messages through notifiers, problem reports."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from ..plugins.feature import Feature
from ..plugins.kit import Card
from ..settings.kinds import LISTING_CALLBACK
from ..settings.table import Table, key

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

    from ..plugins.kit import Kit
    from .notifications import Notifications
    from .report_form import MakePage

MAX_SHOWN = 20
"""How many problem reports the console shows."""


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


class NotificationsFeature(Feature["Notifications", NotificationKeys]):
    """``om.notify``, the browsers' event stream and the reports of problems."""

    name = "notifications"
    keys = NotificationKeys

    def is_needed(self, kit: Kit, keys: NotificationKeys) -> bool:
        return False

    def build(self, kit: Kit, keys: NotificationKeys) -> Notifications:
        from .audience import Browsers
        from .changed_keys import ChangedKeys
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

    def card(self, kit: Kit, part: Notifications) -> Card:
        data = {
            "notifications": part.recent.read(),
            "problems": part.problem_reports.read(MAX_SHOWN),
        }
        return Card("Notices", data=data)

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


def _report_form(kit: Kit, part: Notifications, make_page: MakePage) -> WSGIApplication:
    """The endpoint of the form on a page that was sent in place of one that failed."""
    from .report_form import ReportForm

    return _limited(kit, ReportForm(part.problem_reports, make_page))


def _limited(kit: Kit, app: WSGIApplication) -> WSGIApplication:
    """What reports a problem may be sent ten times a minute by one client, in all ways together."""
    from ..workers.rate_limit import PostGuard, RateLimit

    name = kit.keys.prefix + "/problems"
    return PostGuard(app, RateLimit(name, (10, 60), kit.hub, kit.secret, kit.clock))
