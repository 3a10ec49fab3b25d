"""The engines' page and its actions: who may do what, and what then holds."""

from __future__ import annotations

import logging
import re
from urllib.parse import urlencode
from wsgiref.validate import validator

import pytest
from werkzeug.test import Client, EnvironBuilder, run_wsgi_app
from werkzeug.wrappers import Response

from om_plugins import OpenManagerMiddleware, Settings
from om_plugins.builtin.engines.callable import CallableEngine
from om_plugins.plugins.kit import Host
from om_plugins.runtime import Runtime
from om_plugins.testing.fakes import FakeClock
from om_plugins.types import EngineSpec

EVIL = "</script><script>alert(1)</script>\"'"


class Console:
    """The console of an application with one chain, and a person at it."""

    def __init__(self, debug=False, **settings):
        settings = Settings(
            secret_key=b"x" * 32,
            **{"hub_url": "memory://", "console_auth": lambda request: True, **settings},
        )
        self.runtime = Runtime(settings, clock=FakeClock(), host=Host(testing=True, debug=debug))
        for tier, name in enumerate(("model", "local"), 1):
            self.add(CallableEngine(name, lambda call, e=name: e), "assistant", tier)
        self.app = OpenManagerMiddleware(Response("host"), runtime=self.runtime)
        self.client = Client(self.app)

    def add(self, engine, chain, tier=1):
        self.runtime.add_engine(EngineSpec(engine, chain, tier))

    def page(self):
        return self.client.get("/_om/engines")

    def send(self, do, *, token=None, headers=None, json=True, **fields):
        if token is None:
            token = re.search(r'name="form_token" value="([^"]+)"', self.page().text)[1]
        said = {"do": do, "form_token": token, "chain": "assistant", **fields}
        headers = {"Accept": "application/json" if json else "text/html", **(headers or {})}
        return self.client.post("/_om/console/engines", data=said, headers=headers)

    @property
    def chain(self):
        return self.runtime.part_of("chains").get("assistant")

    @property
    def changes(self):
        changes = self.runtime.part_of("chains").live.changes()
        return changes["assistant"].options if changes else {}


@pytest.fixture
def open_console():
    opened = []

    def make(**options):
        opened.append(Console(**options))
        return opened[-1]

    yield make
    for one in opened:
        one.runtime.close()


@pytest.fixture
def console(open_console):
    return open_console()


# --- what people do ---


def test_every_worker_shows_at_once_what_was_changed_in_another(open_console, tmp_path):
    one, other = (open_console(hub_url=f"sqlite:///{tmp_path / 'hub'}") for _ in range(2))
    assert one.send("switch", engine="model", breaker="open").status_code == 200
    assert other.client.get("/_om/engines.json").json["texts"]["c0e1.breaker"] == (
        "breaker forced open"
    )
    assert one.send("switch", engine="model", breaker="auto").status_code == 200
    assert "breaker forced open" not in other.page().text


def test_a_breaker_is_forced_and_let_go(console, caplog):
    with caplog.at_level(logging.WARNING, "om_plugins"):
        answer = console.send("switch", engine="model", breaker="open", lasts="3600")
    said = "Engine 'model' of chain 'assistant': breaker forced open; for 1 hour."
    assert (answer.status_code, answer.json["message"]) == (200, said)
    assert "console (callback): engine 'model' of chain 'assistant'" in caplog.text
    assert answer.json["board"]["texts"]["c0e1.breaker"] == "breaker forced open"
    assert console.chain.call().engine == "local"
    left_s = (
        console.runtime.part_of("chains").live.changes()["assistant"].until
        - console.runtime.clock.time()
    )
    assert left_s == 3600
    console.send("switch", engine="model", breaker="auto")
    assert console.changes == {}
    assert console.chain.call().engine == "model"


def test_an_engine_is_switched_off_and_on(console):
    console.send("switch", engine="model", enabled="false")
    assert console.chain.call().engine == "local"
    console.send("switch", engine="model", enabled="true")
    assert console.chain.call().engine == "model"
    assert console.changes == {}


def test_an_engine_that_the_settings_switch_off_is_switched_on(open_console):
    console = open_console(chains={"assistant": {"engines": {"model": {"enabled": False}}}})
    assert console.chain.call().engine == "local"
    console.send("switch", engine="model", enabled="true")
    assert console.chain.call().engine == "model"


def test_an_engines_place_is_changed(console):
    fields = {"tier": "5", "was:tier": "1", "weight": "1", "was:weight": "1"}
    console.send("place", engine="model", **fields, max_concurrency="4")
    assert console.changes == {"engines": {"model": {"tier": 5, "max_concurrency": 4}}}
    assert [place.name for place in console.chain.states] == ["local", "model"]
    console.send("place", engine="model", back="engine")
    assert [place.name for place in console.chain.states] == ["model", "local"]


