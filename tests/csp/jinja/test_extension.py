import itertools
import re
import timeit
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jinja2 import (
    DictLoader,
    Environment,
    ModuleLoader,
    StrictUndefined,
    TemplateSyntaxError,
    meta,
    select_autoescape,
)
from jinja2.compiler import CodeGenerator
from jinja2.nativetypes import NativeEnvironment
from jinja2.sandbox import SandboxedEnvironment
from markupsafe import Markup, escape

from om_plugins.core.request_state import KEY, RequestState
from om_plugins.csp.hashes import hash_text
from om_plugins.csp.jinja.extension import NonceExtension, install
from om_plugins.csp.nonce import nonce
from tests.csp.jinja.conftest import OwnTag, environment, noncing, render

NONCED = re.compile(r""" nonce=(["'])N\1""")


X = {"x": "<script>evil()</script>", "yes": True, "no": False}

SHAPES = [
    ("<script>a</script>", '<script nonce="N">a</script>'),
    ("<script src='{{ x }}'></script>", "<script nonce='N' src='&lt;@X@'></script>"),
    ("<script src={{ 1 }}></script>", '<script nonce="N" src=1></script>'),
    ("<script{% if yes %} defer{% endif %}></script>", '<script nonce="N" defer></script>'),
    ("<STYLE>a{}</STYLE>", '<STYLE nonce="N">a{}</STYLE>'),
    ('<link rel="stylesheet" href="{{ 1 }}"/>', '<link nonce="N" rel="stylesheet" href="1"/>'),
    ("<link rel=icon href=a>", "<link rel=icon href=a>"),
    ("<link rel='{{ x }}'>", "<link rel='&lt;@X@'>"),
    # a nonce of its own
    ("<script nonce='{{ csp_nonce() }}'></script>", "<script nonce='N'></script>"),
    ("<script {% if yes %}nonce=own{% endif %}></script>", "<script nonce=own></script>"),
    ("<script {% if no %}nonce=own{% endif %}></script>", '<script nonce="N" ></script>'),
    ("<script {{ my_nonce }}></script>", '<script nonce="N" ></script>'),
    # what only looks like a tag
    ("<!-- <script></script> -->", "<!-- <script></script> -->"),
    ("{# <script></script> #}", ""),
    ("<p title='<script></script>'>", "<p title='<script></script>'>"),
    ("<textarea><script></script></textarea>", "<textarea><script></script></textarea>"),
    ("<title><style></style></title>", "<title><style></style></title>"),
    ("<script>'<script>'</script>", "<script nonce=\"N\">'<script>'</script>"),
    ("<p title='{{ x }}<script></script>'>", "<p title='&lt;@X@<script></script>'>"),
    # interpolated markup
    ("{{ x|safe }}", X["x"]),
    ("{{ '<script></script>'|safe }}", "<script></script>"),
    ("{% set s = '<script></script>'|safe %}{{ s }}", "<script></script>"),
    # the template's own structure
    ("{% raw %}<script>{{ a }}</script>{% endraw %}", '<script nonce="N">{{ a }}</script>'),
    ("<scr{# cut #}ipt>a</script>", '<script nonce="N">a</script>'),
    (
        "{% if no %}<script>{% else %}<script defer>{% endif %}a</script>",
        '<script nonce="N" defer>a</script>',
    ),
    (
        "{% if no %}<script>{% elif yes %}<script async>{% else %}<script>{% endif %}</script>",
        '<script nonce="N" async></script>',
    ),
    (
        "<script {% if no %}src=a{% else %}src='b'{% endif %}>{% if yes %}1{% endif %}</script>",
        "<script nonce='N' src='b'>1</script>",
    ),
    (
        "{% for i in [1, 2] %}<style>{{ i }}</style>{% else %}<style></style>{% endfor %}",
        '<style nonce="N">1</style><style nonce="N">2</style>',
    ),
    (
        "{% macro m(a) %}<script>{{ a }}</script>{% endmacro %}<p title='{{ m(1) }}'>",
        "<p title='<script nonce=\"N\">1</script>'>",
    ),
    (
        "{% macro m() %}{{ caller() }}{% endmacro %}"
        "{% call m() %}<style></style>{% endcall %}<script></script>",
        '<style nonce="N"></style><script nonce="N"></script>',
    ),
    (
        "{% set head %}<style></style>{% endset %}{{ head }}",
        '<style nonce="N"></style>',
    ),
    ("{% filter e %}<script></script>{% endfilter %}", "<script></script>"),
    ("{% filter upper %}<style></style>{% endfilter %}", "<STYLE></STYLE>"),
    ("{% set a | upper %}<style></style>{% endset %}{{ a }}", "<STYLE></STYLE>"),
    ("{% filter trim %} <style></style> {% endfilter %}", '<style nonce="N"></style>'),
    ("{% filter replace('p', 'q') %}<style>p</style>{% endfilter %}",
     '<style nonce="N">q</style>'),
    # "a" may stand in a nonce: with one, the page would work now and then
    ("{% filter replace('a', 'b') %}<style>a</style>{% endfilter %}", "<style>b</style>"),
    ("{% set s | replace('0', '') %}<style>0</style>{% endset %}{{ s }}", "<style></style>"),
    ("{% block b %}<style></style>{% endblock %}", '<style nonce="N"></style>'),
    ("{% with a = 1 %}<style></style>{% endwith %}", '<style nonce="N"></style>'),
    ("{% trans %}<script></script>{% endtrans %}<style></style>",
     '<script></script><style nonce="N"></style>'),
    ("{% trans n=2 %}<b>a</b>{% pluralize %}<b>{{ n }}</b>{% endtrans %}<style></style>",
     '<b>2</b><style nonce="N"></style>'),
    ("<svg><style></style><script/></svg>",
     '<svg><style nonce="N"></style><script nonce="N"/></svg>'),
    ("{% autoescape false %}<style></style>{{ x }}{% endautoescape %}",
     '<style nonce="N"></style>' + X["x"]),
    ("a\n<script>\n</script>\n", 'a\n<script nonce="N">\n</script>'),
    # more that people write
    ("<link rel='preload stylesheet' href=a>", "<link nonce='N' rel='preload stylesheet' href=a>"),
    ("<link rel=STYLESHEET href=a>", '<link nonce="N" rel=STYLESHEET href=a>'),
    ("<script\n  src='a'\n></script>", "<script nonce='N'\n  src='a'\n></script>"),
    ("<script type=module>a</script >", '<script nonce="N" type=module>a</script >'),
    ("<script>a</script><script>b</script>",
     '<script nonce="N">a</script><script nonce="N">b</script>'),
    ("<script type='application/json'>{{ 1 }}</script>",
     "<script nonce='N' type='application/json'>1</script>"),
    ("<script NONCE=own></script>", "<script NONCE=own></script>"),
    ("<script data-nonce=x></script>", '<script nonce="N" data-nonce=x></script>'),
    ("<script title='nonce'></script>", "<script nonce='N' title='nonce'></script>"),
    ("<scripty></scripty><my-script></my-script>", "<scripty></scripty><my-script></my-script>"),
    ("<![CDATA[<script></script>]]>", "<![CDATA[<script></script>]]>"),
    ("<!doctype html><script></script>", '<!doctype html><script nonce="N"></script>'),
    ("<noscript><style></style></noscript>", '<noscript><style nonce="N"></style></noscript>'),
    ("<iframe srcdoc='<style></style>'></iframe>", "<iframe srcdoc='<style></style>'></iframe>"),
    ("<iframe><script></script></iframe>", "<iframe><script></script></iframe>"),
    ("<template><script></script></template>",
     '<template><script nonce="N"></script></template>'),
    ("{% for s in ['a', 'b'] %}<script src={{ s }}></script>{% endfor %}",
     '<script nonce="N" src=a></script><script nonce="N" src=b></script>'),
    ("{% if yes %}<script>{{ 1 }}</script>{% else %}<style></style>{% endif %}",
     '<script nonce="N">1</script>'),
    ("{%- if yes -%} <script> a </script> {%- endif -%}", '<script nonce="N"> a </script>'),
    ("{% macro js(u) %}<script src='{{ u }}'></script>{% endmacro %}{{ js('a') }}{{ js('b') }}",
     "<script nonce='N' src='a'></script><script nonce='N' src='b'></script>"),
    ("{{ '<script>' }}", "&lt;script&gt;"),
    ("<{{ 'script' }}></{{ 'script' }}>", "<script></script>"),
    ("<scr{{ 'ipt' }}></script>", "<script></script>"),
    ("{{ x|safe }}<script></script>", X["x"] + '<script nonce="N"></script>'),
    ("<p>{{ x }}</p><style></style>", '<p>&lt;@X@</p><style nonce="N"></style>'),
]  # fmt: skip


