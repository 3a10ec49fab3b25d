"""Forward proxies: which origin goes through one, in what form, and who sees its password."""

from __future__ import annotations

import base64
import contextlib
import logging
import socket
import ssl
import threading
import time

import pytest

from om_plugins import OpenAIEngine
from om_plugins.builtin.engines.http import HttpEngine
from om_plugins.builtin.engines.proxy import ProxyEngine
from om_plugins.builtin.http.outbound_proxy import (
    OutboundProxy,
    find_proxy,
    is_excluded,
    parse_proxy,
)
from om_plugins.errors import AttemptTimeout, ConfigError, EngineError, Misconfigured, Transient
from om_plugins.features import Settings
from om_plugins.plugins.kit import Host
from om_plugins.runtime import Runtime
from om_plugins.types import Call, EngineSpec, HttpRequest
from tests.builtin.conftest import over_tls
from tests.patience import HANG_S, cut_off

OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
BASIC = "Basic " + base64.b64encode(b"me:p@ss w\xc3\xb6rd").decode()


# --- which origins --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("no_proxy", "host", "port", "excluded"),
    [
        ("", "a.example", 80, False),
        (" , ,", "a.example", 80, False),
        ("*", "a.example", 80, True),
        ("b.example,*", "10.0.0.1", 80, True),
        ("a.example", "a.example", 80, True),
        ("A.Example", "a.eXample", 80, True),
        ("a.example", "www.a.example", 80, True),
        (".a.example", "www.a.example", 80, True),
        (".a.example", "a.example", 80, True),
        ("*.a.example", "www.a.example", 80, True),
        ("a.example", "nota.example", 80, False),
        (".example", "a.example", 80, True),
        ("example", "a.example.org", 80, False),
        ("www.a.example", "a.example", 80, False),
        ("a.example.", "a.example", 80, True),
        ("a.example", "a.example.", 80, True),
        ("b.example a.example", "a.example", 80, True),
        ("b.example,\ta.example ", "a.example", 80, True),
        ("a.example:8080", "a.example", 8080, True),
        ("a.example:8080", "a.example", 80, False),
        ("a.example:8080", "www.a.example", 8080, True),
        ("localhost", "localhost", 80, True),
        ("localhost", "127.0.0.1", 80, False),
        ("", "localhost", 80, False),
        ("127.0.0.1", "127.0.0.1", 80, True),
        ("127.0.0.1:81", "127.0.0.1", 80, False),
        ("127.0.0.1:80", "127.0.0.1", 80, True),
        ("0.0.1", "127.0.0.1", 80, False),
        ("1", "127.0.0.1", 80, False),
        ("127.0.0.0/8", "127.4.5.6", 80, True),
        ("10.0.0.0/8", "11.0.0.1", 80, False),
        ("10.0.0.0/8", "10.example", 80, False),
        ("10.1.2.3/8", "10.9.9.9", 80, True),
        ("10.0.0.0/8:80", "10.9.9.9", 80, True),
        ("10.0.0.0/8:81", "10.9.9.9", 80, False),
        ("10.0.0.0/99", "10.0.0.1", 80, False),
        ("::1", "::1", 80, True),
        ("[::1]", "::1", 80, True),
        ("[::1]:8080", "::1", 8080, True),
        ("[::1]:8080", "::1", 80, False),
        ("0:0:0:0:0:0:0:1", "::1", 80, True),
        ("fd00::/8", "fd12::1", 80, True),
        ("[fd00::]/8", "fd12::1", 80, True),
        ("fe80::/10", "fe80::1%eth0", 80, True),
        ("10.0.0.0/8", "::ffff:10.0.0.1", 80, True),
        ("::/0", "10.0.0.1", 80, False),
        ("::ffff:10.0.0.1", "10.0.0.1", 80, True),
        ("::ffff:10.0.0.1", "10.0.0.2", 80, False),
        ("b\u00fccher.example", "xn--bcher-kva.example", 80, True),
        ("xn--bcher-kva.example", "b\u00fccher.example", 80, True),
        (".b\u00fccher.example", "www.xn--bcher-kva.example", 80, True),
        ("\u00fc" * 70, "a.example", 80, False),
        ("a.example:", "a.example", 80, False),
        ("http://a.example", "a.example", 80, False),
    ],
)
def test_no_proxy_names_what_curl_and_requests_read_there(no_proxy, host, port, excluded):
    assert is_excluded(no_proxy, host, port) is excluded


