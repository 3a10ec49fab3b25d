"""What caches and browsers outside are told about pages with nonces."""

import hashlib

import pytest
from flask import Flask, render_template_string, request

from om_plugins import OpenManager
from om_plugins.core.request_state import state_of
from om_plugins.csp.nonce import nonce, tag_nonce
from om_plugins.headers.downstream_caching import MAX_BODY_BYTES, answer_conditional, make_private
from om_plugins.headers.layer import HeaderPolicy, HeadersLayer


def page(*headers, ask=nonce, body="<script nonce={}>", length=True, content_type="text/html"):
    def app(environ, start_response):
        text = body.format(ask(environ) if ask else "").encode()
        own = [("Content-Type", content_type), *headers]
        if length:
            own.append(("Content-Length", str(len(text))))
        start_response("200 OK", own)
        return [text]

    return app


def ask_for_tag(environ):
    return tag_nonce(state_of(environ))


def ask_for_stored_page(environ):
    return state_of(environ).nonce_for_stored_page()


@pytest.fixture
def enforced(serve):
    def run(app, **arguments):
        return serve(HeadersLayer(app, HeaderPolicy(mode="enforce", report_sample=0)), **arguments)

    return run


# --- shared caches ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ([], "private"),
        (["public, max-age=60"], "private, max-age=60"),
        (["max-age=0, s-maxage=600, stale-while-revalidate=5"],
         "private, max-age=0, stale-while-revalidate=5"),
        (["PUBLIC", "no-cache"], "private, no-cache"),
        (["no-store"], "no-store"),
        (["private"], "private"),
        (['private="x-a, x-b", max-age=1'], "private, max-age=1"),
        (['max-age=1, ext="a, public, b"'], 'private, max-age=1, ext="a, public, b"'),
        (["S-MaxAge=1 , ,"], "private"),
    ],
)  # fmt: skip
def test_a_page_that_used_its_nonce_is_private(enforced, said, kept):
    seen = enforced(page(*(("Cache-Control", one) for one in said)))
    assert seen.get("Cache-Control") == kept


def test_headers_for_one_kind_of_cache_are_left_out():
    own = [("CDN-Cache-Control", "max-age=9"), ("Surrogate-Control", "max-age=9"), ("A", "b")]
    own += [("X-Accel-Expires", "9"), ("cloudflare-cdn-cache-control", "max-age=9")]
    assert make_private(own) == [("A", "b"), ("Cache-Control", "private")]


def test_a_page_that_used_no_nonce_may_be_kept_by_anybody(enforced):
    seen = enforced(page(("Cache-Control", "public, max-age=60"), ask=None, body="<p>"))
    assert seen.get("Cache-Control") == "public, max-age=60"
    assert enforced(page(ask=None, body="<p>")).get("Cache-Control") is None


def test_a_stream_is_private_because_it_may_use_its_nonce_late(enforced):
    assert enforced(page(ask=None, body="<p>", length=False)).get("Cache-Control") == "private"
    data = page(ask=None, body="x", length=False, content_type="application/json")
    assert enforced(data).get("Cache-Control") is None


def test_by_default_a_stream_may_be_kept_by_whoever_kept_it(serve):
    for mode, said in (("adopt", None), ("learn", "private")):
        rules = HeaderPolicy(mode=mode, report_sample=float(mode == "learn"))
        stream = page(ask=None, body="<p>", length=False)
        assert serve(HeadersLayer(stream, rules)).get("Cache-Control") == said
    public = ("Cache-Control", "public, s-maxage=60")
    rules = HeaderPolicy(mode="adopt", report_sample=0)
    seen = serve(HeadersLayer(page(public, ask=ask_for_tag, length=False), rules))
    assert seen.get("Cache-Control") == public[1]


def test_what_our_own_cache_stitches_stays_as_that_cache_says(enforced):
    own = ("Cache-Control", "public, s-maxage=60")
    seen = enforced(page(own, ("ETag", '"x"'), ask=ask_for_stored_page))
    assert seen.get("Cache-Control") == "public, s-maxage=60"
    assert seen.get("ETag") == '"x"'


# --- 304 ------------------------------------------------------------------------------------------


