from __future__ import annotations

import copy
import functools
import json
import pickle
from functools import lru_cache

import orjson
import pytest
from flask import (
    Flask,
    Request,
    current_app,
    g,
    has_request_context,
    jsonify,
    render_template_string,
    request,
    send_file,
    session,
    url_for,
)
from flask.globals import request_ctx
from flask.sessions import SecureCookieSessionInterface
from werkzeug import Request as PlainRequest
from werkzeug import Response as PlainResponse
from werkzeug.datastructures import LanguageAccept, MultiDict
from werkzeug.exceptions import NotFound
from werkzeug.local import LocalProxy
from werkzeug.routing import RequestRedirect
from werkzeug.utils import cached_property

from om_plugins.flask.observed import _FLASKS_OWN, _READ_AHEAD
from tests.flask.conftest import NOBODY, Page, Visitor, build_app, share, tell_apart

cookie_user = LocalProxy(lambda: request.cookies.get("u"))


def check(looks):
    """Return the looks of a table for ``parametrize``."""
    return pytest.mark.parametrize("look", looks.values(), ids=looks)


def itself():
    return request._get_current_object()


# --- cookies ------------------------------------------------------------------------------------

ANN, BOB = (Visitor(cookies={"u": name, "_ga": name}) for name in ("ann", "bob"))
OTHER_ANN = Visitor(cookies={"u": "ann", "_ga": "other"})

ONE_COOKIE = {
    "get": lambda: request.cookies.get("u"),
    "get with type": lambda: request.cookies.get("u", type=str.upper),
    "item": lambda: request.cookies["u"],
    "getlist": lambda: request.cookies.getlist("u"),
    "of itself": lambda: itself().cookies["u"],
    "of the context": lambda: request_ctx.request.cookies["u"],
    "a local proxy of one's own": lambda: str(cookie_user),
    "getattr": lambda: getattr(request, "cookies")["u"],  # noqa: B009
    "a template": lambda: render_template_string("{{ request.cookies.u }}"),
    "a template's get": lambda: render_template_string("{{ request.cookies.get('u') }}"),
    "a format": lambda: f"{request.cookies['u']}",
}


@check(ONE_COOKIE)
def test_one_cookie_is_compared_and_no_other(look):
    page = tell_apart(look, ANN, BOB)
    assert page.counted == {"cookie:u"}
    page.ask(OTHER_ANN)
    assert page.runs == 2


ALL_COOKIES = {
    "dict": lambda: dict(request.cookies),
    "list": lambda: list(request.cookies),
    "sorted items": lambda: sorted(request.cookies.items()),
    "items of all": lambda: list(request.cookies.items(multi=True)),
    "values": lambda: list(request.cookies.values()),
    "lists": lambda: list(request.cookies.lists()),
    "listvalues": lambda: list(request.cookies.listvalues()),
    "to_dict": lambda: request.cookies.to_dict(),
    "len": lambda: len(request.cookies),
    "bool": lambda: bool(request.cookies),
    "equal": lambda: request.cookies == {},
    "not equal": lambda: request.cookies != {},
    "hash": lambda: hash(request.cookies),
    "a copy": lambda: request.cookies.copy(),
    "copy.copy": lambda: dict(copy.copy(request.cookies)),
    "copy.deepcopy": lambda: dict(copy.deepcopy(request.cookies)),
    "a MultiDict": lambda: MultiDict(request.cookies),
    "or": lambda: dict({} | request.cookies),
    "unpacked": lambda: {**request.cookies},
    "json": lambda: json.dumps(request.cookies),
    "jsonify": lambda: jsonify(request.cookies).get_data(),
    "orjson": lambda: orjson.dumps(request.cookies),
    "orjson before a look": lambda: (orjson.dumps(request.cookies), request.cookies.get("lang")),
    "pickle": lambda: dict(pickle.loads(pickle.dumps(request.cookies))),
    "the header": lambda: request.headers.get("Cookie"),
    "the header's item": lambda: request.headers["Cookie"],
    "the variable": lambda: request.environ.get("HTTP_COOKIE"),
    "a request made of it": lambda: PlainRequest(request.environ, populate_request=False)
    .headers["Cookie"],
}  # fmt: skip