@pytest.mark.parametrize(
    ("environ", "scheme", "found"),
    [
        ({}, "http", None),
        ({"http_proxy": "http://p:1"}, "http", "p:1"),
        ({"HTTP_PROXY": "http://p:1"}, "http", "p:1"),
        ({"http_proxy": "http://p:1"}, "https", None),
        ({"https_proxy": "http://p:1"}, "https", "p:1"),
        ({"HTTPS_PROXY": "http://p:1"}, "https", "p:1"),
        ({"HTTPS_PROXY": "http://p:1"}, "http", None),
        ({"http_proxy": "http://p:1", "HTTP_PROXY": "http://q:2"}, "http", "p:1"),
        ({"http_proxy": "", "HTTP_PROXY": "http://q:2"}, "http", None),
        ({"ALL_PROXY": "http://p:1"}, "http", "p:1"),
        ({"all_proxy": "http://p:1"}, "https", "p:1"),
        ({"ALL_PROXY": "http://p:1", "HTTPS_PROXY": "http://q:2"}, "https", "q:2"),
        ({"HTTP_PROXY": "p:1"}, "http", "p:1"),
        ({"HTTP_PROXY": "p.internal"}, "http", "p.internal:80"),
        ({"HTTP_PROXY": " http://p:1/ "}, "http", "p:1"),
        ({"HTTP_PROXY": "http://[::1]:3128"}, "http", "::1:3128"),
        ({"HTTP_PROXY": "http://p:1", "NO_PROXY": "a.example"}, "http", None),
        ({"HTTP_PROXY": "http://p:1", "no_proxy": "example"}, "http", None),
        ({"HTTP_PROXY": "http://p:1", "no_proxy": "", "NO_PROXY": "*"}, "http", "p:1"),
        ({"HTTPS_PROXY": "http://p:1", "NO_PROXY": "a.example:80"}, "https", "p:1"),
        ({"HTTP_PROXY": "http://p:1", "REQUEST_METHOD": "GET"}, "http", None),
        ({"http_proxy": "http://p:1", "REQUEST_METHOD": "GET"}, "http", "p:1"),
        ({"HTTPS_PROXY": "http://p:1", "REQUEST_METHOD": "GET"}, "https", "p:1"),
    ],
)
def test_the_environment_is_read_as_curl_and_requests_read_it(environ, scheme, found):
    port = 443 if scheme == "https" else 80
    proxy = find_proxy("proxy", "environment", scheme, "a.example", port, environ)
    assert (proxy and f"{proxy.host}:{proxy.port}") == found


def test_the_environment_is_not_read_unless_somebody_says_so(monkeypatch, upstream):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    assert find_proxy("proxy", None, "http", "a.example", 80) is None
    engine = HttpEngine("up", upstream.url)
    assert engine.call(Call({})).payload == {}
    engine.close()


def test_the_url_of_a_proxy_is_for_every_origin(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "*")
    assert find_proxy("proxy", "http://p:1", "https", "a.example", 443) == OutboundProxy("p", 1)


