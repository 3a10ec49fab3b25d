import pytest
from jinja2 import Environment, TemplateSyntaxError

from om_plugins.csp.jinja.expressions import Argument, read_template

ENV = Environment(autoescape=True, extensions=["jinja2.ext.i18n"])


def test_expressions_become_placeholders_that_are_numbered():
    text = read_template(ENV, "<p>{{ a[0] }}</p>{% if x %}{{ b }}{% endif %}")
    assert text.html == "<p>\ue0000\ue001</p>\ue0001\ue001"
    assert [one.text for one in text.expressions] == ["a[0]", "b"]


def test_a_placeholder_in_the_source_is_none():
    assert read_template(ENV, "\ue0007\ue001").html == " 7\ue001"


def test_the_lines_are_those_of_the_source():
    text = read_template(ENV, "a\n{%- if x -%}\n\nb{% endif %}\n{{ c }}")
    assert text.lines[0] == (0, 1)
    assert text.lines[-1] == (text.html.index("\ue000"), 5)


def test_translated_texts_are_ranges():
    text = read_template(ENV, "a{% trans %}bc{% endtrans %}d")
    assert text.translated == [range(1, 3)]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("{{ f(onclick='a') }}", [("onclick", "a")]),
        ("{{ f(x, onclick = \"a'b\", title='t') }}", [("onclick", "a'b"), ("title", "t")]),
        ("{{ f({'onclick': 'a'}) }}", [("onclick", "a")]),
        ("{% call f(onclick='a') %}{% endcall %}", [("onclick", "a")]),
        ("{% set a = {'onclick': 'a'} %}", [("onclick", "a")]),
        ("{% set onclick = 'a' %}", []),
        ("{{ onclick == 'a' }}{{ f(onclick=a) }}", []),
        ("{{ f(onclick='it\\'s') }}", [("onclick", "it's")]),
    ],
)
def test_texts_that_are_given_by_a_name_are_found(source, expected):
    found = read_template(ENV, "\n" + source).arguments
    assert found == [Argument(2, name, value) for name, value in expected]


def test_a_template_that_cannot_be_compiled_is_refused():
    with pytest.raises(TemplateSyntaxError):
        read_template(ENV, "{% if %}")