@check(ALL_COOKIES)
def test_a_look_at_all_cookies_keeps_all_apart(look):
    page = Page(look)
    visitors = [Visitor(cookies={"u": "ann"}), Visitor(cookies={"u": "bob", "x": "1"}), NOBODY]
    if look in (ALL_COOKIES["the header's item"], ALL_COOKIES["a request made of it"]):
        visitors.pop()
    texts = [page.ask(visitor) for visitor in visitors]
    assert len(set(texts)) > 1
    assert page.runs == len(visitors)
    for visitor in visitors:
        page.ask(visitor)
    assert page.runs == len(visitors)
    assert "cookies" in page.counted


def test_cookies_that_nobody_looks_at_do_not_matter():
    visitors = [Visitor(cookies={f"_ga{n}": str(n)}) for n in range(5)]
    share(lambda: "page", NOBODY, *visitors)


def test_the_same_cookie_twice_is_another_value():
    page = Page(lambda: request.cookies.getlist("u"))
    for header in ("u=a; u=b", "u=b; u=a", "u=a", "u=a; u=b"):
        client = page.app.test_client(use_cookies=False)
        text = client.get(f"/{page.number}/page", headers={"Cookie": header}).text
        assert text == str([pair[-1] for pair in header.split("; ")])
    assert page.runs == 3


# --- headers ------------------------------------------------------------------------------------

BLUE, RED = (Visitor(headers={"X-Tenant": name}) for name in ("blue", "red"))

ONE_HEADER = {
    "get": lambda: request.headers.get("X-Tenant"),
    "in another case": lambda: request.headers.get("x-tenant"),
    "with underscores": lambda: request.headers.get("X_TENANT"),
    "get with type": lambda: request.headers.get("X-Tenant", type=str.upper),
    "item": lambda: request.headers["X-Tenant"],
    "getlist": lambda: request.headers.getlist("X-Tenant"),
    "get_all": lambda: request.headers.get_all("X-Tenant"),
    "getlist with type": lambda: request.headers.getlist("X-Tenant", type=len),
    "of itself": lambda: itself().headers["X-Tenant"],
    "a template": lambda: render_template_string("{{ request.headers['X-Tenant'] }}"),
    "the variable": lambda: request.environ["HTTP_X_TENANT"],
    "the variable's get": lambda: request.environ.get("HTTP_X_TENANT"),
    "the headers' environ": lambda: request.headers.environ["HTTP_X_TENANT"],
    "setdefault": lambda: request.environ.setdefault("HTTP_X_TENANT", "none"),
    "pop": lambda: request.environ.pop("HTTP_X_TENANT"),
    "through the environ": lambda: request.environ["werkzeug.request"].headers["X-Tenant"],
    "a copied request": lambda: copy.copy(itself()).headers["X-Tenant"],
    "a format": lambda: f"{request.headers['X-Tenant']}",
}


@check(ONE_HEADER)
def test_one_header_is_compared_and_no_other(look):
    page = tell_apart(look, BLUE, RED)
    assert page.counted == {"header:x-tenant"}
    page.ask(Visitor(headers={"X-Tenant": "blue", "X-Other": "1", "User-Agent": "other"}))
    assert page.runs == 2


@pytest.mark.parametrize(
    "look", [lambda: "X-Tenant" in request.headers, lambda: "HTTP_X_TENANT" in request.environ]
)
def test_whether_a_header_is_there_is_compared_by_its_value(look):
    page = tell_apart(look, BLUE, NOBODY)
    assert page.counted == {"header:x-tenant"}


