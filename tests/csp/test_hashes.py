"""Pages whose scripts are allowed by their hashes."""

import base64
import hashlib
import re

import pytest
from flask import Flask, Response, render_template_string, stream_template_string
from jinja2 import DictLoader, Environment, FileSystemBytecodeCache

from om_plugins import OpenManager
from om_plugins.core.request_state import KEY, RequestState
from om_plugins.csp.hashes import OWN, add_hashes, check_notes, hash_text, is_own, note_hash
from om_plugins.csp.jinja.extension import install
from om_plugins.csp.policy import read_policy
from om_plugins.errors import ConfigError


def sha(text):
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


@pytest.fixture
def render():
    def run(source, *, hashes=True, attributes=False, collecting=True, **context):
        state = RequestState(None, page_nonce="N", hashes={} if collecting else None)
        env = Environment(autoescape=True, trim_blocks=context.pop("trim", False))
        install(env, environ=lambda: {KEY: state}, hashes=hashes, attributes=attributes)
        return env.from_string(source).render(context), list(state.hashes or ())

    return run


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("<script>start()</script>", "start()"),
        ("<script>\n  'ü' < \"&amp;\"\n</script>", "\n  'ü' < \"&amp;\"\n"),
        ("<script>a\r\nb\rc</script>", "a\nb\nc"),
        ("<script>a{# c #}b</script>", "ab"),
        ("<script>{% raw %}{{ a }}{% endraw %}</script>", "{{ a }}"),
        ("<script>{%- raw %} a {% endraw -%} </script>", " a "),
        ("{% if yes %}<script>a</script>{% endif %}", "a"),
        ("{% for i in [1, 2] %}<script>a</script>{% endfor %}", "a"),
        ("{% block b %}<script type=module>a</script>{% endblock %}", "a"),
        ("<script></script>", ""),
    ],
)
def test_a_script_that_never_changes_is_noted_by_its_hash(render, source, text):
    html, found = render(source, yes=True)
    assert "nonce" not in html
    assert found == [f"script-src {sha(text)}"]


def test_newlines_are_those_that_a_browser_sees():
    state = RequestState(None, hashes={})
    env = Environment(newline_sequence="\r\n", autoescape=True)
    install(env, environ=lambda: {KEY: state}, hashes=True)
    assert env.from_string("<script>a\nb</script>").render() == "<script>a\r\nb</script>"
    assert list(state.hashes) == ["script-src " + sha("a\nb")]


def test_a_style_is_noted_for_its_own_directive(render):
    assert render("<style>p{}</style>")[1] == [f"style-src {sha('p{}')}"]


@pytest.mark.parametrize(
    "source",
    [
        "<script>a = {{ x|tojson }}</script>",
        "<script>{% if x %}a{% endif %}</script>",
        "<script>{% set y = 1 %}a</script>",
        "{% filter indent %}<script>\na</script>{% endfilter %}",
        "{% macro m() %}<script>a</script>{% endmacro %}{{ m()|replace('a', 'b') }}",
        "{% set s %}<script>a</script>{% endset %}{{ s }}",
        "{% if x %}<script>{% else %}<script defer>{% endif %}a</script>",
        "<script src='https://cdn.example/a.js'></script>",
        "<script src='//cdn.example/a.js'></script>",
        "<script src='{{ x }}'></script>",
        "<link rel=stylesheet href='https://cdn.example/a.css'>",
    ],
)
def test_what_may_change_or_comes_from_elsewhere_has_a_nonce(render, source):
    html, found = render(source, x=1)
    assert 'nonce="N"' in html or "nonce='N'" in html
    assert found == []


@pytest.mark.parametrize(
    "source",
    [
        "<script src='/static/a.js'></script>",
        "<script src=a/{{ 1 }}.js></script>",
        "<script src=\"{{ url_for('static') }}\"></script>",
        "<link rel=stylesheet href='a.css?v={{ 1 }}'>",
    ],
)
def test_a_file_of_the_site_needs_nothing(render, source):
    html, found = render(source, url_for=lambda name: "/static/a.js")
    assert "nonce" not in html
    assert found == []


@pytest.mark.parametrize("address", ["JavaScript:a", " https:a", "//a", "\\\\a", "\0a", "data:,a"])
def test_an_address_with_scheme_or_host_is_not_the_site_s_own(address):
    assert not is_own(address)
    assert is_own("a/b:c")