@pytest.mark.parametrize(
    ("url", "authorization"),
    [
        ("http://p", None),
        ("http://me:p%40ss%20w%C3%B6rd@p", BASIC),
        ("http://me@p", "Basic " + base64.b64encode(b"me:").decode()),
        ("http://:x@p", "Basic " + base64.b64encode(b":x").decode()),
        ("http://me:a:b@p", "Basic " + base64.b64encode(b"me:a:b").decode()),
    ],
)
def test_credentials_are_a_part_of_the_url(url, authorization):
    proxy = parse_proxy("proxy", url)
    assert proxy.authorization == authorization
    assert "Basic" not in repr(proxy)


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("", "must be 'environment', 'direct' or a URL"),
        (True, "must be 'environment', 'direct' or a URL"),
        ("on", "must be 'environment', 'direct' or a URL"),
        ("p:3128", "must be 'environment', 'direct' or a URL"),
        ("me:secret@p:3128", "'…@p:3128'"),
        ("https://me:secret@p", "'https://…@p': 'https' proxies are not supported"),
        ("socks5://me:secret@p", "'socks5://…@p': 'socks5' proxies are not supported"),
        ("http://me:secret@", "must be"),
        ("http://me:secret@p:port", "'http://…@p:port'"),
        ("http://me:secret@p:99999", "'http://…@p:99999'"),
        ("http://p/path", "must be"),
        ("http://p?x=1", "must be"),
        ("http://p:1#x", "must be"),
        ("http://me:12#secret@p:3128", "'http://…@p:3128'"),
        ("http://me:12?secret@p:3128", "'http://…@p:3128'"),
        ("http://me:12/secret@p:3128", "'http://…@p:3128'"),
        ("http://p:0", "must be"),
        ("http://%70", "must be"),
        ("http://p%0d:1", "must be"),
        ("http://p\u00e4", "must be"),
        ("http://[::1", "must be"),
    ],
)
def test_a_wrong_proxy_is_refused_without_its_password(setting, said):
    with pytest.raises(ConfigError) as caught:
        HttpEngine("up", "http://a.example/", proxy=setting)
    assert said in str(caught.value)
    assert "engine 'up': proxy" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_wrong_variable_is_named(monkeypatch):
    monkeypatch.setenv("https_proxy", "socks5h://me:secret@p:1")
    with pytest.raises(ConfigError, match=r"https_proxy 'socks5h://…@p:1'"):
        HttpEngine("up", "https://a.example/", proxy="environment")


# --- what is sent ---------------------------------------------------------------------------------


def read_head(connection):
    data = b""
    while b"\r\n\r\n" not in data:
        part = connection.recv(65536)
        if not part:
            return None
        data += part
    return data


class ForwardProxy:
    """A forward proxy: it answers plain requests itself and joins tunnels to ``origin``."""

    def __init__(self, raw_upstream, origin=None, *, tunnel=b"HTTP/1.1 200 OK\r\n\r\n", answer=OK):
        self.heads = []
        self._origin, self._tunnel, self._answer = origin, tunnel, answer
        self.server = raw_upstream(self._play)
        self.address = self.server.url.removeprefix("http://")

    def _play(self, connection, number):
        while head := read_head(connection):
            self.heads.append(head.decode("latin-1").split("\r\n\r\n")[0].split("\r\n"))
            if not head.startswith(b"CONNECT"):
                connection.sendall(self._answer)
                continue
            connection.sendall(self._tunnel)
            if self._tunnel.startswith(b"HTTP/1.1 200"):
                self._join(connection)
            return

    def _join(self, near):
        far = socket.create_connection(("127.0.0.1", self._origin))
        back = threading.Thread(target=copy, args=(far, near))
        back.start()
        copy(near, far)
        back.join()
        far.close()


def copy(source, target):
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)


@pytest.fixture
def engine_for():
    engines = []

    def make(url, *, kind=HttpEngine, **options):
        engines.append(kind("up", url, **{"timeout": HANG_S, "connect_timeout": HANG_S, **options}))
        return engines[-1]

    yield make
    for engine in engines:
        engine.close()


def in_time(payload):
    return Call(payload, deadline=time.monotonic() + HANG_S)