NAMED = {
    "user_agent": ("User-Agent", "a", "b"),
    "referrer": ("Referer", "http://a/", "http://b/"),
    "origin": ("Origin", "http://a", "http://b"),
    "if_none_match": ("If-None-Match", '"a"', '"b"'),
    "if_match": ("If-Match", '"a"', '"b"'),
    "if_modified_since": (
        "If-Modified-Since", "Wed, 21 Oct 2015 07:28:00 GMT", "Wed, 21 Oct 2015 07:29:00 GMT"),
    "if_unmodified_since": (
        "If-Unmodified-Since", "Wed, 21 Oct 2015 07:28:00 GMT", "Wed, 21 Oct 2015 07:29:00 GMT"),
    "cache_control": ("Cache-Control", "max-age=1", "max-age=2"),
    "pragma": ("Pragma", "a", "b"),
    "max_forwards": ("Max-Forwards", "1", "2"),
    "date": ("Date", "Wed, 21 Oct 2015 07:28:00 GMT", "Wed, 21 Oct 2015 07:29:00 GMT"),
    "access_route": ("X-Forwarded-For", "10.0.0.1", "10.0.0.2"),
    "content_type": ("Content-Type", "text/a", "text/b"),
    "mimetype": ("Content-Type", "text/a", "text/b"),
    "mimetype_params": ("Content-Type", "text/a; a=1", "text/a; a=2"),
    "is_json": ("Content-Type", "application/json", "text/b"),
    "content_md5": ("Content-MD5", "a", "b"),
    "access_control_request_method": ("Access-Control-Request-Method", "GET", "PUT"),
}  # fmt: skip


@pytest.mark.parametrize("name", NAMED)
def test_what_werkzeug_makes_of_a_header_is_compared(name):
    header, one, other = NAMED[name]
    page = tell_apart(
        lambda: str(getattr(request, name)),
        Visitor(headers={header: one}),
        Visitor(headers={header: other}),
    )
    assert f"header:{header.lower()}" in page.counted


def show_tenant(environ, start_response):
    start_response("200 OK", [])
    return [environ.get("HTTP_X_TENANT", "").encode()]


ALL_HEADERS = {
    "dict": lambda: dict(request.headers),
    "list": lambda: list(request.headers),
    "items": lambda: sorted(request.headers.items()),
    "keys": lambda: sorted(request.headers.keys()),
    "values": lambda: sorted(request.headers.values()),
    "str": lambda: str(request.headers),
    "len": lambda: len(request.headers),
    "a template": lambda: render_template_string("{{ request.headers|list }}"),
    "dict of the environ": lambda: dict(request.environ).get("HTTP_X_TENANT"),
    "items of the environ": lambda: sorted(k for k, _ in request.environ.items() if "X_T" in k),
    "or": lambda: (request.environ | {}).get("HTTP_X_TENANT"),
    "copy": lambda: request.environ.copy().get("HTTP_X_TENANT"),
    "copy.copy": lambda: copy.copy(request.environ).get("HTTP_X_TENANT"),
    "another application": lambda: PlainResponse.from_app(show_tenant, request.environ).get_data(),
}  # fmt: skip


@check(ALL_HEADERS)
def test_after_a_look_at_all_headers_nothing_is_kept(look):
    page = tell_apart(look, BLUE, Visitor(headers={"X-Two": "1", "X-Three": "1"}), kept=False)
    assert page.inputs.refused
    assert page.purge() == 0


# --- the client, the environ --------------------------------------------------------------------

NEAR, FAR = (Visitor(environ={"REMOTE_ADDR": f"10.0.0.{n}"}) for n in (1, 2))


