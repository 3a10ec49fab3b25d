import pytest

from om_plugins import Settings
from om_plugins.csp.modes import PolicyRules
from om_plugins.csp.override import Override
from om_plugins.csp.policy import (
    Csp,
    add_sources,
    compile_policy,
    find_ignored,
    read_policy,
    replace_directives,
)
from om_plugins.csp.presets import API, STRICT, compatible
from om_plugins.errors import ConfigError

GOOD = [
    {"script-src": ["'self'", "https://cdn.example:8443/js/", "*.example", "data:", "'nonce'"]},
    {"script-src": ["'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU='"]},
    {"upgrade-insecure-requests": ()},
    {"sandbox": ()},
    {"sandbox": ["allow-scripts", "allow-forms"]},
    {"require-trusted-types-for": ["'script'"], "trusted-types": ["om", "'allow-duplicates'"]},
    {"trusted-types": ["'none'"]},
    {"report-uri": ["/csp?x=1"], "report-to": ["group"]},
    {"default-src": "'self' https:"},
    {"img-src": ("'SELF'",)},
    {"webrtc": ["'block'"]},
    {"img-src": ["*", "https://*", "*.example:*", "http://localhost:8080/a/b.png", "app://x"]},
    {"connect-src": ["wss://my-host.example.", "blob:", "mediastream:", "capacitor:"]},
    {"frame-ancestors": ["'self'", "https://a.example"]},
    {"trusted-types": ["*"]},
    {"script-src": ["'report-sha256'", "'url-sha256-" + "A" * 43 + "='"]},
    {"script-src": ["'sha512-" + "A" * 86 + "=='", "'sha384-" + "-" * 64 + "'"]},
]

BAD = [
    ({"script-src": ["'self'; img-src *"]}, "script-src", "';' would end the value"),
    ({"script-src": ["https://a.example,https://b.example"]}, "script-src", "','"),
    ({"script-src": ["a.example\r\nX-Evil: 1"]}, "script-src", "white space"),
    ({"script-src": ["a.example\nb"]}, "script-src", "white space"),
    ({"script-src": ["'self' https:"]}, "script-src", "its own item"),
    ({"script-src": ["a\u00a0b"]}, "script-src", "white space"),
    ({"script-src": ["b\u00fccher.example"]}, "script-src", "Punycode"),
    ({"script-src": ["a\x00b"]}, "script-src", "not printable"),
    ({"script-src": ["a\x7fb"]}, "script-src", "not printable"),
    ({"script-src": [""]}, "script-src", "not empty"),
    ({"script-src": [7]}, "script-src", "must be text"),
    ({"script-src": ["self"]}, "script-src", "write \"'self'\""),
    ({"script-src": ["UNSAFE-INLINE"]}, "script-src", "write \"'unsafe-inline'\""),
    ({"script-src": ["nonce"]}, "script-src", "write \"'nonce'\""),
    ({"script-src": ["'nonce-abc'"]}, "script-src", "a fixed nonce protects nothing"),
    ({"script-src": ["nonce-abc"]}, "script-src", "a fixed nonce protects nothing"),
    ({"script-src": ["sha256-abc"]}, "script-src", "a hash stands in quotes"),
    ({"script-src": ["'unsafe-inlin'"]}, "script-src", "did you mean \"'unsafe-inline'\""),
    ({"script-src": ["'none'", "'self'"]}, "script-src", "must stand alone"),
    ({"script-src": ["'nonce'", "'none'"]}, "script-src", "must stand alone"),
    ({"script-src": ["'self'", "'SELF'"]}, "script-src", "twice"),
    ({"script-src": ["a.example", "a.example"]}, "script-src", "twice"),
    ({"script-src": []}, "script-src", "write \"'none'\""),
    ({"script-src": None}, "script-src", "list of sources"),
    ({"upgrade-insecure-requests": ["1"]}, "upgrade-insecure-requests", "takes no value"),
    ({"report-to": []}, "report-to", "at least one value"),
    ({"report-to": ["'self'"]}, "report-to", "quotes have no meaning"),
    ({"require-trusted-types-for": ["script"]}, "require-trusted-types-for", "'script'"),
    ({"sandbox": ["allow-script"]}, "sandbox", "did you mean 'allow-scripts'"),
    ({"trusted-types": ["none"]}, "trusted-types", "write \"'none'\""),
    ({"trusted-types": ["'none'", "app"]}, "trusted-types", "must stand alone"),
    ({"trusted-types": ["allow-duplicates"]}, "trusted-types", "a keyword stands in quotes"),
    ({"scrip-src": ["'self'"]}, "scrip-src", "did you mean 'script-src'"),
    ({"Script-Src": ["'self'"]}, "Script-Src", "did you mean 'script-src'"),
    ({"wholly wrong": ["'self'"]}, "wholly wrong", "known are base-uri, "),
    ({"plugin-types": ["a/b"]}, "plugin-types", "browsers know it no more; object-src"),
    ({"img-src": ["https://A.example/x", "https://a.example/x"]}, "img-src", "twice"),
    ({"report-to": ["a", "b"]}, "report-to", "takes one value"),
    ({"prefetch-src": ["a.example"]}, "prefetch-src", "browsers know it no more; default-src"),
    ({"webrtc": ["'allow'", "'block'"]}, "webrtc", "takes one value"),
]


