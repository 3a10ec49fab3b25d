"""Misspells a hook."""

from om_plugins import hookimpl


@hookimpl
def om_engine(context):
    return []
