"""Gunicorn for the demo: two workers of eight threads, for this machine only."""

from __future__ import annotations

import os
from typing import Any

bind = f"127.0.0.1:{os.environ.get('OM_DEMO_PORT', '8000')}"
workers = 2
threads = 8
worker_class = "gthread"
graceful_timeout = 5
keepalive = 30
control_socket_disable = True


def on_starting(server: Any) -> None:
    """Make the master the owner of the analyst, whichever worker starts it."""
    os.environ["OM_DEMO_OWNER"] = str(os.getpid())


def when_ready(server: Any) -> None:
    """Start the analyst before the first question."""
    from example_app.config import DemoConfig
    from example_app.supervisor import Supervisor

    config = DemoConfig.from_environment()
    if not config.llm_url and not Supervisor(config).start():
        server.log.error("the analyst did not start: see %s", config.state / "analyst.log")


def on_exit(server: Any) -> None:
    """Stop the analyst and delete the state folder."""
    from example_app.config import DemoConfig
    from example_app.state import StateDir
    from example_app.supervisor import Supervisor

    config = DemoConfig.from_environment()
    Supervisor(config).stop()
    StateDir(config.state).remove()
