"""Written for a hook API that does not exist yet."""

from om_plugins import PluginInfo, hookimpl


@hookimpl
def om_plugin_info():
    return PluginInfo(summary="From the future", hook_api=99)


@hookimpl
def om_teleporters(context):
    return []