@pytest.mark.parametrize("policy", GOOD, ids=repr)
def test_good_policy_is_accepted(policy):
    result = read_policy(policy, "OM_CSP")
    assert list(result) == list(policy)
    assert all(isinstance(sources, tuple) for sources in result.values())


@pytest.mark.parametrize(("policy", "directive", "reason"), BAD, ids=lambda one: repr(one)[:60])
def test_bad_policy_is_refused_with_key_value_and_way_out(policy, directive, reason):
    with pytest.raises(ConfigError) as caught:
        read_policy(policy, "OM_CSP")
    assert caught.value.key == f"OM_CSP[{directive!r}]"
    assert reason in caught.value.reason


def test_hosts_differ_by_their_path_with_regard_to_case():
    same = {"img-src": ["https://a.example/X", "https://a.example/x"]}
    assert read_policy(same, "OM_CSP") == {"img-src": tuple(same["img-src"])}


def test_compiled_policy_waits_for_the_nonce_in_every_place():
    pieces = compile_policy({"script-src": ("'nonce'", "https:"), "style-src": ("'nonce'",)})
    assert "N1".join(pieces) == "script-src 'nonce-N1' https:; style-src 'nonce-N1'"


def test_policy_without_nonce_compiles_to_one_piece():
    assert compile_policy({"upgrade-insecure-requests": (), "base-uri": ("'none'",)}) == (
        "upgrade-insecure-requests; base-uri 'none'",
    )


def test_replacing_sets_whole_directives():
    policy = {"img-src": ("a.example",), "base-uri": ("'self'",)}
    changes = {"img-src": ("b.example",), "font-src": ("c.example",)}
    assert replace_directives(policy, changes) == {**policy, **changes}
    assert "font-src" not in replace_directives(policy, changes, only_present=True)


@pytest.mark.parametrize(
    ("policy", "extra", "result"),
    [
        ({"img-src": ("a",)}, {"img-src": ["b", "a"]}, {"img-src": ("a", "b")}),
        ({"img-src": ("'none'",)}, {"img-src": ["b"]}, {"img-src": ("b",)}),
        ({"img-src": ("'none'",)}, {"img-src": ["'none'"]}, {"img-src": ("'none'",)}),
        ({"img-src": ("a",)}, {"img-src": ["'none'"]}, {"img-src": ("a",)}),
        # a missing directive begins as what browsers fall back to: nothing gets stricter
        (
            {"default-src": ("'self'",)},
            {"img-src": ["b"]},
            {"default-src": ("'self'",), "img-src": ("'self'", "b")},
        ),
        (
            {"script-src": ("s",), "default-src": ("d",)},
            {"script-src-elem": ["b"]},
            {"script-src": ("s",), "default-src": ("d",), "script-src-elem": ("s", "b")},
        ),
        # with nothing to fall back to, all is allowed already
        ({"base-uri": ("'self'",)}, {"frame-src": ["b"]}, {"base-uri": ("'self'",)}),
    ],
    ids=repr,
)
def test_widening_allows_more_and_never_less(policy, extra, result):
    assert add_sources(policy, extra) == result


def test_widening_sets_a_missing_directive_only_when_told_to():
    assert add_sources({}, {"frame-src": ["b"]}, owner=True) == {"frame-src": ("b",)}


STYLE = ("'self'", "'nonce'", "'report-sample'")
SCRIPT = ("'nonce'", "'strict-dynamic'", "https:", "'unsafe-inline'", "'report-sample'")
SHA = f"'sha256-{'A' * 43}='"


