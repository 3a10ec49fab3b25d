"""A pytest plugin: each Flask app gets ``OpenManager(app)`` when it has been made."""

from __future__ import annotations

import functools
import json
import os
from pathlib import Path
from typing import Any

from flask import Flask

WITH_LINE = os.environ.get("FOREIGN_LINE") == "1"
OUTCOMES = os.environ.get("FOREIGN_OUTCOMES", "")
_outcomes: dict[str, str] = {}


def add_line_after(cls: type[Flask]) -> None:
    """Wrap the ``__init__`` of this class: the outermost one of an app's class adds the line."""
    initialize = cls.__dict__["__init__"]

    @functools.wraps(initialize)
    def wrapped(self: Flask, *args: Any, **kwargs: Any) -> None:
        initialize(self, *args, **kwargs)
        if type(self).__init__ is wrapped:
            OpenManager(self)

    cls.__init__ = wrapped  # type: ignore[method-assign]


def wrap_subclass(cls: type[Flask], **kwargs: Any) -> None:
    super(Flask, cls).__init_subclass__(**kwargs)
    if "__init__" in cls.__dict__:
        add_line_after(cls)


if WITH_LINE:
    from om_plugins import OpenManager

    add_line_after(Flask)
    Flask.__init_subclass__ = classmethod(wrap_subclass)  # type: ignore[assignment]


def pytest_runtest_logreport(report: Any) -> None:
    if report.when == "call" or report.outcome != "passed":
        _outcomes[report.nodeid] = report.outcome


def pytest_sessionfinish() -> None:
    if OUTCOMES:
        Path(OUTCOMES).write_text(json.dumps(_outcomes))