@check(
    {
        "remote_addr": lambda: request.remote_addr,
        "of itself": lambda: itself().remote_addr,
        "the variable": lambda: request.environ["REMOTE_ADDR"],
        "access_route": lambda: request.access_route[0],
        "a template": lambda: render_template_string("{{ request.remote_addr }}"),
        "a proxy": lambda: str(LocalProxy(lambda: request.remote_addr)),
    }
)
def test_the_clients_address_is_compared(look):
    page = tell_apart(look, NEAR, FAR)
    assert "address" in page.counted
    share(lambda: "x", NEAR, FAR)


@pytest.mark.parametrize(
    "name",
    [
        "REMOTE_PORT", "REMOTE_IDENT", "SERVER_PORT", "SERVER_NAME", "myapp.user", "RAW_URI",
        "GEOIP_COUNTRY", "flask.user", "SSL_PROTOCOL", "beaker.session", "repoze.who.identity",
    ],
)  # fmt: skip
def test_variables_of_the_environ_are_compared_by_name(name):
    headers = {"Host": "site.test"}
    one, other = (Visitor(headers=headers, environ={name: f"{n}1"}) for n in (1, 2))
    page = tell_apart(lambda: request.environ[name], one, other)
    assert f"environ:{name}" in page.counted
    share(lambda: "x", one, other)


def test_a_variable_that_cannot_be_compared_keeps_nothing():
    class User:
        def __init__(self, name):
            self.name = name

    one, other = (Visitor(environ={"myapp.user": User(name)}) for name in ("ann", "bob"))
    tell_apart(lambda: request.environ["myapp.user"].name, one, other, kept=False)


@pytest.mark.parametrize(
    ("name", "look"),
    [
        ("REMOTE_USER", lambda: request.remote_user),
        ("REMOTE_USER", lambda: "page"),
        ("AUTH_TYPE", lambda: request.environ["AUTH_TYPE"]),
        ("HTTP_AUTHORIZATION", lambda: request.headers["Authorization"]),
        ("HTTP_AUTHORIZATION", lambda: request.authorization.token),
        ("HTTP_PROXY_AUTHORIZATION", lambda: "page"),
        ("SSL_CLIENT_S_DN", lambda: "page"),
        ("SSL_CLIENT_CERT", lambda: request.environ["SSL_CLIENT_CERT"]),
    ],
)
@pytest.mark.parametrize("public", [False, True])
def test_who_names_himself_has_entries_of_his_own(name, look, public):
    page = Page(look, public=public)
    visitors = [Visitor(environ={name: f"Bearer {n}"}) for n in (1, 2)]
    for visitor in visitors * 2:
        page.ask(visitor)
        control = page.request(visitor).headers["Cache-Control"]
        assert "public" not in control
        assert "s-maxage" not in control
    assert page.runs == 2


@pytest.mark.parametrize("name", ["HTTP_X_FORWARDED_USER", "myapp.user"])
def test_a_setting_names_further_identities(name):
    page = Page(lambda: "page", config={"OM_CACHE_IDENTITIES": [name]})
    for user in ("ann", "bob", "ann", "bob"):
        page.ask(Visitor(environ={name: user}))
    page.ask(NOBODY)
    assert page.runs == 3


# --- Accept -------------------------------------------------------------------------------------


GERMAN, ENGLISH, AUSTRIAN = (
    Visitor(headers={"Accept-Language": value})
    for value in ("de", "en-GB,en;q=0.9", "de-AT, de;q=0.8")
)


@check(
    {
        "best_match": lambda: request.accept_languages.best_match(["de", "en"]),
        "with a default": lambda: request.accept_languages.best_match(["de", "en"], "en"),
        "by keyword": lambda: request.accept_languages.best_match(matches=("de", "en")),
        "of an iterator": lambda: request.accept_languages.best_match(iter(["de", "en"])),
        "in": lambda: "de" in request.accept_languages,
        "a template": lambda: render_template_string(
            "{{ request.accept_languages.best_match(['de', 'en']) }}"
        ),
        "several": lambda: (
            request.accept_languages.best_match(["de", "fr"]),
            request.accept_languages.best_match(["en", "fr"]),
        ),
    }
)
def test_the_answer_of_an_accept_header_is_compared_and_not_its_text(look):
    page = tell_apart(look, GERMAN, ENGLISH)
    page.ask(AUSTRIAN)
    page.ask(Visitor(headers={"Accept-Language": "en"}))
    assert page.runs == 2


