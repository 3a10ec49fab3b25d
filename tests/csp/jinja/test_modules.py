import re

import pytest
from flask import Flask, get_template_attribute, render_template, render_template_string
from jinja2 import DictLoader, Environment, Template
from jinja2.compiler import CodeGenerator
from jinja2.nativetypes import NativeEnvironment
from jinja2.sandbox import SandboxedEnvironment
from markupsafe import Markup

from om_plugins import CspOverride, OpenManager
from om_plugins.core.request_state import KEY, RequestState
from om_plugins.csp.jinja.extension import install
from om_plugins.csp.jinja.modules import FreshModules

PARTS = {
    "parts.html": "{% set tracker %}<script>count()</script>{% endset %}<style>p</style>"
    "{% macro m() %}<script>m()</script>{% endmacro %}",
    "hand.html": "{% set tracker %}<script nonce='{{ csp_nonce() }}'>b()</script>{% endset %}",
    "head.html": "{% set tracker = om_head() %}",
    "trusted.html": "{% set tracker = '<script>t()</script>'|om_trusted %}",
    "again.html": "{% from 'parts.html' import tracker as t %}{% set tracker %}{{ t }}{% endset %}",
    "made.html": "{% from 'parts.html' import m %}{% set tracker = m() %}",
    "called.html": "{% macro b() %}{{ caller() }}{% endmacro %}"
    "{% set tracker %}{% call b() %}<style>c</style>{% endcall %}{% endset %}",
    "child.html": "{% extends 'layout.html' %}{% block b %}<script>c()</script>{% endblock %}",
    "layout.html": "{% block b %}{% endblock %}",
    "text.txt": "{% import 'parts.html' as p %}{% set tracker = p.tracker %}",
}
PAGES = [
    *(
        f"{{% from '{name}.html' import tracker %}}{{{{ tracker }}}}"
        for name in ("parts", "hand", "head", "trusted", "again", "made", "called")
    ),
    "{% import 'parts.html' as p %}{{ p.tracker }}",
    "{% import 'parts.html' as p %}{{ p }}",
    "{% from 'text.txt' import tracker %}{{ tracker }}",
    "{% from 'parts.html' import m %}{{ m() }}",
    "{% from 'parts.html' import tracker with context %}{{ tracker }}",
    "{% import 'child.html' as c %}{{ c }}",
    "{% include 'parts.html' without context %}",
    "{% include 'parts.html' %}",
    "{% macro q() %}{% from 'parts.html' import tracker %}{{ tracker }}{% endmacro %}{{ q() }}",
    "{% set own %}{% import 'parts.html' as p %}{{ p.tracker }}{% endset %}{{ own }}",
    "{% extends 'layout.html' %}{% from 'parts.html' import tracker %}"
    "{% block b %}{{ tracker }}{% endblock %}",
]


class Loud(CodeGenerator):
    """Somebody's own."""


class Own(Environment):
    code_generator_class = Loud


class OwnTemplate(Template):
    pass


class WithTemplates(Environment):
    template_class = OwnTemplate


KINDS = [
    (Environment, {}), (Environment, {"enable_async": True}), (Environment, {"cache_size": 0}),
    (SandboxedEnvironment, {}), (Own, {}), (WithTemplates, {}),
]  # fmt: skip


class Requests:
    """An environment, and the requests in which its templates are rendered."""

    def __init__(
        self, cls=Environment, *, automatic=True, hashes=False, templates=PARTS, **options
    ):
        self.environ = None
        self.hashes = hashes
        self.env = cls(loader=DictLoader(templates), autoescape=True, **options)
        install(
            self.env,
            environ=lambda: self.environ,
            head=lambda environ: Markup('<script nonce="{}"></script>').format(
                environ[KEY].nonce_for_page()
            ),
            automatic=automatic,
            hashes=hashes,
        )

    def begin(self, **facts):
        state = RequestState(None, hashes={} if self.hashes else None, **facts)
        self.environ = {KEY: state}
        return state

    def render(self, source, **facts):
        """Render a template for a new response, and return its HTML and the response's state."""
        state = self.begin(**facts)
        return self.env.from_string(source).render(), state


def nonces(html):
    return re.findall(r"nonce=[\"']([0-9a-f]+)", html)


def tags(html):
    return len(re.findall("<script|<style", html))


@pytest.mark.parametrize("source", PAGES)
@pytest.mark.parametrize(("cls", "options"), KINDS)
def test_each_response_has_its_own_nonce_in_what_it_imports(cls, options, source):
    requests = Requests(cls, **options)
    for _ in range(3):
        html, state = requests.render(source)
        assert nonces(html) == [state.page_nonce] * tags(html)
        assert tags(html)


