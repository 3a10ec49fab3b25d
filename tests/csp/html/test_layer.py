import gzip
import hashlib
import logging
import re
from wsgiref.validate import validator

import pytest
from flask import Flask, Response, render_template_string, request, send_file
from werkzeug.test import create_environ, run_wsgi_app

from om_plugins import OpenManager, OpenManagerMiddleware, Settings
from om_plugins.core.body import close_body
from om_plugins.csp.html import layer as module
from om_plugins.errors import ConfigError

PAGE = "<!doctype html><script>start()</script><style nonce=old>p {}</style>"
NONCED = '<!doctype html><script nonce="N">start()</script><style nonce="N">p {}</style>'
POLICY = "Content-Security-Policy"


def make(app, paths="trusted", **settings):
    settings = {"csp_mode": "enforce", "hub_url": "memory://", **settings}
    return OpenManagerMiddleware(app, Settings(csp_html_nonces=paths, **settings))


def page(body=PAGE, *headers, status="200 OK", pieces=None):
    """A WSGI application with one page."""
    body = body.encode() if isinstance(body, str) else body

    def app(environ, start_response):
        fields = [("Content-Type", "text/html; charset=utf-8"), *headers]
        fields = list({name.lower(): (name, value) for name, value in fields}.values())
        if pieces is None:
            fields.append(("Content-Length", str(len(body))))
        start_response(status, fields)
        if environ["REQUEST_METHOD"] == "HEAD":
            return []
        return [body] if pieces is None else [body[i : i + pieces] for i in range(0, 999, pieces)]

    return app


def ask(app, path="/", method="GET", **headers):
    environ = create_environ(path, "https://localhost/", method=method)
    environ |= {f"HTTP_{name.upper()}": value for name, value in headers.items()}
    body, status, fields = run_wsgi_app(app, environ)
    found = re.search("'nonce-([0-9a-f]{32})'", fields.get(POLICY, ""))
    text = b"".join(body).decode("latin-1")
    close_body(body)
    return status, fields, text.replace(found[1], "N") if found else text


def test_tags_of_a_page_that_the_owner_trusts_get_the_nonce_of_its_header():
    app = make(validator(page()))
    _, fields, text = ask(validator(app))
    assert text == NONCED
    assert int(fields["Content-Length"]) == len(NONCED) + 2 * 31
    assert fields["Cache-Control"] == "private"
    assert ask(app)[1][POLICY] != fields[POLICY]


@pytest.mark.parametrize(
    ("path", "trusted"),
    [("/charts/a", True), ("/charts/", True), ("/", False), ("/chart", False), ("/up", True)],
)
def test_only_pages_of_the_patterns_are_trusted(path, trusted):
    app = make(page(), ["/charts/*", "/up"])
    assert ask(app, path)[2] == (NONCED if trusted else PAGE)


def test_off_unless_it_is_said():
    assert ask(make(page(), ()))[2] == PAGE
    assert "csp" not in make(page(), ()).runtime.kit.layers


@pytest.mark.parametrize("value", ["trust", True, ["charts"], ["/a*b"], 1, {"/a": 1}])
def test_another_value_is_an_error_that_says_what_to_write(value):
    with pytest.raises(ConfigError, match=r"OM_CSP_HTML_NONCES.*'trusted', or a list of paths"):
        Settings(csp_html_nonces=value)


def test_the_setting_may_be_text_as_in_an_environment_variable():
    assert Settings(csp_html_nonces="/a/*, /b").csp_html_nonces == ("/a/*", "/b")
    assert Settings(csp_html_nonces="").csp_html_nonces == ()


@pytest.mark.parametrize("size", [1, 3, 7, 1000])
def test_stream_is_sent_in_pieces(size):
    _, fields, text = ask(validator(make(validator(page(pieces=size)))))
    assert text == NONCED
    assert "Content-Length" not in fields
    assert fields["Cache-Control"] == "private"