def test_a_chains_settings_are_changed_and_one_is_taken_back(console):
    fields = {"timeout": "3", "was:timeout": "10", "hedge": "0.95", "balance": "in_order"}
    console.send("settings", **fields, lasts="3600")
    policy = console.chain.policy
    assert (policy.timeout, policy.hedge, policy.balance) == (3, 0.95, "in_order")
    console.runtime.clock.advance(600)
    console.send("settings", back="timeout")
    assert console.chain.policy.timeout == 10
    assert console.changes == {"hedge": 0.95, "balance": "in_order"}
    until = console.runtime.part_of("chains").live.changes()["assistant"].until
    assert until - console.runtime.clock.time() == 3000  # the others end when they would have


def test_changes_of_a_chain_and_of_all_are_taken_back(console):
    console.runtime.part_of("chains").live.configure("*", retries=1)
    console.runtime.part_of("chains").live.configure("assistant", timeout=3)
    assert "chain 'assistant'" in console.send("reset").json["message"]
    assert console.runtime.part_of("chains").live.changes().keys() == {"*"}
    console.send("reset", chain="")
    assert console.runtime.part_of("chains").live.changes() == {}


def test_every_chain_is_changed_at_once_also_where_its_own_settings_differ(open_console):
    console = open_console(chains={"assistant": {"timeout": 3}})
    fields = {"timeout": "10", "was:timeout": "", "retries": "1", "was:retries": "3"}
    answer = console.send("settings", chain="*", **fields, lasts="3600")
    assert answer.json["message"] == "Every chain: timeout 10, retries 1; for 1 hour."
    assert (console.chain.policy.timeout, console.chain.policy.retries) == (10, 1)
    assert console.send("settings", chain="*", timeout="-3").status_code == 422
    console.send("settings", chain="*", back="timeout")
    assert (console.chain.policy.timeout, console.chain.policy.retries) == (3, 1)
    assert "every chain" in console.send("reset", chain="*").json["message"]
    assert console.runtime.part_of("chains").live.changes() == {}
    for kind in ("switch", "place"):
        refused = console.send(kind, chain="*", engine="model", breaker="open")
        assert refused.status_code == 404, kind


def test_nothing_is_changed_by_a_form_that_nobody_touched(console):
    answer = console.send("settings", timeout="10", **{"was:timeout": "10"})
    assert answer.json["message"] == "Nothing was changed."
    assert console.changes == {}


def test_what_cannot_work_is_told_beside_its_field_and_changes_nothing(console):
    fields = {"timeout": "-3", "was:timeout": "10", "retries": "1"}
    answer = console.send("settings", form="c0-settings", **fields)
    assert answer.status_code == 422
    assert answer.json["errors"] == {"timeout": "Must be a number of seconds from 0.001 to 3600."}
    assert console.changes == {}


# --- without scripts ---


def test_without_scripts_a_form_leads_back_to_the_page(console):
    answer = console.send("switch", engine="model", breaker="open", json=False)
    assert (answer.status_code, answer.headers["Location"]) == (303, "../engines?done=changed")
    page = console.client.get("/_om/engines?done=changed").text
    assert "Done: it holds in every worker" in page
    assert 'aria-pressed="true">Force open' in page
    assert "<script>" not in console.client.get(f"/_om/engines?done={EVIL}").text


def test_without_scripts_a_refused_form_comes_back_with_what_was_typed(console):
    fields = {"timeout": EVIL, "was:timeout": "10", "retries": "7", "was:retries": "3"}
    answer = console.send("settings", form="c0-settings", json=False, **fields)
    assert answer.status_code == 422
    assert "Must be a number of seconds from 0.001 to 3600." in answer.text
    assert 'value="7"' in answer.text
    assert '<details class="settings" open>' in answer.text
    assert EVIL not in answer.text
    assert 'href="../static/console.css"' in answer.text


def test_names_of_chains_and_engines_are_text(console):
    console.add(CallableEngine(EVIL, lambda call: 1), EVIL)
    page = console.page().text
    assert "alert(1)" in page
    assert EVIL not in page and "<script>alert" not in page


def test_the_page_needs_no_script_to_show_what_is(console):
    page = console.page()
    assert "style=" not in page.text and "onclick" not in page.text
    assert "unsafe-inline" not in page.headers["Content-Security-Policy"]
    assert "breaker closed" in page.text


# --- who may not ---


@pytest.mark.parametrize("token", ["", "A" * 43])
def test_an_action_without_the_sessions_token_is_refused(console, token):
    assert console.send("switch", engine="model", breaker="open").status_code == 200
    answer = console.send("switch", engine="model", breaker="auto", token=token)
    assert answer.status_code == 403
    assert console.chain.call().engine == "local"


