"""The example app: a console of the machine on which it runs, with an assistant.

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
        config: the demo's settings; by default those of the environment.
    """
    from om_plugins import OpenManager

    from .engines import CHAIN, add_engines
    from .events import CHAIN_NAMES
    from .fault_injection import FaultInjector
    from .language import LanguageSwitch
    from .notifications import DemoNotifier
    from .panels import Panels
    from .recovery import AnalystPlugin, StartAnalyst
    from .scenarios import FailureScenarios
    from .supervisor import Supervisor
    from .system import Sampler
    from .timeline import Timeline
    from .views import is_from_this_machine, make_blueprint

    config = config or DemoConfig.from_environment()
    app = Flask(__name__)
    app.config.from_mapping(
        TRUSTED_HOSTS=["localhost", "127.0.0.1", "[::1]"],
        MAX_CONTENT_LENGTH=64 * 1024,
        OM_CSP_MODE="enforce",
        # neither the demo's scripts nor the package's write markup
        OM_CSP={"require-trusted-types-for": ["'script'"], "trusted-types": ["'none'"]},
        OM_HUB_URL=f"sqlite:///{config.state / 'hub.sqlite3'}",
        OM_CACHE_URL=f"file://{config.state / 'cache'}",
        OM_ROUTES={"/api/assistant": {"chain": CHAIN, "auth": is_from_this_machine}},
        OM_CHAINS={
            CHAIN: {"retries": 1, "timeout": 60, "attempt_timeout": 25}
            if config.llm_url
            else {"retries": 1, "timeout": 8, "attempt_timeout": 2.5}
        },
        OM_CONSOLE_AUTH=is_from_this_machine,
        OM_DISPLAY_NAMES=CHAIN_NAMES,
        OM_SSE_MAX=3,  # each stream holds one of the eight threads of a worker
    )
    app.config.from_prefixed_env()

    om = OpenManager()
    supervisor = Supervisor(config)
    faults = FaultInjector(config, supervisor)
    sampler = Sampler()
    add_engines(om, config, supervisor, faults, sampler)
    if not config.llm_url:
        step = StartAnalyst(supervisor, f"chain:{CHAIN}")
        om.register_plugin(AnalystPlugin(step), "demo-analyst")
    om.init_app(app)
    app.wsgi_app = LanguageSwitch(app.wsgi_app)  # type: ignore[method-assign]

    notifier, timeline = DemoNotifier(om, CHAIN), Timeline(om)
    notifier.listen(app)
    timeline.listen(app)
    panels, scenarios = Panels(om, sampler, faults), FailureScenarios(om, faults, CHAIN)
    app.register_blueprint(
        make_blueprint(config, supervisor, faults, panels, scenarios, notifier, timeline)
    )
    return app