@check(
    {
        "quality": lambda: request.accept_languages.quality("de"),
        "item": lambda: request.accept_languages["de"],
    }
)
def test_a_quality_is_compared(look):
    page = tell_apart(look, GERMAN, Visitor(headers={"Accept-Language": "de;q=0.5"}))
    page.ask(Visitor(headers={"Accept-Language": "de, en"}))
    assert page.runs == 2


MIMES = {
    "accept_json": lambda: request.accept_mimetypes.accept_json,
    "accept_html": lambda: request.accept_mimetypes.accept_html,
    "in": lambda: "text/html" in request.accept_mimetypes,
    "best_match": lambda: request.accept_mimetypes.best_match(["text/html", "application/json"]),
}


@check(MIMES)
def test_media_types_are_compared_by_their_answer(look):
    page = tell_apart(
        look,
        Visitor(headers={"Accept": "application/json"}),
        Visitor(headers={"Accept": "text/html"}),
    )
    page.ask(Visitor(headers={"Accept": "text/html,image/png"}))
    assert page.runs == 2


@pytest.mark.parametrize("kind", ["encoding", "charset"])
def test_encodings_and_charsets_are_compared_by_their_answer(kind):
    header = f"Accept-{kind}"
    page = tell_apart(
        lambda: getattr(request, f"accept_{kind}s").best_match(["gzip", "br", "utf-8"]),
        Visitor(headers={header: "gzip;q=0.1, br, utf-8;q=0.5"}),
        Visitor(headers={header: "gzip"}),
    )
    page.ask(Visitor(headers={header: "gzip, deflate"}))
    assert page.runs == 2


def index_of(accepted, name):
    try:
        return accepted.index(name)
    except ValueError:
        return -1


WHOLE_ACCEPT = {
    "best": lambda: request.accept_languages.best,
    "list": lambda: list(request.accept_languages),
    "values": lambda: list(request.accept_languages.values()),
    "index": lambda: index_of(request.accept_languages, "de"),
    "find": lambda: request.accept_languages.find("de"),
    "by number": lambda: request.accept_languages[0],
    "len and bool": lambda: (len(request.accept_languages), bool(request.accept_languages), str(
        request.accept_languages)),
    "provided": lambda: (request.accept_languages.provided, request.accept_languages.to_header()),
    "repr": lambda: repr(request.accept_languages),
    "str": lambda: str(request.accept_languages),
    "reversed": lambda: list(reversed(request.accept_languages)),
    "equal": lambda: request.accept_languages == [("de", 1)],
    "not equal": lambda: request.accept_languages != [("de", 1)],
    "less": lambda: request.accept_languages < [("dz", 1)],
    "greater": lambda: request.accept_languages > [("dz", 1)],
    "plus": lambda: list(request.accept_languages + []),  # noqa: RUF005
    "times": lambda: list(request.accept_languages * 2),
    "hash": lambda: hash(request.accept_languages),
    "count": lambda: request.accept_languages.count(("de", 1)),
    "unpacked": lambda: [*request.accept_languages],
    "pickle": lambda: list(pickle.loads(pickle.dumps(request.accept_languages))),
    "orjson": lambda: orjson.dumps(request.accept_languages),
    "the header": lambda: request.headers.get("Accept-Language"),
}  # fmt: skip


@check(WHOLE_ACCEPT)
def test_another_look_at_an_accept_header_is_a_look_at_its_text(look):
    page = tell_apart(look, GERMAN, ENGLISH)
    assert "header:accept-language" in page.counted


# --- the query ----------------------------------------------------------------------------------