@pytest.mark.parametrize(("source", "expected"), SHAPES, ids=[one[0] for one in SHAPES])
def test_literal_tags_get_a_nonce_and_nothing_else_does(source, expected):
    env = environment(extensions=["jinja2.ext.i18n"])
    env.install_null_translations()
    escaped = "script&gt;evil()&lt;/script&gt;"
    assert render(source, env, **X) == expected.replace("@X@", escaped)


def test_child_s_block_does_not_know_where_it_stands():
    templates = {
        "base.html": "<script>{% block js %}{% endblock %}</script>{% block end %}{% endblock %}",
        "page.html": "{% extends 'base.html' %}"
        "{% block js %}v(\"<style>b</style>\");w('<script src=a>'){% endblock %}"
        "{% block end %}<script>2</script>{% endblock %}",
    }
    assert environment(templates).get_template("page.html").render() == (
        "<script nonce=\"N\">v(\"<style nonce='N'>b</style>\");w('<script src=a>')</script>"
        '<script nonce="N">2</script>'
    )


def test_included_and_imported_templates_are_handled():
    templates = {
        "page.html": "{% import 'm.html' as m %}{% include 'p.html' without context %}{{ m.s() }}",
        "p.html": "<style></style>",
        "m.html": "{% macro s() %}<script></script>{% endmacro %}",
    }
    rendered = environment(templates).get_template("page.html").render()
    assert rendered == '<style nonce="N"></style><script nonce="N"></script>'