@pytest.fixture
def tls_origin(raw_upstream, certificate):
    """A TLS upstream: its port, and the heads that it got."""
    heads = []

    def script(connection, number):
        while head := read_head(connection):
            heads.append(head.decode("latin-1").split("\r\n\r\n")[0].split("\r\n"))
            connection.sendall(OK.replace(b"Content-L", b"Connection: keep-alive\r\nContent-L"))

    return int(raw_upstream(over_tls(certificate, script)).url.rpartition(":")[2]), heads


def test_plain_http_is_asked_for_in_absolute_form(raw_upstream, engine_for):
    proxy = ForwardProxy(raw_upstream)
    engine = engine_for("http://a.example:81/ask?x=1", proxy=proxy.server.url)
    for _ in range(2):
        assert engine.call(in_time({})).payload == {}
    assert proxy.heads[0][:2] == ["POST http://a.example:81/ask?x=1 HTTP/1.1", "Host: a.example:81"]
    assert not any("Proxy-Authorization" in line for line in proxy.heads[0])


@pytest.mark.parametrize(
    ("method", "target", "line"),
    [
        ("GET", "/a?b=c", "GET http://a.example/a?b=c HTTP/1.1"),
        ("PUT", "/", "PUT http://a.example/ HTTP/1.1"),
        ("OPTIONS", "*", "OPTIONS http://a.example HTTP/1.1"),
    ],
)
def test_a_reverse_proxy_goes_through_one_too(raw_upstream, engine_for, method, target, line):
    proxy = ForwardProxy(raw_upstream)
    engine = engine_for(
        "http://a.example", kind=ProxyEngine, proxy=f"http://me:p%40ss%20w%C3%B6rd@{proxy.address}"
    )
    headers = [("Proxy-Authorization", "Basic bWFsbG9yeTp4")]  # a client's own ends here
    assert engine.call(in_time(HttpRequest(method, target, headers))).payload.status == 200
    assert proxy.heads[0][0] == line
    sent = [text for text in proxy.heads[0] if text.startswith("Proxy-Authorization")]
    assert sent == [f"Proxy-Authorization: {BASIC}"]


@pytest.mark.parametrize("credentials", ["", "me:p%40ss%20w%C3%B6rd@"])
def test_https_goes_through_a_tunnel_that_is_used_again(
    raw_upstream, engine_for, certificate, tls_origin, credentials, caplog
):
    port, heads = tls_origin
    proxy = ForwardProxy(raw_upstream, port)
    engine = engine_for(
        f"https://127.0.0.1:{port}/ask", proxy=f"http://{credentials}{proxy.address}",
        ssl_context=ssl.create_default_context(cafile=certificate[0]),
    )  # fmt: skip
    with caplog.at_level(logging.DEBUG):
        for _ in range(3):
            assert engine.call(in_time({})).payload == {}
    expected = [f"CONNECT 127.0.0.1:{port} HTTP/1.1", f"Host: 127.0.0.1:{port}"]
    if credentials:
        expected.append(f"Proxy-Authorization: {BASIC}")
    assert proxy.heads == [expected]
    assert [head[0] for head in heads] == ["POST /ask HTTP/1.1"] * 3
    assert "Proxy-Auth" not in str(heads)
    assert BASIC[6:] not in caplog.text
    assert "ss w" not in caplog.text + repr(engine)


def test_the_certificate_is_that_of_the_origin(raw_upstream, engine_for, tls_origin):
    proxy = ForwardProxy(raw_upstream, tls_origin[0])
    engine = engine_for(f"https://127.0.0.1:{tls_origin[0]}/", proxy=proxy.server.url)
    with pytest.raises(Misconfigured, match="not trusted"):
        engine.call(in_time({}))
    assert tls_origin[1] == []


