"""Random templates: pieces of tags and statements in any order, and what applications set."""

from __future__ import annotations

import re

_PIECES = r"""
<script> ¦ </script> ¦ <style> ¦ </style> ¦ <link rel=stylesheet href='a'> ¦ <link
rel=preload  ¦ <script  ¦ src='{{ u }}' ¦ <SCRIPT  ¦ > ¦ <!--  ¦ --> ¦ <textarea> ¦ </textarea>
<title> ¦ </title> ¦ ' ¦ " ¦ = ¦ a() ¦   ¦ onclick="return confirm('x')"
onclick="confirm({{ u }})" ¦ nonce='' ¦ nonce ¦ nonce='{{ n }}' ¦ <a  ¦ <svg><script/>
<script/> ¦ <body onload='{{ u }}'> ¦ javascript: ¦ href="javascript:x()" ¦ é ¦ {{ u }}
{{ u|safe }} ¦ {{ h }} ¦ {{- u -}} ¦ {% if t %} ¦ {% else %} ¦ {%- if f -%} ¦ {% endif %}
{% for x in l %} ¦ {% endfor %} ¦ {% raw %} ¦ {% endraw %} ¦ {# c #} ¦ {#- c -#} ¦ {% set s %}
{% endset %} ¦ {{ s }} ¦ {% macro m(a) %} ¦ {% endmacro %} ¦ {{ m(1) }} ¦ {% call m(2) %}
{% endcall %} ¦ {{ caller() }} ¦ {% filter upper %} ¦ {% endfilter %} ¦ {% block b %}
{% endblock %} ¦ {% include 'inc.html' %} ¦ {% from 'inc.html' import k %} ¦ {{ k }}
{% autoescape false %} ¦ {% endautoescape %} ¦ {% with q=1 %} ¦ {% endwith %} ¦ {% trans %}
{% endtrans %} ¦ {{ '<script>' }} ¦ {{ "<style>"|safe }} ¦ {{ {'a':1}|xmlattr }} ¦ {% do 1 %}
{{ u ~ '>' }} ¦ {{ h|striptags }} ¦ {% extends 'base.html' %} ¦ {{ super() }} ¦ [[ u ]]
# for y in l ¦ ## c
"""
"""Tags and statements, apart by a broken bar."""

PIECES = [*re.split(" ¦ |\n", _PIECES.strip()), "\n", "\n", " "]

OPTIONS = [
    {},
    {"trim_blocks": True, "lstrip_blocks": True},
    {"line_statement_prefix": "#", "line_comment_prefix": "##"},
    {"variable_start_string": "[[", "variable_end_string": "]]"},
    {"keep_trailing_newline": True, "newline_sequence": "\r\n"},
    {"autoescape": False},
    {"extensions": ["jinja2.ext.i18n", "jinja2.ext.do", "jinja2.ext.loopcontrols"]},
    {"optimized": False},
    {"finalize": lambda value: "" if value is None else value},
]
"""What applications set in ``app.jinja_options``."""

CONTEXT = {"u": "<u>", "h": "<script>h</script>", "n": "", "t": 1, "f": 0, "l": [1, 2]}
_BLOCKS = {"if", "for", "raw", "macro", "call", "filter", "block", "autoescape", "with", "trans"}


def build_template(rng, most):
    """Return the source of a template; its blocks are closed, and it may still be wrong."""
    parts, waiting, once = [], [], set()
    for piece in rng.choices(PIECES, k=rng.randint(2, most)):
        word = piece.strip("{%- }").split(" ")[0] if piece.startswith("{%") else ""
        if word.startswith("end"):
            if waiting[-1:] != [word]:
                continue
            waiting.pop()
        elif word == "else" and waiting[-1:] not in (["endif"], ["endfor"]):
            continue
        elif word in _BLOCKS or piece == "{% set s %}":
            if word == "block" and word in once:
                continue
            once.add(word)
            waiting.append(f"end{word}")
        parts.append(piece)
    return "".join(parts) + "".join(f"{{% {word} %}}" for word in reversed(waiting))


def build_files(rng):
    """Return the sources of ``page.html``, and of what it includes, imports and extends."""
    return {
        "page.html": build_template(rng, 22),
        "inc.html": f"{{% set k %}}{build_template(rng, 4)}{{% endset %}}<script>i</script>",
        "base.html": "<html>{% block b %}<script>b</script>{% endblock %}<script>x",
    }
