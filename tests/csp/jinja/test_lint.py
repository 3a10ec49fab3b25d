import re

import pytest
from jinja2 import BaseLoader, DictLoader, Environment, nodes
from jinja2.ext import Extension

from om_plugins.csp.jinja.lint import lint, lint_all

ENV = Environment(autoescape=True, extensions=["jinja2.ext.i18n"])


def rules(source):
    return [(hint.line, hint.rule) for hint in lint(ENV, source, "a.html")]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("<a onclick='go()'>", "event-handler"),
        ("<body ONLOAD=go()>", "event-handler"),
        ("<img {% if x %}onerror='a'{% endif %}>", "event-handler"),
        ("<a href='javascript:go()'>", "javascript-url"),
        ("<a href=' java\nscript:go()'>", "javascript-url"),
        ("<form action=\"javascript:go('{{ x }}')\">", "javascript-url"),
        ("<script>a = {{ x }}</script>", "script-interpolation"),
        ("<script>a = '{{ x|e }}'</script>", "script-interpolation"),
        ("<script type=module>a = {{ x|safe }}</script>", "script-interpolation"),
        ("<script type='{{ t }}'>a = {{ x }}</script>", "script-interpolation"),
        ("<script src='{{ x }}'></script>", "script-src-variable"),
        ("<script src='https://{{ host }}/a.js'></script>", "script-src-variable"),
        ("<script src={{ x }}></script>", "script-src-variable"),
        ("<base href='/'>", "base-element"),
        ("<object data=a></object>", "plugin-element"),
        ("<embed src=a>", "plugin-element"),
        ("<p style='color: red'>", "style-attribute"),
        ("{% raw %}<p onclick=a>{% endraw %}", "event-handler"),
        ("{% macro m() %}<p onclick=a>{% endmacro %}", "event-handler"),
        ("{% trans %}a<script>b</script>{% endtrans %}<script>c</script>", "translated-element"),
        ("{%- trans n=1 %}<style></style>{%- pluralize %}b{% endtrans %}", "translated-element"),
        ("{% if %}", "template"),
        ("<script>a = {{ count }}</script>", "script-interpolation"),
        ("<script>a = {{ x ~ url_for('a') }}</script>", "script-interpolation"),
        ("<script>a = '{{ url_for('a') ~ x }}'</script>", "script-interpolation"),
        ("<script>a = {{ x|tojson ~ y }}</script>", "script-interpolation"),
        ("<script>a = {{ x|tojson if x else y }}</script>", "script-interpolation"),
        ("<script>a = {{ f(x|int) }}</script>", "script-interpolation"),
        ("<script>a = {{ x|default(5) }}</script>", "script-interpolation"),
        ("<script>a = {{ 5|default(x) }}</script>", "script-interpolation"),
        ("<script>a = {{ x == y }}</script>", "script-interpolation"),  # JavaScript has no True
        ("<script>a = {{ false }}</script>", "script-interpolation"),
        ("<script src='{{ x or url_for('a') }}'></script>", "script-src-variable"),
        ("<script nonce='abc'>a</script>", "fixed-nonce"),
        ("<p>{% if a %}<script>a{% endif %}", "open-element"),
        ("<style>{{ a }}", "open-element"),
        ("<style nonce=''>a", "open-element"),
        ("{% trans %}<script nonce>b</script>{% endtrans %}", "translated-element"),
        ("<script>a = eval ('b')</script>", "text-as-code"),
        ("<script>a = new Function('b')</script>", "text-as-code"),
        ("<script>a || document.write('<script src=b><\\/script>')</script>", "written-script"),
        ("<script>document . writeln(\"<scr\" + '<SCRIPT>')</script>", "written-script"),
        ("<script>document.write('<scr' + 'ipt src=b></scr' + 'ipt>')</script>", "written-script"),
        ("<script>document.write(unescape('%3Cscript%20src=b%3E'))</script>", "written-script"),
        ("<script>frame.contentDocument.write(`<p><script>b`)</script>", "written-script"),
        ("<script>setTimeout( 'a()', 10)</script>", "text-as-code"),
        ("<div hx-on:click='go()'><b hx-on:load='go()'>", "text-as-code"),
        ("<div x-data='{}' x-show=a @click='go()'>", "text-as-code"),
        ("<div v-if=a v-on:click='go()'>", "text-as-code"),
        ("<script>a.innerHTML = '<b onclick=\"go()\">'</script>", "event-handler"),
        ("<iframe srcdoc='<b onclick=\"go()\">'></iframe>", "event-handler"),
        ("{{ '<b onclick=\"go()\">'|safe }}", "event-handler"),
        ("<b {{ 'onclick=\"go()\"'|safe }}>", "event-handler"),
        ("<button formaction='javascript:go()'>", "javascript-url"),
        ("<a href='java&#115;cript:go()'>", "javascript-url"),
        ("<svg><a xlink:href='javascript:go()'></a></svg>", "javascript-url"),
        ("<b {{ {'onclick': 'go()'}|xmlattr }}>", "event-handler"),
        ("{{ form.save(render_kw={'onclick': 'go()'}) }}", "event-handler"),
    ],
)
def test_what_stands_in_the_way_is_named(source, expected):
    assert rules(source) == [(1, expected)]


