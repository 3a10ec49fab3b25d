"""The webhook notifier: it POSTs each notification to one URL.

It is inactive until it has a URL:
``OM_PLUGIN_CONFIG = {"notifier-webhook": {"url": "https://…"}}``.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

from ..core.fork import hold_forks
from ..errors import EngineError, Transient
from ..hookspecs import hookimpl
from ..protocols import Notifier, PluginContext
from ..settings.extras import check_installed
from ..types import Call, Notification, PluginInfo
from .address import Origin, check_headers, parse_url

if TYPE_CHECKING:
    from .http.outbound_proxy import OutboundProxy
    from .http.transport import Transport

_CONNECT_S = 3.0
_MAX_TEXT = 4_000
_FIELDS = ("kind", "title", "message", "to", "id", "key")


@dataclass(frozen=True, kw_only=True)
class WebhookConfig:
    """``OM_PLUGIN_CONFIG["notifier-webhook"]``.

    Attributes:
        url: the URL to POST to. Nothing is sent without it.
        headers: more headers of the request, such as ``Authorization``.
        to: the addresses whose notifications are sent. A notification to a single browser may be
            private, so by default only those to the operators and to everyone are sent.
        template: the JSON to send, as a mapping whose texts may contain ``{kind}``, ``{title}``,
            ``{message}``, ``{to}``, ``{id}``, ``{key}`` and ``{text}`` (title and message), such as
            ``{"text": "{text}"}`` for many chats. Without it, all fields are sent as they are.

    Raises:
        ConfigError: the URL is not an HTTP URL, or holds credentials; a header cannot be sent.
        MissingExtra: there is a URL, and h11 is not installed.
    """

    url: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    to: list[str] = field(default_factory=lambda: ["operators", "everyone"])
    template: dict[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.url:
            parse_url("url", self.url, hidden=True)
            check_headers("headers", self.headers)
            check_installed("url", "…", "http")


class WebhookRefused(ConnectionError):
    """The server answered with a status other than 2xx.

    Args:
        host: of the URL; the rest of it often is a password.
        status: of the answer.
        headers: of the answer, which may ask to wait.
    """

    def __init__(self, host: str, status: int, headers: Mapping[str, str]) -> None:
        super().__init__(f"{host} answered {status}")
        self.status = status
        self.headers = headers


class WebhookNotifier:
    """POSTs JSON. A response other than 2xx is a failure; redirects are not followed.

    Args:
        config: the URL and what to send.
        proxy: the forward proxy to the URL, as ``OM_OUTBOUND_PROXY`` has it.

    Raises:
        ConfigError: the proxy is wrong.
    """

    name = "webhook"

    def __init__(self, config: WebhookConfig, proxy: str | None = None) -> None:
        self._config = config
        self._origin, self._target = parse_url("url", config.url, hidden=True)
        self._proxy = None if proxy is None else _find_proxy(self._origin, proxy)
        self._transport: Transport | None = None

    def accepts(self, notification: Notification) -> bool:
        """Return whether the notification is for one of the addresses in the settings."""
        return notification.to in self._config.to

    def send(self, notification: Notification, timeout: float) -> None:
        """POST the notification.

        Raises:
            WebhookRefused: the server answered that it does not take it, or not now.
            OSError: it was not delivered. The message names only the host.
        """
        if not self.accepts(notification):
            return
        if self._transport is None:  # created here, in the process that uses it
            self._transport = _open_transport(self._origin, self._proxy)
        body = json.dumps(self._build_body(notification), ensure_ascii=False, default=str)
        try:
            exchange = self._transport.open(
                "POST",
                self._target,
                body=body.encode("utf-8", "replace"),
                headers={"Content-Type": "application/json", **self._config.headers}.items(),
                call=Call(None, deadline=time.monotonic() + timeout),
                where=self._host(),
                limit_s=timeout,
            )
        except (EngineError, UnicodeError) as error:
            if isinstance(error, Transient) and error.sent == "no":
                raise ConnectionError(str(error)) from None  # of the host and the system alone
            # without the text of the error: a header or the URL often is a password
            raise ConnectionError(f"{self._host()}: {type(error).__name__}") from None
        exchange.close()  # the body is not needed, and it may never end
        if not 200 <= exchange.status < 300:
            raise WebhookRefused(self._host(), exchange.status, exchange.headers)

    def _host(self) -> str:
        return self._origin[1]

    def _build_body(self, note: Notification) -> object:
        if not self._config.template:
            return asdict(note)
        title = f"{note.title}: " if note.title else ""
        values = {name: getattr(note, name) for name in _FIELDS}
        values["text"] = f"{title}{note.message}"[:_MAX_TEXT]
        return _fill(self._config.template, values)


def _find_proxy(origin: Origin, proxy: str) -> OutboundProxy | None:
    with hold_forks():
        from .http.outbound_proxy import find_proxy

    return find_proxy("OM_OUTBOUND_PROXY", proxy, *origin)


def _open_transport(origin: Origin, proxy: OutboundProxy | None) -> Transport:
    with hold_forks():
        from .http.transport import Transport

    return Transport(*origin, connect_timeout_s=_CONNECT_S, proxy=proxy)


def _fill(template: object, values: Mapping[str, str]) -> object:
    if isinstance(template, str):
        # one pass: the text of a notification must not be read as a template
        parts = template.split("{")
        text = parts[0]
        for part in parts[1:]:
            name, closed, rest = part.partition("}")
            text += values[name] + rest if closed and name in values else "{" + part
        return text
    if isinstance(template, Mapping):
        return {name: _fill(one, values) for name, one in template.items()}
    if isinstance(template, list | tuple):
        return [_fill(one, values) for one in template]
    return template


@hookimpl
def om_plugin_info() -> PluginInfo:
    return PluginInfo(
        summary="POSTs notifications to a URL; off until it has one",
        config_class=WebhookConfig,
    )


@hookimpl
def om_notifiers(context: PluginContext) -> Iterable[Notifier]:
    config = context.config
    if isinstance(config, WebhookConfig) and config.url:
        return [WebhookNotifier(config, context.outbound_proxy)]
    return []
