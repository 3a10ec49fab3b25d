"""Visitors, and a page that they ask for twice: of an app with a cache, and of one without."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from flask import Flask
from flask.globals import request_ctx

from om_plugins import OpenManager
from om_plugins.core.request_state import state_of
from om_plugins.flask.current import plain_environ

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from flask.sessions import SecureCookieSessionInterface


@dataclass(frozen=True)
class Visitor:
    """What one request brings."""

    session: Mapping[str, Any] = field(default_factory=dict)
    cookies: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    environ: Mapping[str, Any] = field(default_factory=dict)
    path: str = "/page"

    def ask(self, app: Flask, path: str = "") -> Any:
        client = app.test_client()
        if self.session:
            interface = cast("SecureCookieSessionInterface", app.session_interface)
            serializer = interface.get_signing_serializer(app)
            client.set_cookie("session", serializer.dumps(dict(self.session)))
        for name, value in self.cookies.items():
            client.set_cookie(name, value)
        return client.get(path or self.path, headers=self.headers, environ_overrides=self.environ)


NOBODY = Visitor()

SETTINGS = {
    "OM_HUB_URL": "memory://",
    "OM_CSP_MODE": "off",  # else chance chooses requests that report, which have pages of their own
    "TESTING": True,
}


def build_app(**config: object) -> tuple[Flask, OpenManager]:
    """Build an app for pages that need routes of their own."""
    app = Flask("site")
    app.secret_key = "of the test"
    app.config.update(SETTINGS, **config)
    return app, OpenManager(app)


class Site:
    """An app with a cache, and the same app without one; both have any number of pages.

    Args:
        setup: adds to an app what its pages need.
        flask_class: of both apps.
        route: of the pages, below their number.
        config: settings of both apps.
        secret_key: of both apps.
        options: of ``@om.cached``.
    """

    def __init__(
        self,
        *,
        setup: Callable[[Flask], object] = lambda app: None,
        flask_class: type[Flask] = Flask,
        route: str = "/page",
        config: Mapping[str, object] | None = None,
        secret_key: str | None = "of the test",
        **options: Any,
    ) -> None:
        self.pages: list[Page] = []
        self.plain, self.app = flask_class("site"), flask_class("site")
        for app in (self.plain, self.app):
            app.secret_key = secret_key
            app.config.update(SETTINGS, **(config or {}))
            setup(app)
        self.om = OpenManager(self.app)

        def view(number: int, **values: Any) -> str:
            return str(self.pages[number].body(**values))

        def page(number: int, **values: Any) -> str:
            self.pages[number].runs += 1
            return view(number, **values)

        self.plain.add_url_rule(f"/<int:number>{route}", "page", view)
        self.app.add_url_rule(f"/<int:number>{route}", "page", self.om.cached(**options)(page))
        self.app.teardown_request(self._keep_inputs)

    def _keep_inputs(self, error: object) -> None:
        number = (request_ctx.request.view_args or {}).get("number", 0)
        self.pages[number].inputs = state_of(plain_environ(request_ctx.request), self.app).inputs


find_usual_site = functools.cache(Site)


class Page:
    """A page of a site.

    Args:
        body: returns the body.
        more: see :class:`Site`; without it, the page is one of a site that many pages share.
    """

    def __init__(self, body: Callable[..., object], **more: Any) -> None:
        self.body = body
        self.runs = 0
        self.inputs: Any = None
        self.site = Site(**more) if more else find_usual_site()
        self.app, self.om = self.site.app, self.site.om
        self.number = len(self.site.pages)
        self.site.pages.append(self)

    def request(self, visitor: Visitor, app: Flask | None = None) -> Any:
        """Return the response to a visitor."""
        return visitor.ask(self.app if app is None else app, f"/{self.number}{visitor.path}")

    def ask(self, visitor: Visitor) -> str:
        """Return the cached page of a visitor, which must be what the app without a cache says."""
        found, expected = self.request(visitor), self.request(visitor, self.site.plain)
        assert (found.status_code, found.text) == (expected.status_code, expected.text)
        return str(found.text)

    @property
    def counted(self) -> set[str]:
        """The inputs that the last request looked at."""
        return set(self.inputs.counted)

    def purge(self, path: str = "/page") -> int:
        """Remove what is stored of it; return how many responses that were."""
        return self.om.cache.purge(prefix=("view", f"/{self.number}{path}"))


def tell_apart(
    body: Callable[..., object], one: Visitor, other: Visitor, *, kept: bool = True, **more: Any
) -> Page:
    """Ask for a page as two visitors in turn: each gets his own, from the cache when it is kept."""
    page = Page(body, **more)
    texts = [page.ask(visitor) for visitor in (one, other, one, other)]
    assert texts[0] != texts[1], "the page does not differ, so the test says nothing"
    assert page.runs == (2 if kept else 4)
    return page


def share(body: Callable[..., object], *visitors: Visitor, **more: Any) -> Page:
    """Ask for a page as several visitors: one making serves all."""
    page = Page(body, **more)
    for visitor in visitors:
        page.ask(visitor)
    assert page.runs == 1
    return page
