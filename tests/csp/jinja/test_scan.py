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
        ("<script nonce='{{ own() }}'></script>", ["script"]),
        ("<script {{ my_nonce }}></script>", ["script"]),
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


@pytest.mark.parametrize(
    ("source", "open_", "apart"),
    [
        ("<script src={{ a }}></script>", False, True),
        ("<script {% if a %}defer{% endif %}></script>", False, True),
        ("<script {% if a %}defer{% elif b %}async{% else %}x=1{% endif %}></script>", False, True),
        ("<script {% for a in b %}data-{{ loop.index }}{% endfor %}></script>", True, True),
        ("<script {% with a = 1 %}b{% endwith %}></script>", False, True),
        ("<script {{ a }}></script>", True, True),
        ("<script {% if a %}{{ a }}{% endif %}></script>", True, True),
        ("<script {% if a %}nonce=x{% endif %}></script>", True, True),
        ("<script {% if a %}nonce=x{% else %}nonce=y{% endif %}></script>", True, True),
        ("<script {% include 'a' %}></script>", True, True),
        ("<script {% block a %}{% endblock %}></script>", True, True),
        ("<script {% call m() %}{% endcall %}></script>", True, True),
        ("<script {% filter upper %}a{% endfilter %}></script>", True, True),
        ("<script {% if a %}nonce='x'{% endif %}></script>", True, True),
        ("<script {% if a %}{% with b = 1 %}{{ b }}{% endwith %}{% endif %}></script>", True, True),
        ("<script {% own a %}b{% endown %}></script>", True, True),
        ("{% own a %}<script {{ a }}></script>{% endown %}", True, True),
        # nobody knows whether it has a body
        ("<script {% own 'tag' %}></script>", True, False),
        # the body of a statement ends elsewhere
        ("<script {% with a = 1 %}{{ a }}></script>{% endwith %}", True, False),
        ("{% with a = 1 %}<script {{ a }}{% endwith %}></script>", True, False),
        ("<script {% autoescape true %}{{ a }}></script>{% endautoescape %}", True, False),
        ("<script {% own a %}{{ a }}></script>{% endown %}", True, False),
        ("<script {% filter trim %}{{ a }}></script>{% endfilter %}", True, False),
        ("<script {% block b %}{{ a }}></script>{% endblock %}", True, False),
        ("<script {% for b in a %}{{ b }}>{% else %}>{% endfor %}</script>", True, False),
        ("{% if a %}<script {{ a }}>{% else %}b{% endif %}</script>", True, True),
        # a block of output around it would change what the template does
        ("<script {{ a }}{% set b = 1 %}></script>", True, False),
        ("<script {% set b %}c{% endset %}{{ b }}></script>", True, False),
        ("<script {% macro b() %}c{% endmacro %}{{ b() }}></script>", True, False),
        ("<script {% from 'a' import b %}{{ b }}></script>", True, False),
        ("{% for a in b %}<script {% break %}{{ a }}></script>{% endfor %}", True, False),
        ("{% if a %}<script {% else %}<script b='' {% endif %}{{ c }}></script>", True, False),
        ("{% extends 'a' %}<script {{ a }}></script>", True, False),
        ("{% extends 'a' %}{% block b %}<script {{ a }}></script>{% endblock %}", True, True),
        ("{% extends 'a' %}{% macro b() %}<script {{ a }}></script>{% endmacro %}", True, True),
        ("{% extends 'a' %}{% block b %}{% endblock %}<script {{ a }}></script>", True, False),
    ],
)
def test_attributes_that_are_known_only_when_they_are_put_out(source, open_, apart):
    for tag in read(source).tags:
        assert not tag.has_nonce
        assert (tag.open, tag.apart) == (open_, apart)


def test_csp_nonce_is_a_nonce_unless_the_host_has_another_one():
    environment = Environment()
    source = "<script nonce='{{ csp_nonce() }}'></script>"
    for own in (True, False):
        tokens = join_text(environment._tokenize(source, None))
        (tag,) = scan(tokens, own_nonce=own).tags
        assert tag.has_nonce is own
    (tag,) = read("<script nonce='{{ csp_nonce }}'></script>").tags
    assert not tag.has_nonce
