"""What gunicorn serves for the suite: the middleware around a plain reverse proxy."""

from __future__ import annotations

from proxy import proxy

from om_plugins import OpenManagerMiddleware, Settings

application = OpenManagerMiddleware(
    proxy,
    Settings(
        hub_url="memory://",
        csp_mode="off",
        headers={
            "X-Content-Type-Options": None,
            "Referrer-Policy": None,
            "Cross-Origin-Opener-Policy": None,
        },
        http_cache=True,
        http_cache_heuristic=True,
        http_cache_client_directives=True,
        http_cache_compliance=True,
    ),
)