@pytest.mark.parametrize(
    ("name", "html"),
    [
        ("a.html", True), ("a.HTM", True), ("a.xhtml", True), ("a.html.j2", True), ("a.svg", True),
        ("a.txt", False), ("a.xml", False), ("a.js", False), ("a.css", False), ("a.json", False),
        ("a.md", False), ("a.txt.jinja2", False), ("mail", False),
    ],
)  # fmt: skip
def test_only_html_templates_are_touched(name, html):
    escape = select_autoescape(["html", "htm", "xhtml", "xml", "svg"])
    env = environment({name: "<script></script>"}, autoescape=escape)
    assert ("nonce" in env.get_template(name).render()) is html


@pytest.mark.parametrize("escape", [True, False])
def test_template_from_a_string_is_html_when_it_is_escaped(escape):
    env = environment(autoescape=select_autoescape(default_for_string=escape))
    assert ("nonce" in render("<script></script>", env)) is escape


@pytest.mark.parametrize(
    "comment", ["{# om: no nonces #}", "\n  {#- om:  no nonces -#}\n", "{#+om: no nonces+#}\n"]
)
@pytest.mark.parametrize("trim", [True, False])
def test_a_template_may_want_no_nonces(comment, trim):
    source = comment + "<script>a</script>\n{{ csp_nonce() }}"
    plain = Environment(autoescape=True, trim_blocks=trim, lstrip_blocks=trim)
    plain.globals["csp_nonce"] = lambda: "N"
    ours = environment(trim_blocks=trim, lstrip_blocks=trim)
    assert render(source, ours) == render(source, plain)


