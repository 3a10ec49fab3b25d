import pytest
from jinja2 import Environment

from om_plugins.csp.jinja.scan import join_text, scan


def read(source):
    environment = Environment(extensions=["jinja2.ext.i18n"])
    tokens = join_text(environment._tokenize(source, None))
    return scan(tokens)


def tags(source):
    """The tags that can get a nonce, as names in order."""
    return [
        tag.name
        for tag in read(source).tags
        if not tag.skipped and not tag.has_nonce and tag.name != "link"
    ]


def test_text_that_a_comment_or_raw_cuts_is_one_token():
    environment = Environment()
    tokens = join_text(environment._tokenize("a{# x #}b{% raw %}c{{ d{% endraw %}{{ e }}f", None))
    assert [(token.type, token.value) for token in tokens if token.type == "data"] == [
        ("data", "abc{{ d"),
        ("data", "f"),
    ]


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("<script>{{ x }}</script><style></style>", ["script", "style"]),
        # each branch begins in the state before the condition
        ("{% if a %}<script>{% else %}<script defer>{% endif %}</script>", ["script", "script"]),
        ("{% if a %}<!-- {% else %}-->{% endif %}<script></script>", []),
        ("<p title='{% if a %}<style></style>{% endif %}'>", []),
        ("{% for i in x %}<style></style>{% else %}<style></style>{% endfor %}", ["style"] * 2),
        # the body of a macro, a call or a set is put out elsewhere
        ("<p title='{% macro m() %}<script></script>{% endmacro %}'>", ["script"]),
        ("<p title='{% set s %}<style></style>{% endset %}'>", ["style"]),
        ("<p title='{% set s = 1 %}<style></style>'>", []),
        ("<p title='{% call m() %}<style></style>{% endcall %}'>", ["style"]),
        # a block stands where it is written, but in a child nobody knows where that is
        ("<p title='{% block b %}<style></style>{% endblock %}'>", []),
        ("{% extends 'x' %}<p title='{% block b %}<style></style>{% endblock %}'>", ["style"]),
        # a filter that changes tags, and a translated text
        ("{% filter upper %}<style></style>{% endfilter %}<script></script>", ["script"]),
        ("{% filter trim %}<style></style>{% endfilter %}", ["style"]),
        ("{% set s | e %}<style></style>{% endset %}", []),
        ("{% filter replace('a', 'b') %}<style></style>{% endfilter %}", []),
        ("{% filter replace('p', 'q') %}<style></style>{% endfilter %}", ["style"]),
        ("{% trans %}<script></script>{% endtrans %}<style></style>", ["style"]),
        # a nonce of its own
        ("<script nonce='{{ csp_nonce() }}'></script>", []),
        ("<script {{ my_nonce }}></script>", []),
        # a statement that does not end
        ("{% if a %}<script></script>", ["script"]),
    ],
)
def test_literal_tags_are_found_through_the_structure_of_the_template(source, names):
    assert tags(source) == names


def test_a_tag_in_a_macro_or_a_filter_may_be_changed_before_it_is_sent():
    source = "{% macro m() %}<script>1</script>{% endmacro %}<script>2</script>"
    assert [tag.loose for tag in read(source).tags] == [True, False]
    source = "{% filter trim %}<style>1</style>{% endfilter %}<style>2</style>"
    assert [tag.loose for tag in read(source).tags] == [True, False]


def test_the_body_of_a_tag_is_known_where_it_has_no_gap():
    source = "<script>a</script><script>{{ x }}</script><script>{# c #}b</script>"
    assert [tag.body for tag in read(source).tags] == ["a", None, "b"]
