"""Why the shared HTTP cache kept the last response of a path, or did not."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass

from ...core.fork import renew_after_fork

_MOST_PATHS = 1000
_MOST_CHARACTERS = 200

Look = tuple[str, str, str, int]
"""An input, and the module, function and line that looked at it first."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """What became of one response, and why.

    Attributes:
        path: of its request.
        status: its status code.
        kept: whether it was stored.
        reason: why it was not, in one word; "" when it was.
        detail: the same as a sentence that names the input, the function and the line.
        names: the inputs that select it.
        cookies: it answers no request that brings one of these; ``("",)`` for any cookie.
        where: who looked at its inputs.
    """

    path: str
    status: int
    kept: bool
    reason: str = ""
    detail: str = ""
    names: tuple[str, ...] = ()
    cookies: tuple[str, ...] = ()
    where: tuple[Look, ...] = ()


class Explanations:
    """The newest explanation of each path, of this process. The oldest paths go."""

    def __init__(self) -> None:
        self.after_fork()
        renew_after_fork(self)

    def after_fork(self) -> None:
        """Begin anew in a child process."""
        self._lock = threading.Lock()
        self._found: OrderedDict[str, Explanation] = OrderedDict()

    def add(self, explanation: Explanation) -> None:
        """Remember what became of a response."""
        with self._lock:
            self._found.pop(explanation.path, None)
            self._found[explanation.path] = explanation
            if len(self._found) > _MOST_PATHS:
                self._found.popitem(last=False)

    def find(self, path: str) -> Explanation | None:
        """Return what became of the last response of a path; ``None`` when there was none."""
        with self._lock:
            return self._found.get(path)


def describe(sentence: str, where: tuple[str, str, int] | None) -> str:
    """Return a sentence with the function and line that it is about, without the path of a file."""
    if where is None or not where[0]:
        return sentence
    module, function, line = where
    return f"{sentence}: {module}.{function}, line {line}"


def quote_detail(text: str) -> str:
    """Return a text as a string of structured fields (RFC 8941 section 3.3.3), cut at a length."""
    cut = text[:_MOST_CHARACTERS]
    printable = "".join(one if " " <= one <= "~" else "?" for one in cut)
    return '"' + printable.replace("\\", "\\\\").replace('"', '\\"') + '"'
