import pytest

from om_plugins import Settings
from om_plugins.csp.modes import PolicyRules
from om_plugins.csp.override import Override
from om_plugins.csp.policy__builder import Csp
from om_plugins.csp.presets import API, STRICT, compatible
from om_plugins.errors import ConfigError


def test_a_policy_is_built_step_by_step_and_never_changes():
    first = Csp({"default-src": [Csp.SELF]})
    second = first.add("img-src", "data:").set("upgrade-insecure-requests")
    assert str(second) == "default-src 'self'; img-src 'self' data:; upgrade-insecure-requests"
    assert str(first) == "default-src 'self'"
    assert dict(second.without("default-src", "img-src")) == {"upgrade-insecure-requests": ()}
    assert repr(first) == "Csp(\"default-src 'self'\")"


def test_dict_text_and_builder_say_the_same():
    text = "script-src 'self' 'nonce'; sandbox"
    sources = {"script-src": ["'self'", "'nonce'"], "sandbox": []}
    assert Csp(text) == Csp(sources) == Csp().set("script-src", "'self'", Csp.NONCE).set("sandbox")
    assert str(Csp(text)) == text
    for policy in (text, sources, Csp(text)):
        assert Settings(csp=policy).csp == dict(Csp(text))


def test_presets_are_there_to_begin_from():
    assert Csp.strict() == dict(STRICT)
    assert Csp.api() == dict(API)
    assert Csp.compatible("https://cdn.example") == dict(compatible(["https://cdn.example"]))
    assert "https://cdn.example" in Csp.compatible("https://cdn.example")["script-src"]


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (lambda: Csp("img-src a; img-src b"), "Csp['img-src'] 'img-src a; img-src b': stands"),
        (lambda: Csp().set("img-src", "a b"), "Csp.set['img-src'] 'a b': white space"),
        (lambda: Csp().add("script-src", "self"), "write \"'self'\""),
        (lambda: Csp().without("imgsrc"), "did you mean 'img-src'?"),
        (lambda: Csp(7), "must be a dict"),
    ],
)
def test_a_wrong_step_fails_where_it_is_written(step, message):
    with pytest.raises(ConfigError) as caught:
        step()
    assert message in str(caught.value)


def test_what_a_builder_does_without_is_not_sent():
    own = Csp.strict().without("frame-ancestors", "style-src-attr").set("style-src-attr", "'none'")
    assert own.dropped == ("frame-ancestors",)
    settings = Settings(csp=own)
    assert settings.csp["frame-ancestors"] is None
    for mode in ("enforce", "adopt"):
        for sent in PolicyRules(mode=mode, own=settings.csp).policies():
            assert "frame-ancestors" not in sent.policy
            assert sent.policy["object-src"] == ("'none'",)
    changed = Override(replace=own).apply(dict(STRICT))
    assert "frame-ancestors" not in changed
    assert changed["style-src-attr"] == ("'none'",)