@check(
    {
        "query_string": lambda: request.query_string,
        "full_path": lambda: request.full_path,
        "url": lambda: request.url,
        "the variable": lambda: request.environ["QUERY_STRING"],
        "order": lambda: list(request.args),
        "items": lambda: list(request.args.items(multi=True)),
        "json": lambda: json.dumps(request.args),
        "orjson": lambda: orjson.dumps(request.args),
        "repr": lambda: repr(itself()),
    }
)
def test_who_looks_at_the_whole_query_depends_on_it_as_it_was_sent(look):
    page = tell_apart(look, Visitor(path="/page?a=1&b=2"), Visitor(path="/page?b=2&a=1"))
    assert page.request(NOBODY).headers["Cache-Control"] == "private, max-age=0"
    assert "Vary" not in page.request(NOBODY).headers


@check(
    {
        "get": lambda: request.args.get("a"),
        "item": lambda: request.args["a"],
        "getlist": lambda: request.args.getlist("a"),
        "in": lambda: "a" in request.args,
        "values": lambda: request.values["a"],
        "nothing": lambda: "x",
    }
)
def test_parameters_are_in_the_key_in_any_order(look):
    page = share(look, Visitor(path="/page?a=1&b=2"), Visitor(path="/page?b=2&a=1"))
    page.ask(Visitor(path="/page?a=2&b=2"))
    assert page.runs == 2


def test_parameters_that_the_key_leaves_out_may_be_sent_when_nobody_looks():
    page = share(
        lambda: request.args.get("a"),
        Visitor(path="/page?a=1&utm=x"),
        Visitor(path="/page?utm=y&a=1"),
        query=["a"],
    )
    page.ask(Visitor(path="/page?a=2"))
    assert page.runs == 2


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (Visitor(path="/page", headers={"Host": "a.test"}), Visitor(headers={"Host": "b.test"})),
        (Visitor(headers={"Host": "a.test"}), Visitor(headers={"Host": "a.test:80"})),
        (
            Visitor(environ={"wsgi.url_scheme": "https"}),
            Visitor(environ={"wsgi.url_scheme": "http"}),
        ),
        (Visitor(environ={"SCRIPT_NAME": "/x"}), Visitor()),
    ],
)
def test_host_scheme_and_root_are_in_the_key(one, other):
    def body():
        return [request.headers["Host"], request.scheme, request.root_path, request.base_url]

    page = tell_apart(body, one, other)
    assert page.counted == set()


def test_root_path_and_path_are_told_apart():
    page = Page(lambda p: (request.script_root, p), route="/<path:p>")
    for root, path in (("", "/x/y"), ("/0/x", "/y"), ("", "/x/y"), ("/0/x", "/y")):
        visitor = Visitor(path=path, environ={"SCRIPT_NAME": root})
        page.ask(visitor)
    assert page.runs == 2


# --- what is set before, or by the application itself -------------------------------------------


def use(kind, interface=None):
    """Return a Flask class with this request class."""

    class Site(Flask):
        request_class = kind

    if interface is not None:
        Site.session_interface = interface
    return Site


class WithTenant(Request):
    def __init__(self, environ, *args, **kwargs):
        super().__init__(environ, *args, **kwargs)
        self.tenant = environ.get("HTTP_X_TENANT")


class WithProperties(Request):
    @property
    def tenant(self):
        return self.headers.get("X-Tenant")

    @cached_property
    def user(self):
        return self.cookies.get("u")

    @functools.cached_property
    def language(self):
        return self.accept_languages.best_match(["de", "en"])

    @property
    def cookies(self):
        return {name: value.upper() for name, value in super().cookies.items()}


class ReadsAhead(SecureCookieSessionInterface):
    def open_session(self, app, asked):
        for name in ("user", "language", "user_agent", "values", "accept_languages", "url"):
            getattr(asked, name, None)
        return super().open_session(app, asked)