@pytest.mark.parametrize("source", PAGES)
def test_hashes_of_what_is_imported_are_noted_for_each_response(source):
    requests = Requests(hashes=True)
    first, state = requests.render(source)
    for _ in range(2):
        html, again = requests.render(source)
        assert nonces(html) == [again.page_nonce] * len(nonces(first))
        assert again.hashes == state.hashes
        assert len(again.hashes) + len(nonces(html)) >= tags(html)


@pytest.mark.parametrize("source", PAGES)
def test_tags_that_were_left_alone_get_their_nonce_in_the_next_response(source):
    requests = Requests()
    if "hand" not in source and "head" not in source:
        for _ in range(2):  # Jinja itself makes the first module of a template
            html, state = requests.render(source, plain=False)
            assert not nonces(html)
            assert state.plain is True
    html, state = requests.render(source)
    assert nonces(html) == [state.page_nonce] * tags(html)
    requests.environ = None
    bare = requests.env.from_string(source).render()
    assert not nonces(bare)
    html, state = requests.render(source)
    assert nonces(html) == [state.page_nonce] * tags(html)
    requests.environ = None
    assert requests.env.from_string(source).render() == bare


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("name", ["loose", "own", "body"])
@pytest.mark.parametrize(
    "override",
    [{"exempt": True}, {"replace": {"script-src": ["'nonce'"]}}, {"update": {"img-src": ["*"]}}],
)
def test_view_that_changes_its_policy_changes_no_other_response(override, name, first):
    templates = PARTS | {
        "own.html": "{% set tracker %}<script src='/a.js'></script>{% endset %}",
        "body.html": "<script>b()</script>",
        "loose.html": "{% set tracker %}<script>count()</script>{% endset %}",
    }
    requests = Requests(hashes=True, templates=templates)
    source = "{% import '@.html' as a %}{{ a.tracker or a }}".replace("@", name)
    change = {"overrides": (CspOverride(**override),)}
    for _ in range(2 * first):
        requests.render(source, **change)
    # what stands in a block that is output elsewhere may be changed, so that a hash cannot hold
    wants = {"own": "'self'", "loose": "nonce", "body": "hash"}[name]
    for _ in range(2):
        html, state = requests.render(source)
        assert nonces(html) == [state.page_nonce] * (wants == "nonce")
        assert len(state.hashes) == (wants == "hash")
        html, state = requests.render(source, **change)
        if "exempt" in override:
            assert not nonces(html)
        elif "replace" in override:
            assert nonces(html) == [state.page_nonce]
        else:
            assert nonces(html) == [state.page_nonce] * (wants == "nonce")


def test_nonce_of_a_response_is_one_however_it_is_asked_for():
    source = "{{ csp_nonce() }}{% from 'parts.html' import tracker %}{{ tracker }}{{ csp_nonce() }}"
    for facts in ({}, {"plain": False}, {"header_nonce": "b" * 32}, {"reserved_nonce": "c" * 32}):
        requests = Requests()
        requests.render(source)
        html, state = requests.render(source, **facts)
        value = state.page_nonce
        assert html == f'{value}<script nonce="{value}">count()</script>{value}'
        assert state.plain is facts.get("plain")
        assert state.reserved_nonce == facts.get("reserved_nonce")
        assert value == facts.get("header_nonce", facts.get("reserved_nonce", value))


COUNTED = {"a.html": "{{ count() }}{% macro m() %}<script></script>{% endmacro %}{% set s = 1 %}"}


@pytest.mark.parametrize(("cls", "options"), [*KINDS[:2], *KINDS[3:], (NativeEnvironment, {})])
def test_module_that_asks_for_nothing_is_rendered_once(cls, options):
    requests = Requests(cls, templates=COUNTED, **options)
    counted = []
    requests.env.globals["count"] = lambda: counted.append(1)
    for _ in range(3):
        html, state = requests.render("{% import 'a.html' as a %}{{ a.m() }}{{ a.s }}")
        assert nonces(html) == [state.page_nonce]
    # the first may be the one in which the template gets its class
    assert len(counted) <= 2
    before = len(counted)
    for facts in ({"plain": False}, {"page_nonce": "a" * 32}):
        requests.render("{% from 'a.html' import s %}{{ s }}", **facts)
    assert len(counted) == before
    requests = Requests(cls, templates=COUNTED, **options)
    requests.env.globals["count"] = lambda: counted.append(1)
    for _ in range(4):
        requests.env.from_string("{% from 'a.html' import s %}{{ s }}").render()
    assert len(counted) <= before + 2


