import pytest
from jinja2 import Environment
from jinja2.nativetypes import NativeEnvironment
from jinja2.sandbox import SandboxedEnvironment
from markupsafe import Markup, escape

from om_plugins.core.request_state import KEY, RequestState
from om_plugins.csp.hashes import hash_text
from om_plugins.csp.jinja.extension import install
from om_plugins.csp.jinja.host import FILTER
from om_plugins.csp.nonce import nonce
from tests.csp.jinja.conftest import OwnTag, environment, noncing, read_nonces, render

CHART = "<script>draw(1)</script><link rel=stylesheet href=a><b>&amp;</b>"
NONCED_CHART = CHART.replace("<script", '<script nonce="N"').replace("<link", '<link nonce="N"')


class Drawn:
    def __html__(self):
        return CHART


@pytest.mark.parametrize("chart", [CHART, Markup(CHART), Drawn()], ids=["text", "markup", "drawn"])
@pytest.mark.parametrize("is_async", [True, False])
def test_om_trusted_marks_one_piece_as_the_author_s_own(chart, is_async):
    env = environment(enable_async=is_async)
    source = "<p>{{ chart|om_trusted }}</p>{{ x }}{{ chart|safe }}"
    given = str(Markup(chart))
    found = render(source, env, chart=chart, x="<script>")
    assert found == f"<p>{NONCED_CHART}</p>&lt;script&gt;{given}"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("{{ '<style></style>'|om_trusted }}", '<style nonce="N"></style>'),
        ("{% filter om_trusted %}<style></style>{% endfilter %}", '<style nonce="N"></style>'),
        ("{% set a | om_trusted %}{{ b|safe }}{% endset %}{{ a }}", '<style nonce="N"></style>'),
        ("{{ '<style nonce=old></style>'|om_trusted }}", '<style nonce="N"></style>'),
        ("{{ ('<style></style>'|om_trusted) ~ '<' }}", '<style nonce="N"></style>&lt;'),
        ("{{ missing|om_trusted }}{{ 1|om_trusted }}", "1"),
    ],
)
def test_om_trusted_wherever_a_filter_may_stand(source, expected):
    assert render(source, b="<style></style>") == expected


def test_om_trusted_asks_anew_for_each_response_and_not_where_none_is_sent():
    env = environment()
    template = env.from_string("{{ '<style></style>'|om_trusted }}")
    environ = {}
    install(env, environ=lambda: environ)
    assert template.render() == f'<style nonce="{nonce(environ)}"></style>'
    for plain in ({}, {"trusted": False}):
        state = RequestState(None, plain=False)
        install(env, environ=lambda state=state: {KEY: state}, **plain)
        assert template.render() == "<style></style>"
        assert state.plain is not bool(plain)
    install(env, environ=lambda: None)
    assert template.render() == "<style></style>"


OWN_NONCES = {
    "": "",
    "nonce='own'": "own",
    'async nonce="own"': "own",
    "NONCE=own ": "own",
    "nonce=''": "",
    "nonce": "",
    "data-nonce='own'": "",
    "title='nonce=1'": "",
    "nonce='own' defer": "own",
}
PUT_OUT = {
    "variable": "<script {{ own }} src=a></script>",
    "no blank": "<script{{ ' ' ~ own }} src=a></script>",
    "last": "<script src=a {{ own }}></script>",
    "named": "<script src=a {{ csp_nonce_attribute }}></script>",
    "condition": "<script src=a {% if yes %}{{ own }}{% endif %}></script>",
    "other branch": "<script src=a {% if no %}nonce='x'{% else %}{{ own }}{% endif %}></script>",
    "expression": "<script src=a {{ own if yes else 'nonce=x' }}></script>",
    "macro": "{% macro m() %}{{ own }}{% endmacro %}<script src=a {{ m() }}></script>",
    "caller": "{% macro m() %}<script src=a {{ caller() }}></script>{% endmacro %}"
    "{% call m() %}{{ own }}{% endcall %}",
    "loop": "<script src=a {% for one in [own] %}{{ one }}{% endfor %}></script>",
    "include": "<script src=a {% include 'own.html' %}></script>",
    "block": "<script src=a {% block b %}{{ own }}{% endblock %}></script>",
    "filter": "<script src=a {% filter trim %}{{ own }}{% endfilter %}></script>",
    "with": "<script src=a {% with a = own %}{{ a }}{% endwith %}></script>",
    "set": "{% set a %}{{ own }}{% endset %}<script src=a {{ a }}></script>",
    "body": "<script {{ own }}>{{ 1 }}</script>",
    "style": "<style {{ own }}></style>",
    "link": "<link rel=stylesheet {{ own }}/>",
    "svg": "<svg><script {{ own }}/></svg>",
    "in a branch": "{% if yes %}<script {{ own }}></script>{% endif %}",
    "in a loop": "{% for a in [1] %}<script {{ own }}></script>{% endfor %}",
    "alias": "{% set csp = own %}<script src=a {{ csp }}></script>",
    "own tag": "<script src=a {% own %}{{ own }}{% endown %}></script>",
    "in an own tag": "{% own %}<script {{ own }}></script>{% endown %}",
    "autoescape": "<script {% autoescape true %}{{ own }}{% endautoescape %}></script>",
    "in autoescape": "{% autoescape false %}<script {{ own }}></script>{% endautoescape %}",
    "in with": "{% with a = own %}<script {{ a }}></script>{% endwith %}",
    "raw": "<script {% raw %}src=a{% endraw %} {{ own }}></script>",
    "comment": "<script {# nonce #} {{ own }}></script>",
    "in a set": "{% set a %}<script {{ own }}></script>{% endset %}{{ a }}",
}


