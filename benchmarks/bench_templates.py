"""Measures automatic nonces in Jinja templates: compiling and rendering."""

from __future__ import annotations

from collections.abc import Callable

from flask import Flask, render_template
from jinja2 import DictLoader, Environment
from measure import alternate

from om_plugins.core.request_state import KEY, RequestState
from om_plugins.csp.jinja.extension import install
from om_plugins.flask.current import current_environ

LONG = "".join(
    [
        "<!doctype html><html><head><title>{{ title }}</title>",
        '<link rel="stylesheet" href="/static/a.css"><style>p { color: teal }</style>',
        '<script src="/static/a.js"></script></head><body>',
        *(
            f'<p class="a{number}" title="{{{{ title }}}}">{{{{ rows[{number}] }}}}</p>'
            "{% if title %}<b>1</b>{% endif %}\n"
            for number in range(100)
        ),
        "<script>start()</script></body></html>",
    ]
)
"""A long template to compile, with four tags."""

LAYOUT = """<!doctype html>
<html lang="en">
<head>
  <meta charset="utf-8">
  <title>{% block title %}Shop{% endblock %}</title>
  <link rel="preload" href="/static/font.woff2" as="font" crossorigin>
  <link rel="stylesheet" href="/static/base.css">
  <link rel="stylesheet" href="/static/theme.css">
  <style>body { margin: 0 }</style>
  <script src="/static/vendor.js" defer></script>
  <script src="/static/app.js" defer></script>
</head>
<body>
  <nav>{% for name, address in menu %}<a href="{{ address }}">{{ name }}</a>{% endfor %}</nav>
  <main>{% block content %}{% endblock %}</main>
  <footer>{{ user.name }}</footer>
  <script type="module">import "/static/start.js"</script>
  {% block scripts %}{% endblock %}
</body>
</html>
"""
PAGE = """{% extends "layout.html" %}
{% block title %}{{ title }}{% endblock %}
{% block content %}
<h1>{{ title }}</h1>
<table>
{% for row in rows %}
  <tr class="{{ loop.cycle('odd', 'even') }}">
    <td>{{ loop.index }}</td>
    <td><a href="/orders/{{ row.id }}">{{ row.name }}</a></td>
    <td>{% if row.paid %}paid{% else %}<b>open</b>{% endif %}</td>
  </tr>
{% endfor %}
</table>
{% endblock %}
{% block scripts %}<script>show({{ rows|length }})</script>{% endblock %}
"""
"""A page of 75 rows. Eight tags of the page and its layout get a nonce."""

MACROS = "".join(
    f"{{% macro field{n}(name) %}}<input name='{{{{ name }}}}'>{{% endmacro %}}" for n in range(12)
)
FORM = """{% import "macros.html" as forms %}{% from "macros.html" import field1, field2 %}
<form>{{ forms.field3("a") }}{{ field1("b") }}{{ field2("c") }}</form>
"""
"""Imports macros twice, as a page and its layout do."""

TEMPLATES = {"layout.html": LAYOUT, "page.html": PAGE, "macros.html": MACROS, "form.html": FORM}
VALUES = {
    "title": "Orders & returns",
    "user": {"name": "Ada"},
    "menu": [(name, f"/{name.lower()}") for name in ("Home", "Orders", "Stock", "Users", "Help")],
    "rows": [{"id": n, "name": f"Order {n} of A & B", "paid": n % 3} for n in range(75)],
}


def measure(repeats: int = 30) -> dict[str, float]:
    """Measure microseconds to compile a template and to render one, with and without nonces."""
    return {
        **_measure_compiling(repeats),
        **_measure_rendering(repeats),
        **_measure_rendering_in_flask(repeats),
    }


def _measure_compiling(repeats: int) -> dict[str, float]:
    plain, ours, by_hash = (Environment(autoescape=True) for _ in range(3))
    install(ours)
    install(by_hash, hashes=True, attributes=True)
    environments = {"bare ": plain, "nonces: ": ours, "hashes: ": by_hash}
    written = {"compile a long template": [LONG], "compile a page and its layout": [LAYOUT, PAGE]}
    cases = {
        name + what: lambda env=env, sources=sources: [env.compile(one) for one in sources]
        for what, sources in written.items()
        for name, env in environments.items()
    }
    return alternate(cases, repeats, number=1)


def _measure_rendering(repeats: int) -> dict[str, float]:
    # the cost of the nonce itself is measured with the headers
    states: dict[str, RequestState | None] = {
        "bare render a page": None,
        "nonces: render a page": RequestState(None, page_nonce="0" * 32),
        "mode adopt, no nonces: render a page": RequestState(None, plain=False),
        "hashes: render a page": RequestState(None, page_nonce="0" * 32, hashes={}),
    }
    cases: dict[str, Callable[[], object]] = {}
    for name, state in states.items():
        env = Environment(autoescape=True, loader=DictLoader(TEMPLATES))
        if state is not None:
            environ = {KEY: state}
            install(env, environ=lambda environ=environ: environ, hashes="hashes" in name)
        page, form = env.get_template("page.html"), env.get_template("form.html")
        cases[name] = lambda template=page: template.render(VALUES)
        cases[name.replace("a page", "imported macros")] = lambda template=form: template.render()
    return alternate(cases, repeats * 30, number=1)


def _measure_rendering_in_flask(repeats: int) -> dict[str, float]:
    cases: dict[str, Callable[[], object]] = {}
    for name in ("bare render a page in Flask", "nonces: render a page in Flask"):
        app = Flask(__name__)
        app.jinja_loader = DictLoader(TEMPLATES)
        if "nonces" in name:
            install(app.jinja_env, environ=current_environ)
        cases[name] = _make_render(app)
    return alternate(cases, repeats * 30, number=1)


def _make_render(app: Flask) -> Callable[[], object]:
    context = app.test_request_context(
        environ_overrides={KEY: RequestState(None, page_nonce="0" * 32)}
    )

    def render() -> None:
        with context:
            render_template("page.html", **VALUES)

    return render


if __name__ == "__main__":
    for subject, cost in measure().items():
        print(f"{subject:<40} {cost:10.2f} µs")