def test_importing_template_with_globals_of_its_own_gets_a_module_of_its_own():
    requests = Requests(templates={"a.html": "{% set s %}<p>{{ x }}</p>{% endset %}"})
    page = "{% from 'a.html' import s %}{{ s }}"
    requests.begin()
    for x in ("1", "2"):
        template = requests.env.from_string(page, globals={"x": x})
        assert template.render() == f"<p>{x}</p>"
    assert requests.render(page)[0] == "<p></p>"


def test_error_in_a_module_leaves_the_response_as_it_was():
    requests = Requests(templates={"a.html": "<script></script>{{ 1 / 0 }}"})
    state = requests.begin(page_nonce="a" * 32, plain=False)
    with pytest.raises(ZeroDivisionError):
        requests.env.from_string("{% import 'a.html' as a %}").render()
    assert (state.page_nonce, state.plain, state.reserved_nonce) == ("a" * 32, False, None)


def test_module_of_a_request_that_belongs_to_another_application_is_not_kept():
    requests = Requests()
    install(requests.env, owner=requests)
    page = "{% from 'parts.html' import tracker %}{{ tracker }}"
    seen = set()
    for _ in range(3):
        requests.environ = {KEY: RequestState("another")}
        seen |= set(nonces(requests.env.from_string(page).render()))
        assert requests.environ[KEY].reserved_nonce in seen
    assert len(seen) == 3


def test_templates_without_automatic_nonces_keep_none_either():
    requests = Requests(automatic=False)
    for _ in range(3):
        html, state = requests.render("{% from 'hand.html' import tracker %}{{ tracker }}")
        assert nonces(html) == [state.page_nonce]
    assert isinstance(requests.env.get_template("hand.html"), FreshModules)


def test_template_that_was_compiled_before_is_compiled_anew():
    env = Environment(autoescape=True, loader=DictLoader(PARTS))
    assert env.get_template("hand.html") is env.get_template("hand.html")
    kept = env.get_template("hand.html")
    install(env, automatic=False)
    assert env.get_template("hand.html") is not kept
    install(env, automatic=False)
    assert env.get_template("hand.html") is env.get_template("hand.html")


def test_module_of_an_overlay():
    requests = Requests()
    requests.env = requests.env.overlay(trim_blocks=True)
    for _ in range(3):
        html, state = requests.render("{% from 'parts.html' import tracker %}{{ tracker }}")
        assert nonces(html) == [state.page_nonce]


@pytest.mark.parametrize("preset", ["strict", "compatible", "hash", "own"])
@pytest.mark.parametrize("name", [*PARTS, "static.html"])
def test_views_in_every_preset(preset, name, tmp_path):
    (tmp_path / "a.js").write_text("1")
    app = Flask(__name__, static_folder=tmp_path)
    app.config.update(OM_CSP_MODE="enforce", OM_CSP_PRESET=preset)
    if preset == "own":
        app.config["OM_CSP"] = {"script-src": ["'nonce'"], "style-src": ["'nonce'"]}
    static = {"static.html": "{% set tracker = om_static('a.js') %}"}
    app.jinja_loader = DictLoader(PARTS | static)
    OpenManager(app)
    page = "{% from name import tracker %}{{ tracker }}"
    app.add_url_rule("/from", "from", lambda: render_template_string(page, name=name))
    app.add_url_rule("/got", "got", lambda: get_template_attribute(name, "tracker"))
    module = "{{ m }}"
    app.add_url_rule(
        "/module", "module",
        lambda: render_template_string(module, m=app.jinja_env.get_template(name).module),
    )  # fmt: skip
    app.add_url_rule("/page", "page", lambda: render_template(name))
    client = app.test_client()
    paths = ["/from", "/got", "/module", "/page"]
    if name in ("child.html", "layout.html"):
        paths = ["/module", "/page"]  # they export nothing
    for path in paths:
        first = client.get(path)
        hashes = re.findall("'sha256-[^']*'", first.headers["Content-Security-Policy"])
        for response in (first, client.get(path), client.get(path)):
            policy = response.headers["Content-Security-Policy"]
            found = nonces(response.text)
            assert len(found) == (tags(first.text) if preset != "hash" else len(nonces(first.text)))
            assert all(f"'nonce-{one}'" in policy for one in found)
            assert all(one in policy for one in hashes)
