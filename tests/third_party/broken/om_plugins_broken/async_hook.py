"""A hook that is an ``async def``."""

from om_plugins import hookimpl


@hookimpl
async def om_engines(context):
    return []
