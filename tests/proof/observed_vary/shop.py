"""A shop with real extensions, fifty visitors who walk about in it, and whose page each one gets.

Flask-Login signs in, Flask-WTF guards the forms, Flask-Session keeps the sessions on the server,
Flask-Limiter counts addresses, Flask-Babel chooses the language.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from io import BytesIO
from random import Random
from typing import Any
from unittest.mock import patch
from urllib.parse import urlencode

from cachelib import SimpleCache
from flask import Flask, Response, redirect, request, session
from flask_babel import Babel, format_decimal, get_locale
from flask_limiter import Limiter
from flask_limiter.util import get_remote_address
from flask_login import (
    LoginManager,
    UserMixin,
    login_required,
    login_user,
    logout_user,
)
from flask_session import Session
from flask_wtf import CSRFProtect, FlaskForm
from jinja2 import DictLoader
from wtforms import IntegerField

from om_plugins import OpenManager
from om_plugins.testing.fakes import FakeClock

from .apps import HUB, OTHER_PLUGINS
from .driving import Reply, call, read_cookies

LANGUAGES = ("en", "de", "fr")
WORDS = {
    "en": ("welcome", "1,234.5"),
    "de": ("willkommen", "1.234,5"),
    "fr": ("bienvenue", "1\u202f234,5"),
}
FRESH_S, KEPT_S = 10, 100
MOST_OF_AN_ADDRESS = 40

_LAYOUT = """
{%- if current_user.is_authenticated %}hello {{ current_user.id }};{% else %}sign in;{% endif -%}
cart {{ session.get("cart", [])|length }};{% block body %}{% endblock %}"""
_PAGES = {
    "layout": _LAYOUT,
    "home": '{% extends "layout" %}{% block body %}{{ word }};{{ price }}{% endblock %}',
    "form": '{% extends "layout" %}{% block body %}{{ form.hidden_tag() }}{% endblock %}',
    "bare": "{{ word }};{{ price }}",
}
_TOKEN = re.compile(r'name="csrf_token"[^>]* value="([^"]+)"')


class _User(UserMixin):
    def __init__(self, name: str) -> None:
        self.id = name


class _Buying(FlaskForm):
    count = IntegerField()


@dataclass(slots=True)
class Shop:
    """The shop, its clock, and how often a view ran for a visitor."""

    app: Flask
    om: OpenManager
    clock: FakeClock
    ran: int = 0
    broken: bool = False


def build_shop(http_cache: Any = True, permanent: bool = False) -> Shop:
    """Build the shop.

    Args:
        http_cache: ``OM_HTTP_CACHE``.
        permanent: every visitor has a session from his first request on, as is the default of
            Flask-Session; its cookie is renewed by every answer.
    """
    app = Flask("shop", static_folder=None)
    app.jinja_loader = DictLoader(_PAGES)  # type: ignore[assignment]
    app.logger.disabled = True
    app.config.update(
        SECRET_KEY="of the test, and long enough for it",
        TESTING=True,
        PROPAGATE_EXCEPTIONS=False,
        SESSION_TYPE="cachelib",
        SESSION_PERMANENT=permanent,
        SESSION_CACHELIB=SimpleCache(threshold=0),
        OM_HUB_URL="memory://",
        OM_PLUGINS=[HUB],
        OM_PLUGINS_DISABLED=OTHER_PLUGINS,
        OM_HTTP_CACHE=http_cache,
        OM_FALLBACK={"/": {"answers": ["stale"], "copy_every": 0}},
    )
    Session(app)
    CSRFProtect(app)
    LoginManager(app).user_loader(_User)
    Babel(app, locale_selector=_choose_language)
    Limiter(get_remote_address, app=app, default_limits=[f"{MOST_OF_AN_ADDRESS}/hour"],
            storage_uri="memory://")  # fmt: skip
    clock = FakeClock()
    with patch("om_plugins.runtime.UnsleepingClock", lambda: clock):
        shop = Shop(app, OpenManager(app), clock)
    _add_views(shop)
    return shop


def _choose_language() -> str | None:
    return session.get("lang") or request.accept_languages.best_match(LANGUAGES)


def _add_views(shop: Shop) -> None:
    app, om = shop.app, shop.om

    def render(page: str, **values: Any) -> str:
        if request.__dict__["environ"].get("test.foreground"):
            shop.ran += 1
        if shop.broken:
            raise RuntimeError("broken")
        word, price = WORDS[str(get_locale())][0], format_decimal(1234.5)
        return app.jinja_env.get_template(page).render(
            {**_context(app), "word": word, "price": price, **values}
        )

    @app.get("/")
    @om.cached(stale_time=FRESH_S, cache_time=KEPT_S)
    def home() -> str:
        return render("home")

    @app.get("/about")
    @om.cached(stale_time=FRESH_S, cache_time=KEPT_S, shared=True)
    def about() -> str:
        return render("bare")

    @app.get("/shared")
    @om.cached(stale_time=FRESH_S, cache_time=KEPT_S, shared=True)
    def shared() -> str:
        return render("home")

    @app.get("/news")
    def news() -> Response:
        times = f"public, max-age={FRESH_S}, stale-while-revalidate={KEPT_S - FRESH_S}"
        return Response(render("bare"), headers={"Cache-Control": times})

    @app.get("/offers")
    def offers() -> Response:
        times = f"max-age={FRESH_S}, stale-while-revalidate={KEPT_S - FRESH_S}"
        return Response(render("home"), headers={"Cache-Control": times})

    @app.get("/orders")
    @login_required
    @om.cached(stale_time=FRESH_S, cache_time=KEPT_S)
    def orders() -> str:
        return render("home")

    @app.get("/form")
    @om.cached(stale_time=FRESH_S, cache_time=KEPT_S)
    def form() -> str:
        return render("form", form=_Buying())

    @app.post("/buy")
    def buy() -> Any:
        if not _Buying().validate_on_submit():
            return "not valid", 400
        session["cart"] = [*session.get("cart", []), 1]
        return redirect("/")

    @app.post("/in")
    def sign_in() -> Any:
        login_user(_User(request.form["name"]))
        return redirect("/")

    @app.post("/out")
    def sign_out() -> Any:
        logout_user()
        return redirect("/")

    @app.post("/language")
    def language() -> Any:
        session["lang"] = request.form["lang"]
        return redirect("/")


def _context(app: Flask) -> dict[str, Any]:
    context: dict[str, Any] = {}
    app.update_template_context(context)
    return context


# --- visitors -----------------------------------------------------------------------------------

PAGES = ("/", "/", "/about", "/about", "/shared", "/news", "/offers", "/orders", "/form")


@dataclass(slots=True)
class Shopper:
    """One visitor, and what the shop must know of him."""

    number: int
    accepts: str
    cookies: dict[str, str] = field(default_factory=dict)
    name: str = ""
    cart: int = 0
    chosen: str = ""
    token: str = ""
    asked: int = 0

    @property
    def language(self) -> str:
        return self.chosen or (self.accepts[:2] if self.accepts[:2] in LANGUAGES else "en")

    @property
    def anonymous(self) -> bool:
        return not (self.name or self.cart or self.chosen)


class Walk:
    """Fifty visitors walk about in a shop.

    Attributes:
        counts: how often what happened.
    """

    def __init__(self, seed: int, http_cache: Any = True, *, permanent: bool = False) -> None:
        self.rng = Random(seed)
        self.permanent = permanent
        self.shop = build_shop(http_cache, permanent)
        self.counts: Counter[str] = Counter()
        self.shoppers = [self._make_shopper(number) for number in range(50)]
        self.owners: dict[str, int] = {}
        self.made: dict[tuple[str, str, bool], float] = {}

    def _make_shopper(self, number: int) -> Shopper:
        rng = self.rng
        accepts = rng.choice(("de", "en-US,en;q=0.9", "fr", "de-DE,de;q=0.8", ""))
        cookies = {"_ga": f"GA1.2.{rng.randrange(10**9)}"} if rng.random() < 0.8 else {}
        return Shopper(number, accepts, cookies)

    def run(self, steps: int) -> None:
        """Let visitors do so many things in turn.

        Raises:
            AssertionError: a visitor gets a page that is not his.
        """
        rng = self.rng
        for _ in range(steps):
            shopper = rng.choice(self.shoppers)
            drawn = rng.random()
            if drawn < 0.02:
                self.shop.clock.advance(rng.choice((3, 11, 11, 120)))
            elif drawn < 0.03:
                self.shop.broken = not self.shop.broken
                self.made.clear()  # an outage may end what is kept
            elif drawn < 0.1:
                page = rng.choice(PAGES)
                self.visit(shopper, page)
                self.act(shopper)
                self.visit(shopper, page)
            else:
                self.visit(shopper, rng.choice(PAGES))
            if rng.random() < 0.1:
                self.shop.om.runtime.scheduler.run_pending()

    def close(self) -> None:
        self.shop.om.runtime.close()

    def _ask(self, shopper: Shopper, path: str, data: dict[str, str] | None = None) -> Reply:
        body = urlencode(data or {}).encode()
        environ: dict[str, Any] = {
            "REQUEST_METHOD": "GET" if data is None else "POST",
            "SCRIPT_NAME": "", "PATH_INFO": path, "QUERY_STRING": "",
            "SERVER_NAME": "shop.test", "SERVER_PORT": "80", "SERVER_PROTOCOL": "HTTP/1.1",
            "HTTP_HOST": "shop.test", "REMOTE_ADDR": f"10.0.0.{shopper.number}",
            "HTTP_USER_AGENT": f"Browser/{shopper.number}", "test.foreground": True,
            "wsgi.version": (1, 0), "wsgi.url_scheme": "http", "wsgi.input": BytesIO(body),
            "wsgi.errors": None, "wsgi.multithread": False, "wsgi.multiprocess": False,
            "wsgi.run_once": False,
        }  # fmt: skip
        if data is not None:
            environ["CONTENT_TYPE"] = "application/x-www-form-urlencoded"
            environ["CONTENT_LENGTH"] = str(len(body))
        if shopper.accepts:
            environ["HTTP_ACCEPT_LANGUAGE"] = shopper.accepts
        if shopper.cookies:
            environ["HTTP_COOKIE"] = "; ".join(f"{n}={v}" for n, v in shopper.cookies.items())
        self.shop.ran = 0
        reply = call(self.shop.app, environ)
        for name, value in read_cookies(reply).items():
            if value:
                shopper.cookies[name] = value
            else:
                shopper.cookies.pop(name, None)
        return reply

    def act(self, shopper: Shopper) -> None:
        """Let a visitor sign in or out, choose a language, or buy."""
        match self.rng.choice(("in", "out", "language", "buy", "buy")):
            case "in":
                name = f"user{self.rng.choice((shopper.number, 1, 2))}"
                self._post(shopper, "/in", {"name": name}) and setattr(shopper, "name", name)
            case "out":
                self._post(shopper, "/out", {}) and setattr(shopper, "name", "")
            case "language":
                lang = self.rng.choice(LANGUAGES)
                self._post(shopper, "/language", {"lang": lang}) and setattr(
                    shopper, "chosen", lang
                )
            case "buy":
                if self._post(shopper, "/buy", {"count": "1"}):
                    shopper.cart += 1

    def _post(self, shopper: Shopper, path: str, data: dict[str, str]) -> bool:
        """Send a form; return whether it was taken."""
        if not shopper.token:
            self.visit(shopper, "/form")
        if not shopper.token:  # the shop is broken, or the visitor is over his limit
            return False
        reply = self._ask(shopper, path, {**data, "csrf_token": shopper.token})
        assert reply.status in (302, 429), f"{path} for {shopper}: {reply}"
        self.counts["forms"] += 1
        return reply.status == 302

    def visit(self, shopper: Shopper, path: str) -> None:
        """Let a visitor see a page.

        Raises:
            AssertionError: the page is not his.
        """
        anonymous, known = shopper.anonymous, "session" in shopper.cookies
        reply = self._ask(shopper, path)
        self.counts["pages"] += 1
        if reply.status == 429 or (self.shop.broken and reply.status >= 500):
            self.counts[f"answers {reply.status}"] += 1
            return
        word, price = WORDS[shopper.language]
        nav = f"hello {shopper.name};" if shopper.name else "sign in;"
        nav += f"cart {shopper.cart};"
        if path == "/orders" and not shopper.name:
            assert reply.status == 401, f"{path} for {shopper}: {reply}"
            return
        found = f"{path} for {shopper}:\n{reply}"
        assert reply.status == 200, found
        match path:
            case "/about" | "/news":
                assert reply.body == f"{word};{price}", found
            case "/form":
                assert reply.body.startswith(nav), found
                token = _TOKEN.search(reply.body)
                assert token is not None, found
                shopper.token = token[1]
                assert self.owners.setdefault(token[1], shopper.number) == shopper.number, found
            case _:
                assert reply.body == f"{nav}{word};{price}", found
        if self.shop.ran == 0:
            self.counts["hits"] += 1
        if anonymous and path != "/form" and not self.shop.broken:
            self._count_anonymous(shopper, path, known)

    def _count_anonymous(self, shopper: Shopper, path: str, known: bool) -> None:
        # who accepts no language gets English as well, but by another answer
        key, now = (path, shopper.accepts[:2], known), self.shop.clock.monotonic()
        made = self.made.get(key)
        if made is not None and now - made < KEPT_S - FRESH_S:
            who = "anonymous" if known else "newcomer"
            self.counts[f"{who} {path}"] += 1
            self.counts[f"{who} {path} hits"] += not self.shop.ran
        if self.shop.ran:
            self.made[key] = now