@pytest.mark.parametrize(
    "headers", [{"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}]
)
def test_another_sites_page_is_refused(console, headers):
    answer = console.send("switch", engine="model", breaker="open", headers=headers)
    assert answer.status_code == 403
    assert console.changes == {}


def test_who_has_not_signed_in_sees_and_does_nothing(open_console):
    console = open_console(console_auth="a-token-of-the-console")
    assert console.page().status_code == 401
    assert console.client.get("/_om/engines.json").status_code == 401
    answer = console.send("switch", token="x", engine="model", breaker="open")
    assert answer.status_code == 401
    bearer = {"Authorization": "Bearer a-token-of-the-console"}
    answer = console.send("switch", token="x", engine="model", breaker="open", headers=bearer)
    assert answer.status_code == 200
    assert console.changes == {"engines": {"model": {"breaker": "open"}}}


@pytest.mark.parametrize(
    ("page", "leads_to"), [("engines", "../engines"), ("//evil.example", "../"), ("", "../")]
)
def test_signing_in_leads_to_the_page_that_was_asked_for_and_nowhere_else(
    open_console, page, leads_to
):
    console = open_console(console_auth="a-token-of-the-console")
    assert 'action="console/login?page=engines"' in console.page().text
    address = f"/_om/console/login?page={page}"
    wrong = console.client.post(address, data={"token": "wrong"})
    assert ("page=engines" in wrong.text) == (page == "engines")
    answer = console.client.post(address, data={"token": "a-token-of-the-console"})
    assert answer.headers["Location"] == leads_to


def test_chaos_is_refused_outside_debug_mode_and_not_shown(console):
    answer = console.send("chaos", engine="model", rate="1", error="Transient")
    assert answer.status_code == 403
    assert console.changes == {}
    assert "Chaos" not in console.page().text
    # no other form carries it
    console.send("switch", engine="model", breaker="open", chaos='{"rate": 1}', rate="1")
    assert console.changes == {"engines": {"model": {"breaker": "open"}}}


def test_chaos_begins_and_stops_in_debug_mode(open_console):
    console = open_console(debug=True, chains={"assistant": {"retries": 0}})
    assert "Chaos" in console.page().text
    answer = console.send("chaos", engine="model", rate="1", error="Transient", seed="7")
    assert answer.json["message"].startswith(
        "Engine 'model' of chain 'assistant': chaos (rate 1, error Transient, seed 7)"
    )
    assert console.chain.call().engine == "local"
    answer = console.send("chaos", engine="model", rate="2")
    assert answer.json["errors"] == {"rate": "Must be a number from 0 to 1."}
    console.send("chaos", engine="model", back="chaos")
    assert console.chain.call().engine == "model"


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"chain": "nobody"}, 404),
        ({"engine": "nobody"}, 404),
        ({"do": "harm"}, 400),
        ({"breaker": "ajar"}, 422),
        ({f"field{i}": "1" for i in range(120)}, 400),
        ({"breaker": "x" * 20_000}, 413),
    ],
)
def test_what_makes_no_sense_changes_nothing(console, fields, status):
    answer = console.send(fields.pop("do", "switch"), **{"engine": "model", **fields})
    assert answer.status_code == status
    if status != 422:  # the page's script shows people its words
        assert answer.content_type == "application/problem+json"
        assert answer.json["detail"]
    assert console.changes == {}


def test_it_keeps_to_wsgi(console):
    app = validator(console.app)
    body = urlencode({"do": "reset"}).encode()
    for path, method in (("engines", "GET"), ("engines", "HEAD"), ("engines.json", "GET"),
                         ("console/engines", "POST"), ("console/engines", "GET")):  # fmt: skip
        data = body if method == "POST" else None
        builder = EnvironBuilder(path=f"/_om/{path}", method=method, data=data)
        environ = builder.get_environ()
        environ["SCRIPT_NAME"] = ""
        _, status, headers = run_wsgi_app(app, environ, buffered=True)
        assert status[:3] in ("200", "403", "405")
        assert headers["Cache-Control"] == "no-store"


# --- alerts ---


def test_an_alert_is_silenced_and_told_of_again(console):
    token = re.search(r'data-form-token="([^"]+)"', console.client.get("/_om/").text)[1]

    def silence(rule, seconds, token=token):
        return console.client.post(
            "/_om/console/silence",
            json={"rule": rule, "seconds": seconds},
            headers={"X-OM-Form-Token": token},
        )

    assert silence("error_rate", "3600", token="").status_code == 403
    assert silence("error_rate", "3600").status_code == 200
    until = console.runtime.clock.time() + 3600
    console.runtime.clock.advance(1)  # a picture is kept that long
    assert console.client.get("/_om/overview.json").json["silences"] == {"error_rate": until}
    assert silence("error_rate", "0").status_code == 200
    assert console.runtime.part_of("monitoring").alerts.read_silences() == {}
    assert silence("error_rat", "1").status_code == 422
    assert silence("error_rate", "soon").status_code == 422