def test_once_the_headers_are_sent_a_tag_has_its_nonce(render):
    assert 'nonce="N"' in render("<script>a</script>", collecting=False)[0]
    assert not note_hash(RequestState(None, hashes=()), OWN)


def test_attributes_are_noted_on_request(render):
    source = "<p onclick='go(&quot;a&quot;)' STYLE=\"color:red\" onclick={{ x }} title='a'>{{ x }}"
    html, found = render(source, hashes=False, attributes=True, x=1)
    assert html == source.replace("{{ x }}", "1")
    assert found == [
        "script-src-attr " + sha('go("a")'),
        f"style-src-attr {sha('color:red')}",
    ]
    assert render(source, hashes=True, x=1)[1] == []


def test_attributes_of_a_macro_are_noted_when_it_is_called(render):
    macro = "{% macro b(x) %}<b onclick='go()'>{{ x }}</b>{% endmacro %}"
    found = [f"script-src-attr {sha('go()')}"]
    assert render(macro + "{{ b(1) }}", attributes=True) == ("<b onclick='go()'>1</b>", found)
    assert render(macro, attributes=True)[1] == []


@pytest.mark.parametrize(
    ("policy", "nonce", "expected"),
    [
        ("script-src 'self' 'hashes' 'nonce'", False, "script-src 'self' H"),
        ("script-src 'self' 'hashes' 'nonce'", True, "script-src 'self' H 'nonce'"),
        ("script-src 'nonce'", False, "script-src 'nonce'; script-src-attr 'unsafe-hashes' A"),
        ("script-src-elem 'hashes'", False, "script-src-elem H"),
        ("style-src 'self'; style-src-attr 'unsafe-inline'", False, None),
        ("img-src 'self'", False, None),
        # everything inline is allowed: a hash would take that back
        ("style-src 'self' 'unsafe-inline'", False, None),
        ("default-src 'self'; script-src-attr 'none'", False,
         "default-src 'self'; script-src-attr 'unsafe-hashes' A; style-src-attr 'unsafe-hashes' S"),
    ],
)  # fmt: skip
def test_policies_list_what_their_page_noted(policy, nonce, expected):
    notes = ["script-src H", "script-src-attr A", "style-src-attr S"]
    found = add_hashes(read_policy(policy, ""), notes, nonce=nonce)
    text = "; ".join(" ".join((name, *sources)) for name, sources in found.items())
    if "'hashes'" in policy and "script-src-elem" not in policy:
        expected += "; script-src-attr 'unsafe-hashes' A"
    assert text == (policy if expected is None else expected)


def test_notes_from_a_store_are_checked():
    note = hash_text("script-src", "a")
    assert check_notes([note]) == (note,)
    with pytest.raises(ValueError, match="no hash"):
        check_notes([note + "; img-src *"])


def test_bytecode_with_and_without_hashes_is_kept_apart(tmp_path):
    keys = set()
    for options in ({}, {"hashes": True}, {"attributes": True}, {"questions": True}):
        env = Environment(bytecode_cache=FileSystemBytecodeCache(str(tmp_path)))
        install(env, **options)
        keys.add(env.bytecode_cache.get_cache_key("a.html"))
    assert len(keys) == 4


# --- in an app ------------------------------------------------------------------------------------

PAGE = "<!doctype html><style>p{}</style><script>start()</script><p>{{ x }}"


@pytest.fixture
def app():
    app = Flask("hashing")
    app.config.update(
        TESTING=True, OM_CSP_MODE="enforce", OM_CSP_PRESET="hash", OM_HUB_URL="memory://"
    )
    app.config["OM_CSP_PATHS"] = {"/dynamic": {"update": {"script-src": ["'strict-dynamic'"]}}}
    app.om = OpenManager(app)

    @app.get("/")
    @app.get("/dynamic")
    def index():
        return render_template_string(PAGE, x=1)

    @app.get("/own")
    @app.om.csp(replace={"script-src": ["'nonce'", "'strict-dynamic'"]})
    def own():
        return render_template_string(PAGE, x=1)

    @app.get("/watched")
    @app.om.csp(report_only="script-src 'nonce'")
    def watched():
        return render_template_string(PAGE, x=1)

    @app.get("/wider")
    @app.om.csp(update={"script-src": ["'nonce'", "https://a.example"]})
    def wider():
        return render_template_string(PAGE, x=1)

    @app.get("/mixed")
    def mixed():
        return render_template_string(PAGE + "<script>a = {{ x }}</script>", x=1)

    @app.get("/stream")
    def stream():
        return Response(stream_template_string(PAGE, x=1))

    @app.get("/cached")
    @app.om.cached()
    def cached():
        return render_template_string(PAGE, x=1)

    @app.get("/shared")
    @app.om.cached(shared=True)
    def shared():
        return render_template_string(PAGE, x=1)

    @app.get("/plain")
    def plain():
        return "<p>plain"

    return app


