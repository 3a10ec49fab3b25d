import msgspec
import pytest

from om_plugins.csp.override import Override, override
from om_plugins.errors import ConfigError
from om_plugins.headers.layer import HeaderPolicy, HeadersLayer


def page(change=None, **arguments):
    def app(environ, start_response):
        if change or arguments:
            override(environ, change, **arguments)
        start_response("200 OK", [("Content-Type", "text/html")])
        return [b"x"]

    return app


@pytest.fixture
def served(serve):
    def run(mode, change=None, csp=None, report_sample=0, **arguments):
        policy = HeaderPolicy(mode=mode, csp=csp, report_sample=report_sample)
        return serve(HeadersLayer(page(change, **arguments), policy))

    return run


def test_update_adds_sources(served):
    csp = served("enforce", update={"style-src": ["https://fonts.example"]}).csp
    assert "style-src 'self' 'nonce-" in csp
    assert "'report-sample' https://fonts.example;" in csp


def test_update_sets_a_directive_that_the_policy_does_not_have(served):
    csp = served("enforce", update={"frame-src": ["'none'"]}).csp
    assert csp.endswith("; frame-src 'none'")


def test_replace_sets_whole_directives_and_none_removes_them(served):
    csp = served("enforce", replace={"frame-ancestors": ["*"], "style-src": None}).csp
    assert "frame-ancestors *" in csp
    assert "style-src " not in csp
    assert "style-src-attr" in csp


def test_mode_adopt_enforces_nothing_because_a_view_changes_something(served):
    for changes in ("update", "replace"):
        seen = served("adopt", **{changes: {"script-src": ["'self'"], "img-src": ["'self'"]}})
        assert (seen.csp, seen.reported) == (None, None)


@pytest.mark.parametrize("name", ["update", "replace", "report_only"])
@pytest.mark.parametrize("where", ["report-uri /reports", "report-to group"])
def test_a_view_that_names_where_its_reports_go_is_always_reported_on(served, name, where):
    seen = served("adopt", **{name: where})
    assert seen.csp is None
    assert where in ", ".join(seen.all("Content-Security-Policy-Report-Only"))


def test_exempt_sends_no_policy_but_the_other_headers(served):
    seen = served("enforce", exempt=True)
    assert seen.csp is None
    assert seen.reported is None
    assert seen.get("X-Content-Type-Options") == "nosniff"


@pytest.mark.parametrize("mode", ["adopt", "enforce", "learn"])
@pytest.mark.parametrize("report_only", [True, False])
def test_report_only_decides_for_one_view(served, mode, report_only):
    seen = served(mode, report_sample=1, report_only=report_only)
    assert (seen.csp is None) is report_only
    assert "strict-dynamic" in (seen.reported if report_only else seen.csp)


def test_mode_off_stays_off(served):
    seen = served("off", report_only=False)
    assert seen.csp is None
    assert seen.reported is None


def test_changes_apply_in_order(serve):
    def app(environ, start_response):
        override(environ, replace={"style-src": ["a.example"]})
        override(environ, update={"style-src": ["b.example"]})
        return page()(environ, start_response)

    csp = serve(HeadersLayer(app, HeaderPolicy(mode="enforce"))).csp
    assert "style-src a.example b.example" in csp


def test_one_response_s_change_does_not_reach_the_next(serve):
    changed = {"now": True}

    def app(environ, start_response):
        if changed.pop("now", False):
            override(environ, exempt=True)
        return page()(environ, start_response)

    layer = HeadersLayer(app, HeaderPolicy(mode="enforce"))
    assert serve(layer).csp is None
    assert serve(layer).csp is not None


@pytest.mark.parametrize(
    "arguments",
    [
        {"update": {"script-src": ["self"]}},
        {"replace": {"script-src": ["a;b"]}},
        {"replace": {"scrip-src": None}},
        {"replace": "script-src self"},
        {"replace": 5},
        {"exempt": "false"},
        {"replace": ["script-src 'self'"]},
        {"exempt": True, "update": {"img-src": ["a.example"]}},
        # what cannot have an effect
        {"update": {"style-src": ["'nonce'", "'unsafe-inline'"]}},
        {"update": {"script-src": [f"'sha256-{'A' * 43}='", "'unsafe-inline'"]}},
        {"update": {"script-src": ["'strict-dynamic'", "'unsafe-inline'"]}},
        {"update": {"script-src-elem": ["'strict-dynamic'", "https://a.example"]}},
        {"update": {"script-src": ["'strict-dynamic'", "data:"]}},
        {"update": {"img-src": ["'none'", "data:"]}},
        {"update": {"img-src": ["'unsafe-inline'"]}},
        {"update": {"script-src-elem": ["'unsafe-eval'"]}},
        {"update": {"script-src-attr": ["https://a.example"]}},
        {"update": {"style-src-attr": ["'nonce'"]}},
        {"update": {"style-src": ["'strict-dynamic'"]}},
        {"update": {"script-src": ["'unsafe-hashes'"]}},
        {"update": {"script-src-attr": ["'unsafe-hashes'"]}},
        {"update": {"default-src": ["'unsafe-hashes'"]}},
        {"replace": {"script-src-attr": [f"'sha256-{'A' * 43}='"]}},
        {"replace": {"style-src-attr": ["'unsafe-inline'", f"'sha256-{'A' * 43}='"]}},
    ],
    ids=repr,
)
def test_wrong_change_fails_when_it_is_made(arguments):
    with pytest.raises(ConfigError):
        Override(**arguments)


def test_equal_changes_are_one_key():
    one = Override(update={"img-src": ["a.example"]})
    same = Override(update={"img-src": ("a.example",)})
    assert {one: 1}[same] == 1
    assert one != Override(update={"img-src": ["b.example"]})


def test_policies_of_many_different_changes_are_not_kept_for_ever(serve):
    policy = HeaderPolicy(mode="enforce")
    for number in range(600):
        change = Override(update={"img-src": [f"h{number}.example"]})
        csp = serve(HeadersLayer(page(change), policy)).csp
        assert f"h{number}.example" in csp
    assert len(policy._variants) <= 256


def test_override_survives_a_store():
    change = Override(
        update={"style-src": ["https://a.example"]},
        replace={"img-src": ["'self'"], "base-uri": None},
        report_only=True,
    )
    assert Override.from_data(msgspec.json.decode(msgspec.json.encode(change.as_data()))) == change
    beside = Override(report_only="img-src 'self'")
    assert Override.from_data(beside.as_data()) == beside != Override()
    assert Override.from_data(Override(exempt=True).as_data()) == Override(exempt=True)


def test_a_view_may_report_on_one_more_policy(served):
    seen = served("enforce", report_only={"img-src": ["'self'"]})
    assert "strict-dynamic" in seen.csp
    assert seen.reported == "img-src 'self'"
    with pytest.raises(ConfigError, match="write \"'self'\""):
        Override(report_only="img-src self")