def test_only_the_first_comment_can_say_so():
    assert "nonce" in render("<p>{# om: no nonces #}<script></script>")
    shown = "{% raw %}{# om: no nonces #}{% endraw %}"
    assert render(shown) == "{# om: no nonces #}"
    other = environment(comment_start_string="<!--#", comment_end_string="-->")
    assert render("<!--# om: no nonces --><script></script>", other) == "<script></script>"
    assert "nonce" in render("om_no_nonces<script></script>")


def test_outside_a_request_there_is_no_attribute_at_all():
    env = environment()
    install(env, environ=lambda: None)
    assert render("<script></script>[{{ csp_nonce() }}]", env) == "<script></script>[]"
    env = Environment(autoescape=True)
    install(env)
    assert render("<script></script>{{ om_head(queries=True) }}", env) == "<script></script>"


def test_nonce_is_asked_anew_for_each_response():
    env = environment()
    template = env.from_string("<script></script>{{ csp_nonce() }}")
    first, second = {}, {}
    install(env, environ=lambda: first)
    one = template.render()
    install(env, environ=lambda: second)
    two = template.render()
    assert one == f'<script nonce="{nonce(first)}"></script>{nonce(first)}'
    assert two == f'<script nonce="{nonce(second)}"></script>{nonce(second)}'
    assert first != second


def test_om_head_is_the_host_s_markup():
    env = environment()
    install(env, head=lambda environ: f'<script nonce="{nonce(environ)}"></script>')
    assert render("{{ om_head() }}", env) == '<script nonce="N"></script>'


def test_host_s_own_csp_nonce_is_kept():
    env = Environment(autoescape=True)
    env.globals["csp_nonce"] = lambda: "own"
    install(env, environ=noncing)
    assert render("{{ csp_nonce() }}", env) == "own"


def test_globals_alone_leave_templates_as_they_are():
    env = Environment(autoescape=True)
    install(env, environ=noncing, automatic=False)
    assert NonceExtension.identifier not in env.extensions
    assert render("<script></script>{{ csp_nonce() }}", env) == "<script></script>N"


@pytest.mark.parametrize("cls", [Environment, SandboxedEnvironment])
@pytest.mark.parametrize("undefined", [{}, {"undefined": StrictUndefined}])
def test_other_environments(cls, undefined):
    assert render("<script></script>", environment(cls=cls, **undefined)) == (
        '<script nonce="N"></script>'
    )


def test_overlay_keeps_the_nonces():
    overlay = environment().overlay(trim_blocks=True)
    assert render("<script></script>", overlay) == '<script nonce="N"></script>'


def test_async_environment():
    env = environment(enable_async=True)
    assert render("<script></script>", env) == '<script nonce="N"></script>'


def compiled(env, source):
    return env.compile(source, raw=True)


def test_a_nonce_is_put_out_as_it_is_and_everything_else_escaped():
    code = compiled(environment(), "<script></script>{{ x }}{% macro m() %}<style>{% endmacro %}")
    assert "', environment.policies['om_plugins'].attribute('\"'), '" in code
    assert code.count("escape(") == 1


class Loud(CodeGenerator):
    """Somebody's own, which puts a mark before what it puts out."""

    def _output_child_pre(self, node, frame, finalize):
        self.write("'!' + ")
        super()._output_child_pre(node, frame, finalize)


@pytest.mark.parametrize("hashes", [None, {}, ()])
def test_an_environment_s_own_code_generator_is_kept(hashes):
    state = RequestState(None, page_nonce="N", hashes=hashes)

    class Own(Environment):
        code_generator_class = Loud

    env = Own(autoescape=True)
    install(env, environ=lambda: {KEY: state}, hashes=hashes is not None)
    assert issubclass(env.code_generator_class, Loud)
    nonce = "" if hashes == {} else ' nonce="N"'
    source = "<script>a</script>{{ x }}"
    assert render(source, env, x="<") == f"<script{nonce}>a</script>!&lt;"