def csp(response):
    return response.headers["Content-Security-Policy"]


LISTED = (
    f"script-src 'self' {sha('start()')} 'report-sample'; "
    f"style-src 'self' {sha('p{}')} 'report-sample'; style-src-attr 'unsafe-inline'; "
)


@pytest.mark.parametrize("path", ["/", "/cached", "/shared"])
def test_a_page_without_nonce_is_the_same_each_time_and_any_cache_may_keep_it(app, path):
    client = app.test_client()
    first, second = client.get(path), client.get(path)
    assert first.data == second.data
    assert b"nonce" not in first.data
    assert csp(first) == csp(second)
    assert csp(first).startswith(LISTED)
    assert "private" not in first.headers.get("Cache-Control", "") or path == "/cached"
    assert not [name for name, _ in first.headers if "hash" in name.lower()]


def test_a_page_that_needs_both_has_both(app):
    response = app.test_client().get("/mixed")
    value = re.search(rb'nonce="(\w+)"', response.data)[1].decode()
    assert response.data.count(b"nonce=") == 1
    assert f"{sha('start()')} 'nonce-{value}'" in csp(response)
    assert response.headers["Cache-Control"] == "private"


@pytest.mark.parametrize("path", ["/own", "/dynamic", "/watched"])
def test_a_view_whose_policy_is_one_of_nonces_has_nonces(app, path):
    response = app.test_client().get(path)
    value = re.search(rb'nonce="(\w+)"', response.data)[1].decode()
    assert response.data.count(b"nonce=") == 2
    assert all(
        value in one for name, one in response.headers if name.startswith("Content-Security")
    )


def test_a_view_that_adds_a_host_has_none(app):
    response = app.test_client().get("/wider")
    assert b"nonce" not in response.data
    assert f"{sha('start()')} 'report-sample' https://a.example" in csp(response)


@pytest.mark.parametrize(
    "config",
    [
        {"OM_CSP": {"style-src": ["'self'", "'nonce'"]}},
        {"OM_CSP": {"script-src": ["'hashes'", "'nonce'", "'strict-dynamic'"]}},
        {"OM_CSP_REPORT_ALSO": ["script-src 'nonce'"]},
        {"OM_CSP_PRESET": "strict", "OM_CSP_ENFORCE_ALSO": ["style-src 'hashes'"]},
    ],
    ids=repr,
)
def test_a_policy_of_nonces_beside_hashes_is_an_error(config):
    app = Flask("both")
    app.config.update({"OM_CSP_MODE": "enforce", "OM_CSP_PRESET": "hash"} | config)
    with pytest.raises(ConfigError, match=r"where hashes are listed|write \"'hashes'\" beside"):
        OpenManager(app)


def test_a_stream_has_its_nonce(app):
    response = app.test_client().get("/stream")
    value = re.search(rb'<script nonce="(\w+)"', response.data)[1].decode()
    assert f"script-src 'self' 'nonce-{value}'" in csp(response)


def test_a_page_without_scripts_lists_nothing(app):
    assert csp(app.test_client().get("/plain")).startswith("script-src 'self' 'report-sample'; ")


def test_attributes_are_allowed_by_their_hashes_under_the_strict_policy():
    app = Flask("attributes")
    app.config.update(TESTING=True, OM_CSP_MODE="enforce", OM_CSP_HASH_ATTRIBUTES=True)
    OpenManager(app)

    @app.get("/")
    def index():
        return render_template_string("<p onclick='go()' style='color:red'>")

    policy = csp(app.test_client().get("/"))
    assert f"; script-src-attr 'report-sample' 'unsafe-hashes' {sha('go()')}" in policy
    assert "style-src-attr 'unsafe-inline';" in policy


# --- handlers that only ask -----------------------------------------------------------------------

ASK = "return confirm('Sure?')"
BUTTON = f'<button onclick="{ASK}">x</button>'
ALLOWED = f"script-src-attr 'report-sample' 'unsafe-hashes' {sha(ASK)}"