def test_an_attribute_that_was_set_before_the_first_hook_cannot_be_compared():
    page = tell_apart(lambda: request.tenant, BLUE, RED, kept=False, flask_class=use(WithTenant))
    assert "request.tenant" in page.inputs.refused
    share(lambda: "x", BLUE, RED, flask_class=use(WithTenant))


def test_such_an_attribute_may_be_written_and_deleted():
    def body():
        request.tenant = "mine"
        del request.tenant
        return hasattr(request, "tenant")

    share(body, BLUE, RED, flask_class=use(WithTenant))


@pytest.mark.parametrize("interface", [None, ReadsAhead()])
@pytest.mark.parametrize(
    ("look", "one", "other"),
    [
        (lambda: request.tenant, BLUE, RED),
        (lambda: request.user, ANN, BOB),
        (lambda: request.language, GERMAN, ENGLISH),
        (lambda: request.cookies.get("u"), ANN, BOB),
        (lambda: request.user_agent.string, *(Visitor(headers={"User-Agent": n}) for n in "ab")),
    ],
)
def test_properties_of_a_request_class_of_ones_own_are_seen(interface, look, one, other):
    tell_apart(look, one, other, flask_class=use(WithProperties, interface))


def test_whatever_a_request_keeps_is_read_again_or_depends_on_its_address_alone():
    kept = {
        name
        for name in dir(Request)
        for kind in [next(k.__dict__[name] for k in Request.__mro__ if name in k.__dict__)]
        if isinstance(kind, (cached_property, functools.cached_property))
    }
    assert kept <= _READ_AHEAD | _FLASKS_OWN


class FixedAddress(Request):
    remote_addr = "127.0.0.1"


def test_a_request_class_that_cannot_be_observed_keeps_nothing():
    tell_apart(lambda: request.cookies["u"], ANN, BOB, kept=False, flask_class=use(FixedAddress))


@check(
    {
        "args": lambda: setattr(request, "args", MultiDict({"a": "5"})) or request.args["a"],
        "cookies": lambda: setattr(request, "cookies", {"u": "x"}) or request.cookies["u"],
        "languages": lambda: (
            setattr(request, "accept_languages", LanguageAccept([("fr", 1)]))
            or request.accept_languages.best
        ),
        "remote_addr": lambda: setattr(request, "remote_addr", "x") or request.remote_addr,
        "headers": lambda: setattr(request, "headers", {"A": "x"}) or request.headers["A"],
        "query_string": lambda: setattr(request, "query_string", b"z") or request.query_string,
        "an attribute": lambda: setattr(request, "mine", "x") or request.mine,
    }
)
def test_what_code_writes_to_a_request_it_reads_back(look):
    page = Page(look)
    for visitor in (ANN, BOB, GERMAN):
        page.ask(visitor)


@check(
    {
        "args": lambda: [request.args, delattr(request, "args"), request.args.get("a")],
        "cookies": lambda: [request.cookies, delattr(request, "cookies"), request.cookies.get("u")],
    }
)
def test_what_a_request_keeps_may_be_deleted(look):
    tell_apart(look, *(Visitor(path=f"/page?a={n}", cookies={"u": str(n)}) for n in (1, 2)))


def test_what_a_hook_writes_to_the_environ_is_compared_as_it_then_is():
    def setup(app):
        @app.before_request
        def trust():
            request.environ["REMOTE_ADDR"] = request.headers.get("X-Real-IP", "none")

    page = tell_apart(
        lambda: request.environ["REMOTE_ADDR"],
        *(Visitor(headers={"X-Real-IP": f"10.0.0.{n}"}) for n in (1, 2)),
        setup=setup,
    )
    assert page.counted == {"header:x-real-ip", "address"}


