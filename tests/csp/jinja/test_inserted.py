import pytest
from jinja2 import Environment

from om_plugins.csp.jinja.extension import install
from tests.csp.jinja.conftest import environment, noncing

PIECES = [
    ("a<script>1</script>b", ['a<script nonce="N">1</script>b']),
    ("<style></style><script></script>", ['<style nonce="N"></style><script nonce="N"></script>']),
    ("<script>{{ 1 + x }}</script>", ['<script nonce="N">', "2", "</script>"]),
    ("{{ x }}<link rel=icon><style></style>{{ x }}",
     ["1", '<link rel=icon><style nonce="N"></style>', "1"]),
    ("{% for i in [1, 2] %}<style></style>{% endfor %}",
     ['<style nonce="N"></style>', '<style nonce="N"></style>']),
    ("{% if not x %}{% elif x %}<script></script>{% else %}{% endif %}",
     ['<script nonce="N"></script>']),
    ("{% block b %}<script></script>{% endblock %}", ['<script nonce="N"></script>']),
    ("{% raw %}{{ <style></style>{% endraw %}", ['{{ <style nonce="N"></style>']),
    ("{% autoescape x %}<script></script>{{ y }}{% endautoescape %}",
     ['<script nonce="N"></script>', "&lt;"]),
    ("{% autoescape not x %}<script></script>{{ y }}{% endautoescape %}",
     ['<script nonce="N"></script>', "<"]),
    ("{% macro m() %}<style></style>{% endmacro %}{{ m() }}|{{ m()|e }}",
     ['<style nonce="N"></style>', "|", '<style nonce="N"></style>']),
    ("{% set s %}<style></style>{% endset %}{{ s|length }}", ["25"]),
]  # fmt: skip


@pytest.mark.parametrize(("source", "pieces"), PIECES)
def test_a_streamed_template_has_its_nonces_in_the_pieces_that_it_has_without_them(source, pieces):
    streamed = list(environment().from_string(source).generate(x=1, y="<"))
    assert streamed == pieces
    plain = list(Environment(autoescape=True).from_string(source).generate(x=1, y="<"))
    assert len(plain) == len(streamed)


@pytest.mark.parametrize(("source", "pieces"), PIECES)
def test_pages_that_stay_plain_are_streamed_in_the_same_pieces(source, pieces):
    env = Environment(autoescape=True)
    plain = list(env.from_string(source).generate(x=1, y="<"))
    install(env)  # outside of a request
    assert list(env.from_string(source).generate(x=1, y="<")) == plain


def test_an_error_is_still_at_its_own_line():
    env = environment({"a.html": "<p>\n<script>\n</script><style>\n{{ 1 // x }}</style>\n"})
    with pytest.raises(ZeroDivisionError) as raised:
        env.get_template("a.html").render(x=0)
    assert raised.traceback[-1].lineno + 1 == 4


async def _render(env, source):
    return [piece async for piece in env.from_string(source).generate_async(x=1, y="<")]


def test_asynchronous_templates_have_the_same_pieces():
    import asyncio

    env = Environment(autoescape=True, enable_async=True)
    install(env, environ=noncing)
    assert asyncio.run(_render(env, PIECES[2][0])) == PIECES[2][1]