def test_native_environment():
    env = environment(cls=NativeEnvironment)
    assert render("<script></script>", env) == '<script nonce="N"></script>'
    assert render("{{ 1 }}", env) == 1


@pytest.mark.parametrize("escape_it", [True, False])
def test_volatile_autoescape(escape_it):
    source = "{% autoescape flag %}<script></script>{{ x }}{% endautoescape %}"
    found = render(source, flag=escape_it, x="<")
    assert found == '<script nonce="N"></script>' + ("&lt;" if escape_it else "<")


def test_what_macros_and_callers_give_is_markup_as_before():
    source = (
        "{% macro m() %}<style>{{ caller() }}</style>{% endmacro %}"
        "{% set made %}{% call m() %}<script>1</script>{% endcall %}{% endset %}"
        "{{ made ~ '<b>' }}|{{ '<i>' + made }}"
    )
    made = '<style nonce="N"><script nonce="N">1</script></style>'
    assert render(source) == f"{made}&lt;b&gt;|&lt;i&gt;{made}"


def test_finalize_is_asked_about_values_alone():
    env = environment(finalize=lambda value: f"({value})")
    assert render("<script></script>{{ 1 }}", env) == '<script nonce="N"></script>(1)'


def test_a_page_that_is_streamed_asks_when_its_tag_is_due():
    env = environment()
    environ = {}
    install(env, environ=lambda: environ)
    pieces = env.from_string("<p>{{ 1 }}</p><script></script>").generate()
    assert next(pieces) == "<p>1"
    assert not environ
    assert "".join(pieces) == f'</p><script nonce="{nonce(environ)}"></script>'


def test_async_macros_includes_and_imports():
    templates = {
        "page.html": "{% import 'm.html' as m %}{% include 'p.html' %}{{ m.s() }}"
        "{% for i in [1, 2] %}<style></style>{% endfor %}",
        "p.html": "<link rel=stylesheet>",
        "m.html": "{% macro s() %}<script src='a'></script>{% endmacro %}",
    }
    rendered = environment(templates, enable_async=True).get_template("page.html").render()
    assert rendered == (
        "<link nonce=\"N\" rel=stylesheet><script nonce='N' src='a'></script>"
        + '<style nonce="N"></style>' * 2
    )


def test_no_author_can_write_the_inserted_statement():
    for statement in ("{% om nonce 'attribute' %}", "{% 'om nonce' %}", "{% om_nonce %}"):
        with pytest.raises(TemplateSyntaxError):
            environment().from_string(statement)


def test_literal_tags_bring_no_variables():
    parsed = environment().parse("<script></script>{{ x }}<style {{ y }}></style>")
    assert meta.find_undeclared_variables(parsed) == {"x", "y"}


def test_environment_gets_no_more_attributes_than_cpython_keeps_together():
    plain = Environment()
    assert set(vars(environment())) - set(vars(plain)) <= {"code_generator_class"}


def test_templates_compiled_ahead_of_time_work_where_nonces_are_switched_off(tmp_path):
    source = "<script></script><style {{ x }}></style>"
    environment({"a.html": source}).compile_templates(str(tmp_path), zip=None)
    env = Environment(autoescape=True, loader=ModuleLoader(str(tmp_path)))
    install(env, automatic=False)
    assert env.get_template("a.html").render(x=1) == "<script></script><style 1></style>"


def test_lines_of_errors_stay_right():
    env = environment()
    for source in (
        "a\n<script>\n</script>\n{{ 1 / 0 }}",
        "a\n<script {{ a }}\n\n{{ 1 / 0 }}></script>",
    ):
        with pytest.raises(ZeroDivisionError) as caught:
            env.from_string(source).render()
        assert caught.traceback[-1].lineno + 1 == 4


def test_templates_compiled_before_are_compiled_anew():
    env = Environment(autoescape=True, loader=DictLoader({"a.html": "<script></script>"}))
    assert "nonce" not in env.get_template("a.html").render()
    install(env, environ=noncing)
    assert "nonce" in env.get_template("a.html").render()


# --- any template at all --------------------------------------------------------------------------

