"""A hook that raises; another of its hooks works."""

from om_plugins import hookimpl


@hookimpl
def om_engines(context):
    raise RuntimeError("the engine room is flooded")


@hookimpl
def om_csp():
    return {"img-src": ["https://dry.example"]}
