import pytest

from om_plugins import Settings
from om_plugins.csp.modes import PolicyRules
from om_plugins.errors import ConfigError


@pytest.mark.parametrize("mode", ["adopt", "enforce", "learn"])
def test_none_leaves_a_directive_out_of_all_that_is_sent(mode):
    settings = Settings(csp={"frame-ancestors": None, "img-src": ["data:"]})
    for sent in PolicyRules(mode=mode, own=settings.csp).policies():
        assert "frame-ancestors" not in sent.policy
        assert sent.policy["object-src"] == ("'none'",)


def test_leaving_out_what_does_not_exist_is_an_error():
    with pytest.raises(ConfigError, match=r"OM_CSP\['frame-ancestor'\].*'frame-ancestors'"):
        PolicyRules(mode="enforce", own=Settings(csp='{"frame-ancestor": null}').csp)


@pytest.mark.parametrize("name", ["script-src", "script-src-elem", "default-src"])
def test_a_policy_by_which_no_script_could_run_is_an_error(name):
    with pytest.raises(ConfigError) as caught:
        PolicyRules(mode="enforce", own={name: ["'strict-dynamic'", "https:"]})
    assert caught.value.key == f"OM_CSP[{name!r}]"
    assert "add \"'nonce'\"" in caught.value.reason
    PolicyRules(mode="enforce", own={name: ["'strict-dynamic'", "'nonce'"]})


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ({"img-src": True}, "'img-src' has True: write a list of texts"),
        ({"img-src": [None]}, "'img-src' has [None]"),
        ({"upgrade-insecure-requests": True}, "[] where no value belongs"),
    ],
)
def test_what_is_no_list_of_sources_is_named_by_its_directive(value, told):
    with pytest.raises(ConfigError) as caught:
        Settings(csp=value)
    assert caught.value.key == "OM_CSP"
    assert told in caught.value.reason