PIECES = st.sampled_from([
    "<script>", "<script src='", "<script", "</script>", "<style>", "</style>", "<link rel=", "'",
    '"', "stylesheet", ">", "/>", " ", "\n", "  \n  ", "<!--", "-->", "<p ", "title=", "</", "<",
    "<textarea>", "</textarea>", "nonce=x", "\\", "=", "a", "<svg>", "</svg>", "<title>",
    "{{ x }}", "{{ x|safe }}", "{{- x -}}", "{# c #}", "{#- c -#}", "{{ '<script>' }}",
    "{% raw %}<style></style>{{ a }}{% endraw %}", "{% set y = 1 %}", "{%- set y = 1 -%}",
])  # fmt: skip
WRAPS = st.sampled_from([
    ("{% if yes %}", "{% endif %}"), ("{% if no %}a{% else %}", "{% endif %}"),
    ("  {%- for i in 'ab' %}\n", "  {% endfor -%}\n"), ("{% block b@ %}", "{% endblock %}"),
    ("{% filter e %}", "{% endfilter %}"), ("{% set z %}", "{% endset %}{{ z }}"),
    ("{% macro m@() %}", "{% endmacro %}{{ m@() }}"), ("{% with %}", "{% endwith %}"),
    ("{% filter upper %}", "{% endfilter %}"), ("{% trans %}", "{% endtrans %}"),
])  # fmt: skip


def source(draw, names, depth):
    parts = []
    for _ in range(draw(st.integers(1, 6))):
        if depth and draw(st.integers(0, 3)) == 0:
            start, end = draw(WRAPS)
            name = str(next(names))
            inside = "<script>t</script>" if "trans" in start else source(draw, names, depth - 1)
            parts += [start.replace("@", name), inside, end.replace("@", name)]
        else:
            parts.append(draw(PIECES))
    return "".join(parts)


@st.composite
def sources(draw):
    return source(draw, itertools.count(), depth=2)


@settings(max_examples=300)
@given(
    sources(),
    st.booleans(),
    st.booleans(),
    st.sampled_from(["<script>x1</script>", Markup("<style>x2</style>"), "nonce"]),
)
def test_output_without_nonces_is_the_output_without_the_extension(written, trim, lstrip, x):
    options = {
        "autoescape": True,
        "trim_blocks": trim,
        "lstrip_blocks": lstrip,
        "extensions": ["jinja2.ext.i18n"],
        "cache_size": 0,
    }
    plain, ours = Environment(**options), Environment(**options)
    install(ours, environ=noncing)
    for env in (plain, ours):
        env.install_null_translations()
    context = {"x": x, "yes": True, "no": False}
    expected = plain.from_string(written).render(context)
    found = ours.from_string(written).render(context)
    assert NONCED.sub("", found) == expected
    # what was interpolated is there as often as before, with nothing put into it
    for text in (str(x), str(escape(x))):
        assert found.count(text) >= expected.count(text) or "nonce" in text


IN_A_TAG = st.sampled_from([
    "{{ x }}", "{{ y }}", "a='b'", "nonce='own'", "data-{{ y }}", "{{ x }}='a'", "a={{ y }}",
    "{% set y = 1 %}", "{# c #}", "{% include 'own.html' %}",
])  # fmt: skip
AROUND = st.sampled_from([
    ("{% if yes %}", "{% endif %}"), ("{% if no %}a{% else %}", "{% endif %}"),
    ("{% for y in 'ab' %}", "{% endfor %}"), ("{% block b@ %}", "{% endblock %}"),
    ("{% filter trim %}", "{% endfilter %}"), ("{% set z %}", "{% endset %}{{ z }}"),
    ("{% macro m@() %}", "{% endmacro %}{{ m@() }}"), ("{% with y = 3 %}", "{% endwith %}"),
    ("{% autoescape true %}", "{% endautoescape %}"), ("{% own %}", "{% endown %}"),
])  # fmt: skip