@pytest.mark.parametrize(
    ("said", "error", "match"),
    [
        (b"407 Who", Misconfigured, "answered 407 to CONNECT"),
        (b"403 No", Misconfigured, "answered 403 to CONNECT"),
        (b"502 Gone", Transient, "answered 502 to CONNECT"),
        (b"503 Busy", Transient, "answered 503 to CONNECT"),
        (b"302 Login", Transient, "answered 302 to CONNECT"),
    ],
)
def test_a_tunnel_that_is_refused_has_sent_nothing(raw_upstream, engine_for, said, error, match):
    answer = b"HTTP/1.1 " + said + b"\r\nContent-Length: 5\r\n\r\nlogin"
    proxy = ForwardProxy(raw_upstream, tunnel=answer)
    engine = engine_for("https://a.example/", proxy=f"http://me:secret@{proxy.address}")
    with pytest.raises(error, match=match) as caught:
        engine.call(in_time({}))
    assert caught.value.sent == "no"
    assert proxy.address in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "tunnel",
    [
        b"", b"HTTP/1.1 2", b"SSH-2.0-x\r\n", b"HTTP/1.1 101 Switch\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n\x16forged",
    ],
)  # fmt: skip
def test_a_garbled_tunnel_has_sent_nothing(raw_upstream, engine_for, tunnel):
    def script(connection, number):
        read_head(connection)
        connection.sendall(tunnel)

    engine = engine_for("https://a.example/", proxy=raw_upstream(script).url)
    with pytest.raises(Transient) as caught:
        engine.call(in_time({}))
    assert caught.value.sent == "no"


def test_bytes_behind_the_answer_to_connect_are_not_taken_for_the_origins(raw_upstream, engine_for):
    proxy = ForwardProxy(raw_upstream, tunnel=b"HTTP/1.1 299 OK\r\n\r\n\x16forged")
    engine = engine_for("https://a.example/", proxy=proxy.server.url)
    with pytest.raises(Transient, match="more than its answer to CONNECT"):
        engine.call(in_time({}))


def test_a_proxy_that_is_silent_has_the_time_of_a_connection(raw_upstream, engine_for):
    server = raw_upstream(lambda connection, number: server.over.wait())
    engine = engine_for("https://a.example/", proxy=server.url, connect_timeout=0.1)
    with cut_off(), pytest.raises(AttemptTimeout) as caught:
        engine.call(in_time({}))
    assert caught.value.sent == "no"


def test_a_407_to_a_plain_request_is_about_the_proxy(raw_upstream, engine_for):
    said = b"HTTP/1.1 407 Who\r\nContent-Length: 0\r\n\r\n"
    proxy = ForwardProxy(raw_upstream, answer=said)
    for kind, payload in ((HttpEngine, {}), (ProxyEngine, HttpRequest("GET", "/"))):
        engine = engine_for("http://a.example", kind=kind, proxy=proxy.server.url)
        with pytest.raises(Misconfigured, match="wants other credentials") as caught:
            engine.call(in_time(payload))
        assert caught.value.sent == "no"


def test_a_proxy_that_is_away_is_named(engine_for):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    engine = engine_for("http://a.example/", proxy=f"http://127.0.0.1:{port}")
    with pytest.raises(Transient, match=f"through the proxy 127.0.0.1:{port}") as caught:
        engine.call(in_time({}))
    assert caught.value.sent == "no"


def test_a_probe_goes_the_way_that_calls_go(raw_upstream, engine_for, tls_origin):
    proxy = ForwardProxy(raw_upstream, tls_origin[0])
    engine_for(f"https://127.0.0.1:{tls_origin[0]}/", proxy=proxy.server.url).probe(in_time(None))
    assert proxy.heads[0][0].startswith("CONNECT ")
    refusing = ForwardProxy(raw_upstream, tunnel=b"HTTP/1.1 407 Who\r\n\r\n")
    with pytest.raises(Misconfigured):
        engine_for("https://a.example/", proxy=refusing.server.url).probe(in_time(None))