@pytest.mark.parametrize(
    "source",
    [
        "<p>{{ x }}</p><a href='{{ url }}'>",
        "<script src='{{ url_for('static', filename=x) }}'></script>",
        "<script src='/static/{{ x }}.js'></script>",
        "<script>a = {{ x|tojson }}; b = {{ n|int }}; u = '{{ url_for('a') }}'</script>",
        "<script nonce='{{ csp_nonce() }}'>n = '{{ csp_nonce() }}'</script>",
        "<script type='application/json'>{{ x }}</script>",
        "{% block a %}{% endblock %}<script>{{ super() }}{{ self.a() }}{{ caller() }}</script>",
        "<script>a = {{ 5 }}, '{{ 'b' ~ 1|abs }}', {{ -x|int }}, {{ (-1) ** 2 }}</script>",
        "<script>a = {{ x|tojson if x else 'null' }}, {{ x|tojson|default('0')|safe }}</script>",
        "<script>a = {{ x|int + 1 }}, {{ x|count or 0 }}, {{ 'b' if x }}</script>",
        "<script src='{{ x }}' nonce='{{ csp_nonce() }}'></script>",
        "<script type='text/x-template'>{{ x }}</script>",
        "{% trans %}<b>a</b><script nonce='{{ csp_nonce }}'></script>{% endtrans %}<style></style>",
        "{# <p onclick=a> #}<!-- <p onclick=a> -->",
        "<script>medieval(); a.eval(b); setTimeout(a, 1); n = {{ rows|count }}</script>",
        "<script nonce='{{ csp_nonce() }}'>a",
        "{% if a %}<script>{% else %}<script async>{% endif %}a</script><style></style>",
        "<script>'<p onclick=a>'</script><textarea><p onclick=a></textarea>",
        "<p title='<b onclick=a>' data-on=x one=1>",
        "{% raw %}<script>{{ a }}</script>{% endraw %}",
        "\ue0007\ue001<script>\ue0007\ue001</script>",
    ],
)
def test_what_is_in_order_is_left_alone(source):
    assert rules(source.replace("<textarea><p onclick=a></textarea>", "")) == []


def test_a_script_that_is_written_has_a_way_that_every_preset_allows():
    (hint,) = lint(ENV, "<script>document.write('<script>b')</script>", "a.html")
    assert hint.level == "error"
    # under the preset "hash" a script without an expression has no nonce to hand on
    assert "set its nonce to '{{ csp_nonce() }}'" in hint.fix


def test_lines_are_those_of_the_source():
    source = (
        "{# one\ntwo #}\n{%- if x -%}\n\n<p\n  onclick=a>\n{% endif %}\n<script>\n\n"
        "  {{ a\n }} {{ b }}</script>\n{% raw %}\n\n<p onclick=a>{% endraw %}"
    )
    lines = source.split("\n")
    found = lint(ENV, source, "a.html")
    assert [hint.line for hint in found] == [5, 10, 11, 14]
    assert lines[4] == "<p"
    assert "onclick" in lines[13]