@st.composite
def crossed_sources(draw):
    """Templates whose statements begin and end anywhere in a tag."""
    names, parts, ends = itertools.count(), [], []
    for _ in range(draw(st.integers(1, 3))):
        tag = draw(st.sampled_from(["script", "style"]))
        inside = draw(st.lists(IN_A_TAG, min_size=1, max_size=2))
        for part in (f"<{tag} ", *(f"{one} " for one in inside), ">", f"</{tag}>{{{{ y }}}}"):
            if draw(st.integers(0, 4)) == 0:
                name = str(next(names))
                start, end = (one.replace("@", name) for one in draw(AROUND))
                parts.append(start)
                ends.append(end)
            parts.append(part)
            if ends and draw(st.booleans()):
                parts.append(ends.pop())
    return "".join(parts + ends[::-1])


@settings(max_examples=300)
@given(crossed_sources(), st.booleans(), st.sampled_from(["{% extends 'base.html' %}", ""]))
def test_statements_anywhere_in_a_tag_put_out_what_they_did_and_a_nonce(written, trim, extends):
    templates = {"own.html": "{{ x }}", "base.html": "{% block b0 %}{% endblock %}"}
    plain, ours = (
        Environment(
            loader=DictLoader(templates), autoescape=True, trim_blocks=trim, extensions=[OwnTag]
        )
        for _ in range(2)
    )
    install(ours, environ=noncing)
    context = {"x": Markup("src=x"), "yes": True, "no": False}
    expected = plain.from_string(extends + written).render(context)
    assert NONCED.sub("", ours.from_string(extends + written).render(context)) == expected


class _Inline(HTMLParser):
    """The texts of scripts and styles, as a browser hashes them."""

    def __init__(self):
        super().__init__(convert_charrefs=False)
        self.texts = []
        self._inside = None

    def handle_starttag(self, tag, attrs):
        if tag in ("script", "style"):
            self._inside = [tag, ""]

    def handle_data(self, data):
        if self._inside:
            self._inside[1] += data

    def handle_endtag(self, tag):
        if self._inside and tag == self._inside[0]:
            self.texts.append(tuple(self._inside))
            self._inside = None


BODIES = st.text("ab<>&'\"{}/= \n\r;ü", max_size=12).filter(
    lambda text: not re.search(r"\{[{%#]|</", text) and "<!--" not in text
)


@settings(max_examples=150)
@given(
    st.lists(st.tuples(st.sampled_from(["script", "style"]), BODIES), min_size=1, max_size=4),
    st.booleans(),
    st.sampled_from(["{}", "{% if yes %}{}{% endif %}", "{% for i in 'ab' %}{}{% endfor %}"]),
)
def test_every_hash_is_that_of_a_text_in_the_page(elements, trim, around):
    written = "".join(around.replace("{}", f"<{tag}>{body}</{tag}>") for tag, body in elements)
    state = RequestState(None, page_nonce="N", hashes={})
    env = Environment(autoescape=True, trim_blocks=trim, lstrip_blocks=trim)
    install(env, environ=lambda: {KEY: state}, hashes=True)
    html = env.from_string(written).render(yes=True)
    assert "nonce" not in html
    reader = _Inline()
    reader.feed(html)
    reader.close()
    assert set(state.hashes) == {hash_text(f"{tag}-src", text) for tag, text in reader.texts}


def test_compiling_a_page_costs_little_more():
    page = "".join(
        f"<p class='a{n}' title=\"t\">{{{{ x{n} }}}}</p>{{% if y %}}<b>1</b>{{% endif %}}\n"
        for n in range(100)
    )
    source = f"<html><head><script>a</script><style>b</style></head>{page}</html>"
    plain = Environment(autoescape=True)
    ours = environment()
    ratios = []
    for _ in range(5):
        times = [
            min(timeit.repeat(lambda env=env: env.compile(source), number=1, repeat=2))
            for env in (plain, ours)
        ]
        ratios.append(times[1] / times[0])
    assert min(ratios) < 1.3  # the goal is 1.2; the rest is for a busy machine
