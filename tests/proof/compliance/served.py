"""What gunicorn serves for the suite: the middleware around a plain reverse proxy.

A line of policy, a guessed header or a retry would be something that the suite did not send, so
what else the middleware adds is switched off; the switches of the cache are those that the
specification allows and the safe defaults do not.
"""

from __future__ import annotations

import os
from dataclasses import replace

from om_plugins import OpenManagerMiddleware, Settings
from om_plugins.builtin.engines.proxy import ProxyEngine
from om_plugins.builtin.engines.proxy_app import ProxyApp
from om_plugins.runtime import Runtime

COMPANIONS = ("X-Content-Type-Options", "Referrer-Policy", "Cross-Origin-Opener-Policy")

origin = ProxyEngine(
    "origin", f"http://{os.environ['ORIGIN']}", fail_on=(), pass_deadline=False, pool_size=64
)
runtime = Runtime(
    Settings(
        hub_url="memory://",
        csp_mode="off",
        headers=dict.fromkeys(COMPANIONS),
        http_cache={"heuristic": True, "client_directives": True},
    )
)
# no setting allows this: one visitor's cookie would reach the next
part = runtime.part_of("http_cache")
part.rules = replace(part.rules, options=replace(part.rules.options, ignore_cookies=True))
application = OpenManagerMiddleware(ProxyApp(origin), runtime=runtime)