def ask(source=BUTTON, *, template=None, wrap=None, **config):
    """Return the policies of two responses of a page."""
    app = Flask("asking")
    app.config.update(TESTING=True, OM_CSP_MODE="enforce", OM_PLUGINS=())
    app.config.update(config)
    app.jinja_loader = DictLoader({"macros.html": template or ""})
    om = OpenManager(app)

    def index():
        return render_template_string(source)

    app.add_url_rule("/", "index", wrap(om)(index) if wrap else index)
    client = app.test_client()
    responses = [client.get("/") for _ in range(2)]
    return [csp(one) for one in responses if "Content-Security-Policy" in one.headers]


@pytest.mark.parametrize(
    ("source", "template"),
    [
        (BUTTON, ""),
        (f"<script>a</script>{BUTTON}", ""),
        (f"<form onsubmit=\"{ASK}\">", ""),
        ("{% from 'macros.html' import b %}{{ b() }}",
         f"{{% macro b() %}}{BUTTON}{{% endmacro %}}"),
        ("{% import 'macros.html' as m %}{{ m.b }}", f"{{% set b %}}{BUTTON}{{% endset %}}"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("preset", ["strict", "compatible", "hash"])
def test_a_handler_that_only_asks_works_under_enforce(source, template, preset):
    found = ask(source, template=template, OM_CSP_PRESET=preset)
    assert len(found) == 2
    assert all(sha(ASK) in one and "'unsafe-hashes'" in one for one in found)


@pytest.mark.parametrize("options", [{}, {"shared": True}])
def test_a_page_that_asks_works_from_a_cache(options):
    found = ask(wrap=lambda om: om.cached(**options))
    assert [one.partition("script-src-attr")[2] for one in found] == [
        ALLOWED.partition("script-src-attr")[2]
    ] * 2


@pytest.mark.parametrize(
    ("source", "config"),
    [
        ("<button onclick=\"return confirm('{{ 1 }}')\">", {}),
        ("<button onclick='go()'>", {}),
        ("{{ '" + BUTTON.replace("'", "\\'") + "' }}", {}),
        ("{% raw %}<textarea>{% endraw %}{{ 'confirm(' }}</textarea>", {}),
        (BUTTON, {"OM_CSP": {"script-src-attr": ["'none'"]}}),
        (BUTTON, {"OM_CSP_PRESET": "own", "OM_CSP": {"script-src": ["'nonce'"]}}),
        (BUTTON, {"OM_CSP_AUTO_NONCE": False}),
    ],
)
def test_nothing_else_is_allowed_because_of_it(source, config):
    found = ask(source, **config)
    assert len(found) == 2
    assert not any("'unsafe-hashes'" in one for one in found)


@pytest.mark.parametrize("preset", ["strict", "compatible", "hash"])
def test_handlers_that_ask_stay_allowed_beside_others(preset):
    allowed = {"script-src-attr": ["'unsafe-hashes'", sha("go()")]}
    for policy in ask(OM_CSP_PRESET=preset, OM_CSP=allowed):
        assert f"script-src-attr 'unsafe-hashes' {sha('go()')} {sha(ASK)}" in policy


NO_HANDLERS = {"script-src-attr": ["'none'"]}


@pytest.mark.parametrize(
    ("change", "config"),
    [
        ({"replace": NO_HANDLERS}, {}),
        ({"update": NO_HANDLERS}, {}),
        ({"replace": {"script-src": ["'none'"]}}, {}),
        ({"replace": NO_HANDLERS}, {"OM_CSP_PRESET": "hash"}),
        ({}, {"OM_CSP_PATHS": {"/": {"replace": NO_HANDLERS}}}),
    ],
)
def test_a_page_that_forbids_handlers_has_none(change, config):
    for policy in ask(wrap=lambda om: om.csp(**change), **config):
        assert "'none'" in policy
        assert "'unsafe-hashes'" not in policy


def test_another_policy_that_forbids_handlers_stays_as_it_is():
    (policy, _) = ask(OM_CSP_ENFORCE_ALSO=["script-src-attr 'none'"])
    assert policy == "script-src-attr 'none'"


def test_a_view_that_allows_handlers_stays_as_it_is():
    change = {"script-src-attr": ["'unsafe-inline'"]}
    (first, _) = ask(wrap=lambda om: om.csp(update=change))
    assert first.endswith("script-src-attr 'report-sample' 'unsafe-inline'")


def test_mode_adopt_sends_nothing_because_of_a_question():
    assert ask(OM_CSP_MODE="adopt") == []