def test_a_fix_can_be_copied():
    (handler,) = lint(ENV, "<a id=save onclick='x()'>", "a.html")
    assert "document.getElementById('save').addEventListener('click', …)" in handler.fix
    (load,) = lint(ENV, "<body onload='x()'>", "a.html")
    assert "window.addEventListener('load', …)" in load.fix
    (script,) = lint(ENV, "<script>a = '{{ user.name|safe }}'</script>", "a.html")
    assert "{{ user.name|tojson }}" in script.fix


@pytest.mark.parametrize(
    ("written", "fix"),
    [
        ("rows[0].title if rows", "{{ (rows[0].title if rows)|tojson }}"),
        ("rows[0]", "{{ rows[0]|tojson }}"),
        ("a|e", "{{ a|tojson }}"),
        ("a | default('x, y') | safe", "{{ a | default('x, y')|tojson }}"),
        ("a ~ ': ' ~ b", "{{ (a ~ ': ' ~ b)|tojson }}"),
        ("not a", "{{ (not a)|tojson }}"),
        ("f(1, x=2.5)['k']", "{{ f(1, x=2.5)['k']|tojson }}"),
        ("(a|safe if b else c)", "{{ (a|safe if b else c)|tojson }}"),
        ("(-a) ** 2", "{{ ((-a) ** 2)|tojson }}"),
        ("a is defined", "{{ (a is defined)|tojson }}"),
        ("{'a': 1}['a']", "{{ {'a': 1}['a']|tojson }}"),
    ],
)
def test_an_expression_is_shown_as_it_is_written_and_its_fix_is_valid(written, fix):
    (hint,) = lint(ENV, f"<script>a = {{{{ {written} }}}}</script>", "a.html")
    assert f"{{{{ {written} }}}}" in hint.message
    assert fix in hint.fix
    ENV.from_string(fix)


def test_an_expression_over_several_lines_is_shown_on_one():
    (hint,) = lint(ENV, "<script>a = {{- rows\n    [0] -}}</script>", "a.html")
    assert "{{ rows [0] }} is in a script" in hint.message


def test_a_long_expression_is_cut_in_the_message_and_whole_in_the_fix():
    name = "rows" + ".row" * 40
    (hint,) = lint(ENV, f"<script>a = {{{{ {name} }}}}</script>", "a.html")
    assert f"{{{{ {name[:60]}… }}}}" in hint.message
    assert f"{{{{ {name}|tojson }}}}" in hint.fix


def test_an_expression_is_shown_with_the_delimiters_of_its_template():
    env = Environment(autoescape=True, variable_start_string="[[", variable_end_string="]]")
    (hint,) = lint(env, "<script>a = [[ rows[0] ]]</script>", "a.html")
    assert "[[ rows[0] ]] is in a script" in hint.message
    assert "[[ rows[0]|tojson ]]" in hint.fix
    (source,) = lint(env, "<script src='[[ cdn[1] ]]'></script>", "a.html")
    assert '<script src="[[ cdn[1] ]]">' in source.message


@pytest.mark.parametrize(
    "source",
    [
        "<button onclick=\"return confirm('Delete {{ name }}?')\">",
        "<form onsubmit='return check(this)'>",
        "<a href='/delete/3' onclick=\"if (!confirm('Sure?')) { return false }\">",
        "<input type=submit onclick='return faHelpers.safeConfirm(\"{{ _(sure) }}\");'>",
        "<form onsubmit='validate(event)'>",
        "<input onkeydown=\"return event.key != 'Enter'\">",
        "<a href=/delete ontouchstart='return ask()'>",
        "<body onbeforeunload=\"return 'Leave?'\">",
        "<script>a.innerHTML = '<b onclick=\"return confirm(1)\">'</script>",
        "<b {{ {'onclick': 'return confirm(1)'}|xmlattr }}>",
        "{{ form.save(render_kw={'onclick': 'return confirm(1)'}) }}",
        "<button formaction=/delete onclick='ask() || event.preventDefault()'>",
        "<form onsubmit='send(this); return false'>",
        "<button ONCLICK='return {{ question }}'>",
        "{% macro remove() %}<button onclick='return confirm(1)'>x</button>{% endmacro %}",
        "{{ form.submit(onclick=\"return confirm('Sure?')\") }}",
        "{{ button({'onclick': 'return confirm(1)'}) }}",
        "{% call button(onclick='return confirm(1)') %}x{% endcall %}",
    ],
)
def test_a_handler_that_asks_or_checks_is_named_as_dangerous(source):
    (hint,) = lint(ENV, source, "a.html")
    assert (hint.level, hint.rule, hint.line) == ("error", "guarding-handler", 1)
    assert "Dangerous" in hint.message


