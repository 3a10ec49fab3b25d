"""Cannot say what it is."""

from om_plugins import hookimpl


@hookimpl
def om_plugin_info():
    raise RuntimeError("who am I?")