def test_each_origin_of_an_engine_has_its_own_way(raw_upstream, engine_for, upstream, monkeypatch):
    proxy = ForwardProxy(raw_upstream)
    monkeypatch.setenv("http_proxy", proxy.server.url)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    engine = engine_for("http://a.example/", proxy="environment", health_url=upstream.url)
    engine.probe(in_time(None))
    assert (len(upstream.requests), proxy.heads) == (1, [])
    engine.call(in_time({}))
    assert (len(upstream.requests), len(proxy.heads)) == (1, 1)


@pytest.mark.parametrize("kind", [HttpEngine, ProxyEngine, OpenAIEngine])
def test_every_http_engine_takes_a_proxy(kind, engine_for, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://p.internal:3128")
    options = {"model": "m"} if kind is OpenAIEngine else {}
    engine = engine_for("http://a.example/", kind=kind, proxy="environment", **options)
    assert engine._transport._proxy == OutboundProxy("p.internal", 3128)


# --- OM_OUTBOUND_PROXY ----------------------------------------------------------------------------


def attached(engine, **settings):
    """The engine as the chain of an application with these settings has it."""
    with contextlib.closing(Runtime(Settings(**settings), host=Host(testing=True))) as runtime:
        runtime.add_engine(EngineSpec(engine, "c"))
        (spec,) = runtime.part_of("chains").get("c").engines
        return spec.engine


@pytest.mark.parametrize("kind", [HttpEngine, ProxyEngine, OpenAIEngine])
def test_the_setting_of_the_application_is_for_all_its_engines(kind, engine_for, raw_upstream):
    proxy = ForwardProxy(raw_upstream)
    options = {"model": "m"} if kind is OpenAIEngine else {}
    engine = engine_for("http://a.example", kind=kind, **options)
    there = attached(engine, outbound_proxy=f"http://me:p%40ss%20w%C3%B6rd@{proxy.address}")
    with contextlib.suppress(EngineError):  # the proxy's answer is no chat completion
        there.call(in_time(HttpRequest("GET", "/") if kind is ProxyEngine else {"question": "?"}))
    there.close()
    assert proxy.heads[0][0].split()[1].startswith("http://a.example/")
    assert f"Proxy-Authorization: {BASIC}" in proxy.heads[0]
    assert engine._transport._proxy is None, "another application has another setting"


@pytest.mark.parametrize("own", ["direct", "http://q.internal:1"])
def test_an_engine_with_a_proxy_of_its_own_keeps_it(engine_for, own):
    engine = engine_for("http://a.example/", proxy=own)
    assert attached(engine, outbound_proxy="http://p.internal:3128") is engine
    assert engine._transport._proxy == (None if own == "direct" else OutboundProxy("q.internal", 1))


def test_without_the_setting_an_engine_is_what_it_was(engine_for, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://p.internal:3128")
    engine = engine_for("http://a.example/")
    assert attached(engine) is engine
    there = attached(engine, outbound_proxy="environment")
    assert there._transport._proxy == OutboundProxy("p.internal", 3128)


@pytest.mark.parametrize(
    "wrong",
    ["yes", "", "p:3128", "https://me:secret@p", "socks5://me:secret@p", "http://", 1, True],
)
def test_a_wrong_setting_stops_the_start_and_is_not_shown(wrong):
    with pytest.raises(
        ConfigError, match=r"OM_OUTBOUND_PROXY '…'.*'environment' or a URL"
    ) as caught:
        Runtime(Settings(outbound_proxy=wrong), host=Host(testing=True))
    assert "secret" not in str(caught.value)


def test_what_a_plugin_gets_shows_no_password():
    setting = "http://me:secret@p.internal:3128"
    with contextlib.closing(
        Runtime(Settings(outbound_proxy=setting), host=Host(testing=True))
    ) as runtime:
        context = runtime.kit.plugin_context("x", None, logging.getLogger("x"))
        assert context.outbound_proxy == setting
        assert "secret" not in repr(context)