def test_the_environ_of_the_layers_is_the_servers_plain_dict():
    kinds = []

    def setup(app):
        inner = app.wsgi_app
        app.teardown_request(lambda error: kinds.append(type(request.__dict__["environ"])))
        app.wsgi_app = lambda environ, start: inner(environ, start)

    Page(lambda: request.environ["wsgi.url_scheme"], setup=setup).ask(NOBODY)
    assert set(kinds) == {dict}


# --- where code looks ---------------------------------------------------------------------------


def test_g_of_one_request_is_not_that_of_another():
    def setup(app):
        app.before_request(lambda: setattr(g, "user", request.cookies.get("u")))

    tell_apart(lambda: g.user, ANN, BOB, setup=setup)


def test_what_is_memoized_by_the_parameters_or_cookies_works_as_before():
    @lru_cache
    def count(args, cookies):
        return sorted(args.items()) + sorted(cookies.items())

    tell_apart(
        lambda: count(request.args, request.cookies),
        Visitor(path="/page?a=1", cookies={"u": "ann"}),
        Visitor(path="/page?a=1", cookies={"u": "bob"}),
    )


def test_urls_of_other_pages_depend_on_the_address_alone():
    share(lambda: url_for("page", number=3, x=1, _external=True), ANN, BOB, BLUE)


def test_looks_at_what_is_always_in_the_key_are_no_inputs():
    def body():
        return [
            request.method, request.path, request.root_path, request.scheme, request.is_secure,
            request.host, request.host_url, request.base_url, request.url_root, request.endpoint,
            request.view_args, request.blueprint, request.url_rule.rule, request.get_data(),
            request.environ["PATH_INFO"], request.environ["REQUEST_METHOD"], request.form.get("a"),
            request.environ["wsgi.url_scheme"], has_request_context(), current_app.name,
        ]  # fmt: skip

    page = share(body, ANN, BOB, BLUE, NEAR)
    assert page.inputs.counted.keys() <= {"header:content-type", "header:content-length",
                                          "header:transfer-encoding"}  # fmt: skip


def test_a_file_is_sent_in_part_or_whole_and_not_kept(tmp_path):
    (tmp_path / "a.txt").write_text("text")
    app, om = build_app()
    app.add_url_rule("/file", "file", om.cached()(lambda: send_file(tmp_path / "a.txt")))
    for headers, text in (({}, "text"), ({"Range": "bytes=1-2"}, "ex"), ({}, "text")):
        with app.test_client().get("/file", headers=headers) as found:
            assert found.text == text
    assert om.cache.stats().entries == 0


def test_in_a_request_context_of_a_test_nothing_is_kept():
    page = Page(lambda: session.get("u"))
    for _ in range(2):
        with page.app.test_request_context(f"/{page.number}/page"):
            page.app.view_functions["page"](number=page.number)
    assert page.runs == 2
    assert page.purge() == 0


def test_new_objects_of_the_classes_of_observed_ones_are_plain():
    def body():
        args, accepted = request.args, request.accept_languages
        return str(
            [
                type(args)({"a": ["1", "2"]}).getlist("a"),
                args.deepcopy().getlist("a"),
                request.cookies.deepcopy().get("u"),
                list(type(accepted)([("de", 1)])),
                pickle.loads(pickle.dumps(args)).getlist("a"),
                hash(copy.copy(args)) == hash(args),
            ]
        )

    page = Page(body)
    page.ask(Visitor(cookies={"u": "ann"}, headers={"Accept-Language": "de"}))


def test_errors_and_redirects_of_werkzeugs_own_look_at_nothing():
    class Own(NotFound):
        def get_body(self, environ=None, scope=None):
            return f"nothing for {environ.get('HTTP_X_USER')}"

    def fail(error):
        raise error

    for error, looks in ((NotFound(), False), (RequestRedirect("/x"), False), (Own(), True)):
        page = Page(lambda error=error: fail(error))
        page.request(Visitor(headers={"X-User": "ann"}))
        assert bool(page.inputs.refused) is looks, error