def name_own(own):
    own = Markup(own)
    return {"own": own, "csp_nonce_attribute": own, "yes": True, "no": False}


@pytest.mark.parametrize("source", PUT_OUT.values(), ids=PUT_OUT)
@pytest.mark.parametrize("is_async", [False, True])
def test_tag_has_a_nonce_by_what_it_puts_out(source, is_async):
    env = environment({"own.html": "{{ own }}"}, enable_async=is_async, extensions=[OwnTag])
    template = env.from_string(source)
    for own, kept in OWN_NONCES.items():
        html = template.render(name_own(own))
        # exactly one: with two, browsers take none
        assert read_nonces(html) == [kept or "N"], own


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"src": "a", "nonce": "own"}, ["own"]), ({"src": "a", "nonce": ""}, ["N"]),
        ({"src": "a", "nonce": None}, ["N"]), ({"src": "a"}, ["N"]), ({}, ["N"]),
        ({"data-nonce": "own"}, ["N"]),
    ],
)  # fmt: skip
def test_attributes_from_a_dict(attributes, expected):
    for source in (
        "<script{{ a|xmlattr }}></script>",
        "<script {{ a|xmlattr(false) }} x></script>",
    ):
        assert read_nonces(render(source, a=attributes)) == expected


@pytest.mark.parametrize(
    ("source", "own", "expected"),
    [
        ("<script nonce='{{ own }}'></script>", "", ["N"]),
        ("<script nonce='{{ own }}'></script>", "own", ["own"]),
        ("<script src=a nonce={{ own }}></script>", "own", ["own"]),
        ("<script nonce='{{ own }}' src={{ own }}></script>", "", ["N"]),
        ("<script {% if own %}nonce='{{ own }}'{% endif %}></script>", "", ["N"]),
        ("<script {% if own %}nonce='{{ own }}'{% endif %}></script>", "own", ["own"]),
        ("<script nonce='a{{ own }}'></script>", "", ["a"]),
        ("<script nonce=''></script>", "", ["N"]),
        ("<script nonce></script>", "", ["N"]),
        ("<script NONCE='{{ own }}'></script>", "", ["N"]),
        ("<script nonce='own'{{ own }}></script>", "", ["own"]),
        ("<script data-{{ own }}nonce='x'></script>", "", ["N"]),
        ("<script {{ own }}='own'></script>", "nonce", ["own"]),
        ("<script {{ own }}='own'></script>", "title", ["N"]),
    ],
)
def test_nonce_that_the_author_wrote_counts_when_it_is_not_empty(source, own, expected):
    assert read_nonces(render(source, own=own)) == expected


def test_another_package_s_csp_nonce_counts_when_it_is_not_empty():
    for value, expected in (("", ["N"]), ("own", ["own"])):
        env = Environment(autoescape=True)
        env.globals["csp_nonce"] = lambda value=value: value
        install(env, environ=noncing)
        html = render("<script nonce='{{ csp_nonce() }}'></script>", env)
        assert read_nonces(html) == expected


def test_tag_is_complete_with_the_quote_of_its_other_attributes():
    assert render("<script {{ a }} src='b'></script>") == "<script nonce='N'  src='b'></script>"
    assert render("<style {{ a }}></style>") == '<style nonce="N" ></style>'