def hashed(algorithm="sha1"):
    """A page whose ETag is made from its bytes, as frameworks do."""

    def app(environ, start_response):
        text = f"<script nonce={nonce(environ)}>{environ['QUERY_STRING']}".encode()
        tag = hashlib.new(algorithm, text, usedforsecurity=False).hexdigest()
        own = [("Content-Type", "text/html"), ("Content-Length", str(len(text)))]
        own += [("ETag", f'"{tag}"'), ("Vary", "Cookie"), ("Set-Cookie", "a=b")]
        start_response("200 OK", own)
        return [text]

    return app


@pytest.mark.parametrize("algorithm", ["md5", "sha1", "sha256"])
def test_a_browser_that_has_the_page_gets_304_though_its_nonce_differs(enforced, algorithm):
    app = hashed(algorithm)
    first, second = enforced(app), enforced(app)
    assert first.body != second.body
    tag = first.get("ETag")
    assert tag.startswith('W/"')
    assert second.get("ETag") == tag

    again = enforced(app, environ={"HTTP_IF_NONE_MATCH": f'"other", {tag}'})
    assert (again.status, again.body) == ("304 Not Modified", b"")
    assert again.csp is None  # the browser keeps the policy that its page came with
    assert again.get("ETag") == tag
    assert again.get("Cache-Control") == "private"
    assert again.get("Vary") == "Cookie"
    assert again.get("Set-Cookie") == "a=b"
    assert not again.all("Content-Length") + again.all("Content-Type")

    other = enforced(app, path="/?changed", environ={"HTTP_IF_NONE_MATCH": tag})
    assert other.status == "200 OK"
    assert other.get("ETag") != tag


def test_another_policy_is_another_answer(serve):
    def tag(**settings):
        return serve(HeadersLayer(hashed(), HeaderPolicy(mode="enforce", **settings))).get("ETag")

    strict = tag(report_sample=0)
    assert tag(report_sample=0) == strict
    assert tag(report_sample=0, csp={"img-src": ["'self'"]}) != strict


@pytest.mark.parametrize("own", ['"version-7"', '"' + "0" * 40 + '"', "garbage", '""'])
def test_an_etag_that_was_not_made_from_the_bytes_is_kept(enforced, own):
    seen = enforced(page(("ETag", own)), environ={"HTTP_IF_NONE_MATCH": "*"})
    assert seen.status == "200 OK"
    assert seen.get("ETag") == own


def test_head_and_very_large_pages_are_not_held_back(enforced):
    assert not enforced(hashed(), method="HEAD").get("ETag").startswith("W/")
    large = page(("ETag", '"x"'), body="{}" + "x" * MAX_BODY_BYTES)
    assert enforced(large).get("ETag") == '"x"'


def test_applications_of_other_shapes_still_pass(serve, through):
    policy = HeaderPolicy(mode="enforce", report_sample=0)

    def writes(environ, start_response):
        value = nonce(environ)
        headers = [("Content-Type", "text/html"), ("ETag", '"a"'), ("Content-Length", "33")]
        start_response("200 OK", headers)(value.encode())
        return [b"!"]

    seen = serve(through(writes, policy))
    assert seen.body == nonce(seen.environ).encode() + b"!"

    def late(environ, start_response):
        yield from hashed()(environ, start_response)

    assert not serve(HeadersLayer(late, policy)).get("ETag").startswith("W/")
    assert serve(through(hashed(), policy)).get("ETag").startswith("W/")


def test_the_body_is_closed_once_it_was_read(enforced):
    closed = []

    class Body(list):
        def close(self):
            closed.append(True)

    app = hashed()
    assert enforced(lambda environ, start: Body(app(environ, start))).status == "200 OK"
    assert closed == [True]


def test_conditional_without_an_etag_changes_nothing():
    answer = ("200 OK", [("Content-Type", "text/html")], b"x")
    assert answer_conditional({}, *answer, "n") == answer


def test_flask_s_own_etags_work_with_nonces():
    app = Flask(__name__)
    app.config.update(TESTING=True, OM_CSP_MODE="enforce")
    OpenManager(app)

    @app.get("/")
    def index():
        return render_template_string("<script>start()</script>")

    @app.after_request
    def conditional_get(response):
        response.add_etag()
        return response.make_conditional(request)

    client = app.test_client()
    first = client.get("/")
    assert "nonce=" in first.text
    tag = first.headers["ETag"]
    again = client.get("/", headers={"If-None-Match": tag})
    assert (again.status_code, again.data) == (304, b"")