@pytest.mark.parametrize(
    ("policy", "extra", "changed"),
    [
        # 'unsafe-inline' beside a nonce or a hash
        ({"style-src": STYLE}, {"style-src": ["'unsafe-inline'"]},
         {"style-src": "'self' https: 'report-sample' 'unsafe-inline'"}),
        ({"style-src": STYLE}, {"style-src-elem": ["'unsafe-inline'"]},
         {"style-src-elem": "'self' https: 'report-sample' 'unsafe-inline'"}),
        ({"script-src": SCRIPT}, {"script-src": ["'unsafe-inline'"]},
         {"script-src": "'self' https: 'unsafe-inline' 'report-sample'"}),
        ({"script-src": ("a.example", SHA)}, {"script-src": ["'unsafe-inline'"]},
         {"script-src": "a.example 'unsafe-inline'"}),
        ({"style-src": ("'self'", "'hashes'", "'nonce'")}, {"style-src": ["'unsafe-inline'"]},
         {"style-src": "'self' https: 'unsafe-inline'"}),
        # a nonce or a hash beside 'unsafe-inline' would take it back
        ({"style-src": ("'unsafe-inline'",)}, {"style-src": ["'nonce'", SHA, "a.example"]},
         {"style-src": "'unsafe-inline' a.example"}),
        ({"script-src": ("'unsafe-inline'",)}, {"script-src": ["'strict-dynamic'", "'nonce'"]},
         {}),
        # attributes: of what the directive begins as, only what speaks for attributes
        ({"script-src": SCRIPT}, {"script-src-attr": ["'unsafe-inline'"]},
         {"script-src-attr": "'report-sample' 'unsafe-inline'"}),
        ({"script-src": SCRIPT}, {"script-src-attr": [SHA]},
         {"script-src-attr": f"'report-sample' 'unsafe-hashes' {SHA}"}),
        ({"script-src-attr": ("'unsafe-hashes'", SHA)}, {"script-src-attr": ["'unsafe-inline'"]},
         {"script-src-attr": "'unsafe-inline'"}),
        ({"style-src-attr": ("'unsafe-inline'",)}, {"style-src-attr": ["'unsafe-hashes'", SHA]},
         {}),
        ({"default-src": ("'self'", "'unsafe-inline'")}, {"style-src-attr": [SHA]},
         {"style-src-attr": "'unsafe-inline'"}),
        # hosts and schemes beside 'strict-dynamic'
        ({"script-src": SCRIPT}, {"script-src": ["https://a.example"]},
         {"script-src": "'self' 'nonce' 'report-sample' https://a.example"}),
        ({"script-src": SCRIPT}, {"script-src-elem": ["blob:"]},
         {"script-src-elem": "'self' 'nonce' 'report-sample' blob:"}),
        ({"script-src": SCRIPT}, {"script-src": ["https:"]},
         {"script-src": "'self' 'nonce' 'report-sample' https:"}),
        ({"script-src": SCRIPT}, {"worker-src": ["blob:"]},
         {"worker-src": "'strict-dynamic' https: 'report-sample' blob:"}),
        # what a more specific directive would keep from having an effect
        ({"style-src": STYLE, "style-src-elem": STYLE}, {"style-src": ["a.example"]},
         {"style-src": "'self' 'nonce' 'report-sample' a.example",
          "style-src-elem": "'self' 'nonce' 'report-sample' a.example"}),
        ({"script-src": SCRIPT, "script-src-attr": ("'none'",)},
         {"script-src": ["'unsafe-hashes'", SHA]},
         {"script-src": f"{' '.join(SCRIPT)} 'unsafe-hashes' {SHA}",
          "script-src-attr": f"'unsafe-hashes' {SHA}"}),
        ({"script-src": SCRIPT, "script-src-elem": SCRIPT}, {"script-src": ["'unsafe-eval'"]},
         {"script-src": f"{' '.join(SCRIPT)} 'unsafe-eval'"}),
        ({"child-src": ("a",), "frame-src": ("a",)}, {"child-src": ["b"]},
         {"child-src": "a b", "frame-src": "a b"}),
        ({"script-src": SCRIPT, "style-src": STYLE}, {"default-src": ["'unsafe-inline'"]},
         {"script-src": "'self' https: 'unsafe-inline' 'report-sample'",
          "style-src": "'self' https: 'report-sample' 'unsafe-inline'"}),
        ({"default-src": ("'self'",)}, {"default-src": ["'unsafe-eval'", "data:"]},
         {"default-src": "'self' data:", "script-src": "'self' data: 'unsafe-eval'"}),
        # 'none' and other sources
        ({"img-src": ("'none'",)}, {"img-src": ["data:"]}, {"img-src": "data:"}),
        ({"img-src": ("a.example",)}, {"img-src": ["'none'"]}, {"img-src": "'none'"}),
    ],
    ids=repr,
)  # fmt: skip
def test_what_the_owner_adds_has_its_effect(policy, extra, changed):
    result = add_sources(policy, extra, owner=True)
    assert {
        name: " ".join(result[name]) for name in result if result[name] != policy.get(name)
    } == changed


def test_what_a_plugin_adds_opens_nothing_else():
    policy = {"script-src": SCRIPT, "style-src-attr": ("'unsafe-inline'",)}
    added = {"script-src": ["a.example"], "style-src-attr": ["'unsafe-hashes'", SHA]}
    found = add_sources(policy, added)
    assert found["script-src"] == (*SCRIPT, "a.example")
    assert SHA not in found["style-src-attr"]
    assert find_ignored(found, added) == ""


@pytest.mark.parametrize(
    ("policy", "extra", "expected"),
    [
        ({"style-src": STYLE}, {"style-src": ["'unsafe-inline'"]}, "no effect in style-src"),
        ({"script-src": SCRIPT}, {"script-src": ["'unsafe-inline'"]}, "no effect in script-src"),
        ({"style-src": ("'self'",)}, {"style-src": ["'unsafe-inline'"]}, ""),
        ({"img-src": ("'self'",)}, {"style-src": ["'unsafe-inline'"]}, ""),
    ],
)
def test_what_a_plugin_adds_in_vain_is_found(policy, extra, expected):
    found = find_ignored(add_sources(policy, extra), extra)
    assert expected in found
    assert bool(expected) == bool(found)


# --- a policy that is built in code ---------------------------------------------------------------


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