@pytest.mark.parametrize(
    ("source", "context", "noted"),
    [
        ("<script src='/a.js' {{ a }}></script>", {}, []),
        ("<script {{ a }}>b()</script>", {}, [hash_text("script-src", "b()")]),
        ("<script {{ a }}>b()</script>", {"a": Markup("src=c")}, None),
        ("<script {{ a }} src='{{ b }}'></script>", {}, None),
        ("<script {{ a }}>{{ b }}</script>", {}, None),
        ("<script {{ a }}>b()</script>", {"a": Markup("nonce=own")}, []),
    ],
)
def test_hash_is_noted_for_what_a_tag_puts_out(source, context, noted):
    state = RequestState(None, page_nonce="N", hashes={})
    env = Environment(autoescape=True)
    install(env, environ=lambda: {KEY: state}, hashes=True)
    html = env.from_string(source).render(context)
    assert ('nonce="N"' in html or "nonce='N'" in html) is (noted is None)
    assert list(state.hashes) == (noted or [])


def test_tags_of_a_page_that_stays_plain_and_outside_of_a_request_are_left_alone():
    state = RequestState(None, plain=False)
    for environ in ({KEY: state}, None):
        env = Environment(autoescape=True)
        install(env, environ=lambda environ=environ: environ)
        assert render("<script {{ a }} b></script>", env) == "<script  b></script>"
    assert state.plain is True


def test_author_s_nonce_asks_for_no_nonce_of_ours():
    state = RequestState(None)
    env = Environment(autoescape=True)
    install(env, environ=lambda: {KEY: state})
    render("<script {{ a }}></script>", env, a=Markup("nonce=own"))
    assert state.page_nonce is None


def test_what_a_tag_sets_is_there_behind_it():
    source = "<script {% set a = 1 %}{{ b }}></script>{{ a }}"
    assert render(source) == '<script nonce="N" ></script>1'
    source = (
        "{% for a in 'ab' %}<script {% if a == 'b' %}{% break %}{% endif %}x></script>{% endfor %}"
    )
    env = environment(extensions=["jinja2.ext.loopcontrols"])
    assert render(source, env) == '<script nonce="N" x></script><script nonce="N" '


def test_no_tag_of_a_child_is_put_out_outside_of_its_blocks():
    templates = {
        "base.html": "<p>{% block b %}{% endblock %}</p>",
        "page.html": "{% extends 'base.html' %}<script {{ a }}></script>"
        "{% block b %}<script {{ a }}>{{ super() }}</script>{% endblock %}",
    }
    assert environment(templates).get_template("page.html").render() == (
        '<p><script nonce="N" ></script></p>'
    )


@pytest.mark.parametrize(
    "source",
    [
        "<script {% with a = 1 %}{{ b }}></script>{% endwith %}",
        "{% with a = 1 %}<script {{ b }}{% endwith %}></script>",
        "<script {% autoescape true %}{{ b }}></script>{% endautoescape %}",
        "<script {% own %}{{ b }}></script>{% endown %}",
        "{% own %}<script {{ b }}{% endown %}></script>",
        "<script {% block c %}{{ b }}></script>{% endblock %}",
        "<script {% if yes %}{{ b }}></script>{% endif %}",
        "<script {% for one in [1] %}{{ b }}></script>{% endfor %}",
    ],
)
def test_tag_that_ends_in_another_statement_than_it_begins_in_has_a_nonce(source):
    env = environment(extensions=[OwnTag])
    assert read_nonces(render(source, env, yes=True)) == ["N"]


def test_nonces_of_tags_that_cannot_be_taken_apart_are_told_by_name():
    source = "{% if yes %}<script {% else %}<style {% endif %}{{ @ }}>{{ 1 }}</script>"
    assert 'nonce="N"' in render(source.replace("@", "a"), yes=True)
    assert 'nonce="N"' not in render(source.replace("@", "a_nonce"), yes=True)


@pytest.mark.parametrize("cls", [NativeEnvironment, SandboxedEnvironment])
def test_tags_are_completed_in_other_environments(cls):
    assert render("<style {{ a }}></style>", environment(cls=cls)) == '<style nonce="N" ></style>'


@pytest.mark.parametrize("escape_it", [True, False])
def test_tags_are_completed_under_volatile_autoescape(escape_it):
    source = "{% autoescape flag %}<style {{ x }}></style>{% endautoescape %}"
    found = render(source, flag=escape_it, x="a='&'")
    assert found == f"""<style nonce="N" {escape("a='&'") if escape_it else "a='&'"}></style>"""


@pytest.mark.parametrize(
    "attributes",
    [
        "", "src='{{ a }}'", "src={{ a }} async", "{% if a %}defer{% endif %}",
        "nonce='{{ csp_nonce() }}'", "nonce=own", "type='module' src='{{ a|e }}'",
    ],
)  # fmt: skip
def test_attributes_are_read_at_each_rendering_only_where_the_source_does_not_tell(attributes):
    env = environment()
    assert FILTER not in env.compile(f"<script {attributes}></script>", raw=True)
    assert FILTER in env.compile(f"<script {attributes} {{{{ a }}}}></script>", raw=True) or (
        "nonce" in attributes
    )
