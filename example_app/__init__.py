"""The example app: a server console of the machine it runs on, and an assistant.

::

    python -m gunicorn -c example_app/gunicorn.conf.py "example_app:create_app()"
    flask --app example_app run
"""

from __future__ import annotations

from flask import Flask

from .config import DemoConfig

__all__ = ["create_app"]


def create_app(config: DemoConfig | None = None) -> Flask:
    """Make the app.

    Args:
        config: the demo's settings; read from the environment when not given.
    """
    from om_plugins import OpenManager

    from .engines import CHAIN, add_engines
    from .faults import Faults
    from .panels import Panels
    from .supervisor import Supervisor
    from .system import Sampler
    from .views import assistant_allowed, make_blueprint

    config = config or DemoConfig.from_environment()
    app = Flask(__name__)
    app.config.from_mapping(
        TRUSTED_HOSTS=["localhost", "127.0.0.1", "[::1]"],
        MAX_CONTENT_LENGTH=64 * 1024,
        OM_CSP_MODE="enforce",
        OM_HUB_URL=f"sqlite:///{config.state / 'hub.sqlite3'}",
        OM_ROUTES={"/api/assistant": {"chain": CHAIN, "auth": assistant_allowed}},
        OM_CHAINS={
            CHAIN: {"retries": 1, "timeout": 60, "attempt_timeout": 25}
            if config.llm_url
            else {"retries": 1, "timeout": 8, "attempt_timeout": 2.5}
        },
    )
    app.config.from_prefixed_env()

    om = OpenManager()
    supervisor = Supervisor(config)
    faults = Faults(config, supervisor)
    sampler = Sampler()
    add_engines(om, config, supervisor, faults, sampler)
    om.init_app(app)
    app.register_blueprint(make_blueprint(config, supervisor, faults, Panels(om, sampler, faults)))
    return app
