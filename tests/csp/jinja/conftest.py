"""Environments whose templates get the nonce N, which several modules of tests use."""

from html.parser import HTMLParser

from jinja2 import DictLoader, Environment, nodes
from jinja2.ext import Extension

from om_plugins.core.request_state import KEY, RequestState
from om_plugins.csp.jinja.extension import install


def noncing():
    return {KEY: RequestState(None, page_nonce="N")}


def environment(templates=None, cls=Environment, **options):
    options.setdefault("autoescape", True)
    made = cls(loader=DictLoader(templates or {}), **options)
    install(made, environ=noncing)
    return made


def render(source, env=None, **context):
    return (env or environment()).from_string(source).render(**context)


class OwnTag(Extension):
    """``{% own %}…{% endown %}``, which puts out its body."""

    tags = frozenset({"own"})

    def parse(self, parser):
        next(parser.stream)
        return nodes.Scope(parser.parse_statements(("name:endown",), drop_needle=True))


class _FirstTag(HTMLParser):
    """The attributes of the first tag that may have a nonce."""

    def handle_starttag(self, tag, attrs):
        if tag in ("script", "style", "link") and not hasattr(self, "attributes"):
            self.attributes = attrs

    handle_startendtag = handle_starttag


def read_nonces(html):
    """Return the nonces of the first tag, one for each of its nonce attributes."""
    reader = _FirstTag()
    reader.feed(html)
    return [value or "" for name, value in reader.attributes if name == "nonce"]
