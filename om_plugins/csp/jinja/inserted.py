"""The nodes of inserted statements: calls of the host's methods, which templates cannot write.

An inserted call stands in the middle of a text. It is put out together with that text, so that a
template that is streamed has the same pieces as it has without the call.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby

from jinja2 import nodes

from .modules import HOST

CALLED = f"policies[{HOST!r}]."
"""What the name of an inserted call begins with. Code generators write the name as it is, so it may
be a call."""


def make_call(method: str, arguments: Iterable[str]) -> nodes.EnvironmentAttribute:
    """Return the call of a method of the host."""
    return nodes.EnvironmentAttribute(f"{CALLED}{method}({', '.join(map(repr, arguments))})")


def is_inserted(node: nodes.Node) -> bool:
    """Return whether a node is the call of an inserted statement; no template can write one."""
    return isinstance(node, nodes.EnvironmentAttribute) and node.name.startswith(CALLED)


def join_pieces(template: nodes.Template) -> None:
    """Make each inserted call one expression with the text around it."""
    for node in [template, *template.find_all(nodes.Node)]:
        for _, value in node.iter_fields():
            if isinstance(value, list) and any(map(_is_inserted_output, value)):
                value[:] = _join_outputs(value)


def _is_inserted_output(node: object) -> bool:
    return isinstance(node, nodes.Output) and len(node.nodes) == 1 and is_inserted(node.nodes[0])


def _join_outputs(body: Iterable[nodes.Node]) -> Iterator[nodes.Node]:
    for is_output, found in groupby(body, lambda node: isinstance(node, nodes.Output)):
        outputs = list(found)
        if not is_output:
            yield from outputs
            continue
        children = [child for output in outputs for child in output.iter_child_nodes()]
        yield nodes.Output(list(_join_children(children))).set_lineno(outputs[0].lineno)


def _join_children(children: Iterable[nodes.Node]) -> Iterator[nodes.Node]:
    for is_literal, found in groupby(
        children, lambda child: isinstance(child, nodes.TemplateData) or is_inserted(child)
    ):
        parts = list(found)
        if is_literal and any(map(is_inserted, parts)):
            yield _join(parts)
        else:
            yield from parts


def _join(parts: Iterable[nodes.Node]) -> nodes.EnvironmentAttribute:
    written = [
        repr(part.data) if isinstance(part, nodes.TemplateData) else f"environment.{part.name}"  # type: ignore[attr-defined]
        for part in parts
    ]
    return nodes.EnvironmentAttribute(f"{CALLED}join(({', '.join(written)},))")
