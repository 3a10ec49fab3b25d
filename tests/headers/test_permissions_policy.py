import re

import pytest

from om_plugins.errors import ConfigError
from om_plugins.headers.permissions_policy import FEATURES, build_permissions_policy


@pytest.mark.parametrize(
    ("allowed", "value"),
    [
        ((), "usb=()"),
        (("none",), "usb=()"),
        (("'none'",), "usb=()"),
        (("*",), "usb=*"),
        (("'self'",), "usb=(self)"),
        (("self", "https://*.a.example:8443"), 'usb=(self "https://*.a.example:8443")'),
    ],
)
def test_permissions_in_every_form(allowed, value):
    assert build_permissions_policy({"usb": allowed}) == value


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ({"geo-location": ["self"]}, "did you mean 'geolocation'"),
        ({"xyzzy": []}, "unknown feature"),
        ({"usb": ["maps.example"]}, "an origin such as"),
        ({"usb": ['https://a" *']}, "an origin such as"),
        ({"usb": ["*", "self"]}, "'*' allows all"),
        ({"usb": ["none", "self"]}, "must stand alone"),
    ],
)
def test_wrong_permissions_fail_at_start(features, message):
    with pytest.raises(ConfigError, match=re.escape(message)) as caught:
        build_permissions_policy(features)
    assert caught.value.key.startswith("OM_PERMISSIONS_POLICY[")


def test_features_that_browsers_know_are_known():
    assert {"camera", "fullscreen", "publickey-credentials-get", "interest-cohort"} <= FEATURES