def test_stream_is_not_collected():
    def app(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/html")])
        yield b"<p>one</p><script>"
        raise AssertionError("too early")

    body = iter(make(app)(create_environ(), lambda status, headers, exc_info=None: None))
    assert re.fullmatch(rb'<p>one</p><script nonce="[0-9a-f]+">', next(body))


def test_large_page_is_sent_in_pieces(monkeypatch):
    monkeypatch.setattr(module, "MAX_WHOLE_BYTES", 10)
    _, fields, text = ask(make(page()))
    assert text == NONCED
    assert "Content-Length" not in fields


def test_application_that_writes_is_streaming():
    def app(environ, start_response):
        write = start_response("200 OK", [("Content-Type", "text/html"), ("Content-Length", "68")])
        write(PAGE[:20].encode())
        write(PAGE[20:40].encode())
        return [PAGE[40:].encode()]

    _, fields, text = ask(make(app))
    assert text == NONCED
    assert "Content-Length" not in fields


def test_head_has_the_headers_of_get_without_a_length():
    app = make(page(PAGE, ("ETag", '"v1"')))
    _, of_get, _ = ask(app)
    _, of_head, text = ask(app, method="HEAD")
    assert text == ""
    assert "Content-Length" not in of_head
    assert of_head["ETag"] == of_get["ETag"]


def test_page_without_tags_keeps_its_length_and_is_for_every_cache():
    _, fields, text = ask(make(page("<p>a</p>")))
    assert (text, fields["Content-Length"]) == ("<p>a</p>", "8")
    assert "Cache-Control" not in fields


def closes(app):
    """Wrap an application, and count how often its bodies are closed."""
    closed = []

    class Body(list):
        def close(self):
            closed.append(1)

    return lambda environ, start: Body(app(environ, start)), closed


@pytest.mark.parametrize("pieces", [None, 5])
@pytest.mark.parametrize("read", [True, False])
def test_body_is_closed_once(pieces, read):
    inner, closed = closes(page(pieces=pieces))
    body = make(inner)(create_environ(), lambda status, headers, exc_info=None: None)
    if read:
        list(body)
    if hasattr(body, "close"):
        body.close()
    assert closed == [1]


def test_error_in_the_middle_of_a_page_is_the_server_s():
    def app(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/html"), ("Content-Length", "9")])
        yield b"<p>"
        raise ZeroDivisionError

    started = []
    with pytest.raises(ZeroDivisionError):
        list(make(app)(create_environ(), lambda *args: started.append(args)))
    assert not started


def test_application_may_start_again_with_an_error_page():
    def app(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/html"), ("Content-Length", "99")])
        try:
            raise ZeroDivisionError
        except ZeroDivisionError as error:
            raised = (ZeroDivisionError, error, error.__traceback__)
            start_response("500 Error", [("Content-Type", "text/html")], raised)
        return [PAGE.encode()]

    started = []
    body = make(app)(create_environ(), lambda *args: started.append(args))
    text = re.sub(r'nonce="[0-9a-f]{32}"', 'nonce="N"', b"".join(body).decode())
    assert ([one[0] for one in started], text) == (["500 Error"], NONCED)


# --- what stays as it is ---


@pytest.mark.parametrize(
    ("headers", "said"),
    [
        ([("Content-Type", "application/json")], ""),
        ([("Content-Type", "text/plain")], ""),
        ([("Content-Type", "image/svg+xml")], ""),
        ([("Content-Encoding", "br")], "Content-Encoding: br"),
        ([("Content-Type", "text/html; charset=utf-16")], "the charset 'utf-16'"),
        ([("Content-Type", "text/html; charset=iso-2022-jp")], "the charset 'iso-2022-jp'"),
        ([("Content-Type", "text/html; charset=own")], "the charset 'own'"),
        ([(POLICY, "script-src 'nonce-old'")], ""),
    ],
)
def test_what_cannot_be_changed_stays_as_it_is_and_the_log_says_so(headers, said, caplog):
    caplog.set_level(logging.WARNING, "om_plugins")
    app = make(page(PAGE, ("ETag", '"v1"'), *headers))
    for _ in range(2):
        _, fields, text = ask(app)
        assert text == PAGE
        assert fields["ETag"] == '"v1"'
    records = [one.getMessage() for one in caplog.records]
    assert len(records) == bool(said)
    assert all("OM_CSP_HTML_NONCES: / has " in one and said in one for one in records)


@pytest.mark.parametrize(
    "content_type",
    ["text/html", "TEXT/HTML; Charset=ISO-8859-1", "text/html; charset=\"utf8\"",
     "application/xhtml+xml"],
)  # fmt: skip
def test_every_kind_of_page_is_one(content_type):
    text = "<p>caf\xe9</p>".encode("latin-1") + PAGE.encode()
    found = ask(make(page(text, ("Content-Type", content_type), ("Content-Encoding", "identity"))))
    assert found[2] == "<p>caf\xe9</p>" + NONCED


def test_error_pages_are_pages_and_a_part_of_a_page_is_none():
    assert ask(make(page(status="404 NOT FOUND")))[2] == NONCED
    assert ask(make(page(status="206 PARTIAL CONTENT")))[2] == PAGE


@pytest.mark.parametrize("mode", ["adopt", "learn", "off", "enforce"])
def test_page_stays_byte_for_byte_where_nothing_asks_for_nonces(mode):
    sample = {"adopt": 0, "learn": 0, "off": 0, "enforce": 0}[mode]
    app = make(page(PAGE, ("ETag", '"v1"')), csp_mode=mode, csp_report_sample=sample)
    _, fields, text = ask(app, if_none_match='"v0"', accept="text/html")
    plain = mode in ("adopt", "off")
    assert ("nonce=old" in text) is plain
    assert (fields["ETag"] == '"v1"') is plain
    if mode == "adopt":  # its tags have no nonces, and no report may say so
        assert "Content-Security-Policy-Report-Only" not in fields


def test_page_that_asks_for_reports_gets_nonces_in_mode_adopt():
    _, fields, text = ask(make(page(), csp_mode="adopt", csp_report_sample=1))
    used = re.search('nonce="([0-9a-f]+)"', text)[1]
    assert f"'nonce-{used}'" in fields["Content-Security-Policy-Report-Only"]


# --- conditions ---


def conditional(etag='"v1"'):
    """An application that answers conditions itself, as Flask's ``make_conditional`` does."""
    seen = []

    def app(environ, start_response):
        seen.append({name: environ[name] for name in environ if name.startswith("HTTP_IF")})
        if etag in environ.get("HTTP_IF_NONE_MATCH", ""):
            start_response("304 NOT MODIFIED", [("ETag", etag)])
            return []
        return page(PAGE, ("ETag", etag), ("Accept-Ranges", "bytes"), ("Digest", "x"))(
            environ, start_response
        )

    return app, seen


def test_browser_that_has_the_page_gets_a_304():
    app = make(conditional()[0])
    _, fields, _ = ask(app)
    assert re.fullmatch(r'W/"v1-om[0-9a-f]{8}"', fields["ETag"])
    assert "Accept-Ranges" not in fields
    assert "Digest" not in fields
    status, again, text = ask(app, if_none_match=f'"x", {fields["ETag"]}')
    assert (status, text, again["ETag"]) == ("304 NOT MODIFIED", "", fields["ETag"])
    assert POLICY not in again


def test_page_from_before_the_setting_is_sent_again_and_files_are_not():
    app, seen = conditional()
    app = make(app)
    since = {"if_modified_since": "Sat, 01 Jan 2022 00:00:00 GMT"}
    assert ask(app, if_none_match='"v1"', accept="text/html,*/*", **since)[0] == "200 OK"
    assert seen.pop() == {}
    status, fields, _ = ask(app, if_none_match='"v1"', accept="*/*", **since)
    assert (status, fields["ETag"]) == ("304 NOT MODIFIED", '"v1"')


def test_page_under_another_policy_is_another_page():
    _, fields, _ = ask(make(conditional()[0]))
    stricter = make(conditional()[0], csp={"img-src": ["'self'"]})
    assert ask(stricter, if_none_match=fields["ETag"], accept="text/html")[0] == "200 OK"


def test_no_part_of_a_page_is_asked_for_that_differs_each_time():
    app, seen = conditional()
    app = make(app)
    etag = ask(app)[1]["ETag"]
    ask(app, range="bytes=5-", if_range=etag)
    assert seen.pop() == {}
    ask(app, range="bytes=5-", if_range='"v1"')
    assert seen.pop() == {"HTTP_IF_RANGE": '"v1"'}


# --- Flask and the caches ---


@pytest.fixture
def app():
    app = Flask(__name__)
    app.config.update(
        TESTING=True, OM_CSP_MODE="enforce", OM_CSP_HTML_NONCES="trusted", OM_HTTP_CACHE=True
    )
    return app


def check(response):
    """Check that each nonce of a page is that of its header; return the page without it."""
    value = re.search("'nonce-([0-9a-f]{32})'", response.headers[POLICY])[1]
    assert set(re.findall(r"nonce=.?([0-9a-z]+)", response.text)) <= {value}
    assert int(response.headers["Content-Length"]) == len(response.data)
    return response.text.replace(value, "N")


CACHED = [{"stale_time": 60}, {"stale_time": 60, "shared": True}]


@pytest.mark.parametrize("options", CACHED, ids=["cached", "shared"])
@pytest.mark.parametrize("template", [True, False], ids=["template", "python"])
def test_our_caches_never_keep_a_nonce(app, options, template):
    om = OpenManager(app)
    runs = []

    @app.get("/")
    @om.cached(**options)
    def index():
        runs.append(1)
        return render_template_string("<script>1</script>") + PAGE if template else PAGE

    client = app.test_client()
    answers = [client.get("/") for _ in range(3)]
    expected = ('<script nonce="N">1</script>' if template else "") + NONCED
    assert [check(one) for one in answers] == [expected] * 3
    assert len({one.headers[POLICY] for one in answers}) == 3
    assert len(runs) == 1
    tag = answers[0].headers["ETag"]
    assert client.get("/", headers={"If-None-Match": tag}).status_code == 304


def test_fragment_from_a_cache_gets_the_nonce_of_the_response_that_it_is_in(app):
    OpenManager(app)
    kept = {}

    @app.get("/")
    def index():
        if "fragment" not in kept:
            kept["fragment"] = render_template_string("<script>1</script>")
        return render_template_string("<p>{{ fragment|safe }}</p>", **kept)

    client = app.test_client()
    for _ in range(3):
        assert check(client.get("/")) == '<p><script nonce="N">1</script></p>'
    assert "nonce" in kept["fragment"]


def test_exempted_view_and_static_files_pass(app, tmp_path):
    om = OpenManager(app)
    (tmp_path / "a.html").write_text(PAGE)
    (tmp_path / "a.js").write_text("1")

    @app.get("/exempt")
    @om.csp(exempt=True)
    def exempt():
        return PAGE

    @app.get("/file/<name>")
    def file(name):
        return send_file(tmp_path / name)

    client = app.test_client()
    assert client.get("/exempt").text == PAGE
    assert check(client.get("/file/a.html")) == NONCED
    part = client.get("/file/a.js", headers={"Range": "bytes=0-0"}, buffered=True)
    assert part.status_code == 206
    condition = {"If-None-Match": part.headers["ETag"], "Accept": "*/*"}
    assert client.get("/file/a.js", headers=condition, buffered=True).status_code == 304


def test_etag_of_the_bytes_is_that_of_the_page_without_nonces(app):
    OpenManager(app)

    @app.get("/")
    def index():
        response = Response(PAGE)
        response.add_etag()
        return response.make_conditional(request)

    client = app.test_client()
    first = client.get("/")
    assert check(first) == NONCED
    made = hashlib.sha1(PAGE.encode(), usedforsecurity=False).hexdigest()
    assert first.headers["ETag"].startswith(f'W/"{made}-om')
    found = client.get("/", headers={"If-None-Match": first.headers["ETag"], "Accept": "text/html"})
    assert found.status_code == 304


def test_compressed_page_is_left_alone(app, caplog):
    OpenManager(app)
    body = gzip.compress(PAGE.encode())
    app.add_url_rule("/", "i", lambda: Response(body, headers={"Content-Encoding": "gzip"}))
    assert app.test_client().get("/").data == body
    assert "compress outside of the application" in caplog.text


@pytest.mark.parametrize("preset", ["strict", "compatible", "hash"])
def test_each_preset_lists_the_nonce(app, preset):
    app.config["OM_CSP_PRESET"] = preset
    OpenManager(app)
    app.add_url_rule("/", "i", lambda: render_template_string("<script>2</script>") + PAGE)
    text = check(app.test_client().get("/"))
    assert text.endswith(NONCED)
    assert text.startswith('<script nonce="N">2</script>')