@pytest.mark.parametrize(
    "source",
    [
        "<button onclick=\"return confirm('Sure?')\">",
        '<form onsubmit="return confirm(&quot;Sure?&quot;);">',
    ],
)
def test_a_question_is_dangerous_too_and_is_allowed_meanwhile(source):
    (hint,) = lint(ENV, source, "a.html")
    assert (hint.level, hint.rule) == ("error", "asking-handler")
    assert "Dangerous" in hint.message
    assert "mode enforce allows this text by its hash" in hint.fix


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("<a href='/list' onclick='show(); return false'>", "event-handler"),
        ("<input onkeypress='return isDigit(event)'>", "event-handler"),
        ("<button onclick='save(); return true'>", "event-handler"),
        ("<button formaction='javascript:confirm(1)'>", "javascript-url"),
        ("<a href=\"javascript:if (confirm('Sure?')) go()\">", "javascript-url"),
        ("{{ link(href='javascript:go()') }}", "javascript-url"),
    ],
)
def test_what_stops_without_doing_anything_is_no_danger(source, expected):
    assert rules(source) == [(1, expected)]


class _Cache(Extension):
    """The statement ``{% cache 60 %}…{% endcache %}``, as Flask-Caching has it."""

    tags = {"cache"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        parser.parse_expression()
        body = parser.parse_statements(("name:endcache",), drop_needle=True)
        return nodes.Scope(body).set_lineno(line)


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("{% cache 60 %}<script>a</script>{% endcache %}", True),
        ("{%- cache 60 -%}<p>{{ x }}</p><style>a</style>{%- endcache %}", True),
        ("{% cache 60 %}{% if x %}<script src=/a.js></script>{% endif %}{% endcache %}", True),
        ("{% cache 60 %}<p>a</p>{% endcache %}<script>a</script>", False),
        ("<script>a</script>{% cache 60 %}{% trans %}a{% endtrans %}{% endcache %}", False),
        ("{% raw %}{% cache 60 %}{% endraw %}<script>a</script>", False),
    ],
)
def test_a_tag_in_a_part_that_a_cache_keeps_is_a_note(source, found):
    env = Environment(autoescape=True, extensions=["jinja2.ext.i18n", _Cache])
    hints = [(one.level, one.rule) for one in lint(env, source, "a.html")]
    assert hints == ([("note", "cached-element")] if found else [])


def test_a_library_that_may_need_no_code_is_a_note():
    levels = {
        hint.level: hint.message.partition(" ")[0]
        for hint in lint(ENV, "<div x-data='{}'><b hx-on:click='a'>", "a.html")
    }
    assert levels == {"note": "Alpine", "error": "htmx"}


def test_html_in_a_text_that_is_escaped_is_no_handler():
    assert rules("{{ '<b onclick=\"go()\">' }}{{ field(title='<b onclick=\"go()\">') }}") == []


def test_attributes_of_libraries_are_no_handlers():
    assert rules("<button hx-confirm='Sure?' hx-delete=/x onfoo='return confirm(1)'>") == []
    assert rules("{% set onclick = 'return confirm(1)' %}{{ button(label='onclick') }}") == []


def test_all_html_templates_of_the_loader_are_read():
    env = Environment(
        autoescape=True,
        loader=DictLoader({"b.html": "\n<p onclick=a>", "a.html": "<base>", "a.txt": "<base>"}),
    )
    assert [(hint.file, hint.line) for hint in lint_all(env)] == [("a.html", 1), ("b.html", 2)]


def test_a_loader_that_lists_nothing_is_told():
    class Silent(BaseLoader):
        pass

    with pytest.raises(TypeError, match=re.escape("this loader cannot iterate")):
        lint_all(Environment(loader=Silent()))
