"""The data of the first page: what the features add, and what happens when one of them fails."""

from __future__ import annotations

import dataclasses
import math

import pytest
from werkzeug.test import Client
from werkzeug.wrappers import Response

from om_plugins import Card, Feature, FeatureSpec, OpenManagerMiddleware, Settings, hookimpl
from om_plugins.console.dashboard import MAX_CARD_ROWS, Dashboard
from om_plugins.plugins.kit import Host
from om_plugins.runtime import Runtime
from om_plugins.testing.fakes import FakeClock
from om_plugins.types import EngineSpec, EngineTraits


class Engine:
    name = "local"
    traits = EngineTraits(local=True)

    def call(self, call):
        return "answer"


class Counting(Feature):
    """A feature with the card that a test gives it."""

    name = "counting"

    def __init__(self, card):
        self._card = card

    def build(self, kit, keys):
        return self

    def card(self, kit, part):
        return self._card()


class Bringer:
    def __init__(self, *features):
        self._features = features

    @hookimpl
    def om_features(self):
        return [FeatureSpec(one) for one in self._features]


def make_runtime(*features, strict=None):
    settings = Settings(
        hub_url="memory://", console_auth=lambda request: True, secret_key=b"x" * 32, strict=strict
    )
    plugins = [(Bringer(*features), "bringer")]
    return Runtime(settings, clock=FakeClock(), host=Host(testing=True), plugins=plugins)


@pytest.fixture
def runtime():
    runtime = make_runtime()
    yield runtime
    runtime.close()


@pytest.fixture
def client(runtime):
    return Client(OpenManagerMiddleware(Response("the host's page"), runtime=runtime))


@pytest.fixture
def read():
    """Read the overview of an application with one more feature, as a browser gets it."""
    runtimes = []

    def read_overview(card, **settings):
        runtimes.append(make_runtime(Counting(card), **settings))
        app = OpenManagerMiddleware(Response("the host's page"), runtime=runtimes[-1])
        client = Client(app)
        assert client.get("/_om/").status_code == 200
        return client.get("/_om/overview.json").json

    yield read_overview
    for runtime in runtimes:
        runtime.close()


def test_the_overview_has_everything_that_the_page_shows(runtime, client):
    runtime.add_engine(EngineSpec(Engine(), "assistant"))
    runtime.part_of("notifications").info("Version 5 is live", to="everyone")
    client.post(
        "/_om/problems", json={"message": "It is slow", "url": "/ask?q=1"}, headers={"X-OM": "1"}
    )
    runtime.scheduler.run_pending()
    client.get("/anything").close()  # counted once it has ended
    told = client.get("/_om/overview.json").json
    assert told["requests"] >= 1
    assert told["engines"][0]["chain"] == "assistant"
    assert [one["message"] for one in told["notifications"] if one["to"] == "everyone"] == [
        "Version 5 is live"
    ]
    assert (told["problems"][0]["message"], told["problems"][0]["route"]) == ("It is slow", "/ask")
    assert {one["name"] for one in told["plugins"]} >= {"hub-memory"}
    assert "OM_CONSOLE_AUTH" in {one["subject"] for one in told["findings"]}
    assert told["hub"] == "shared"
    assert len(told["workers"]) == 1
    assert len(told["series"]["requests_per_s"]) == 120


def test_a_notice_for_one_browser_does_not_tell_which(runtime, client):
    runtime.part_of("notifications").info("Saved", to="sid:" + "A" * 22)
    runtime.scheduler.run_pending()
    answer = client.get("/_om/overview.json")
    assert answer.json["notifications"][0]["to"] == "one browser"
    assert "A" * 22 not in answer.text


@pytest.mark.parametrize(("span", "points"), [("hour", 360), ("day", 288), ("nonsense", 120)])
def test_charts_go_as_far_back_as_asked(client, span, points):
    series = client.get(f"/_om/overview.json?span={span}").json["series"]
    assert {len(series["p95_ms"]), len(series["in_flight"])} == {points}


def test_the_picture_is_made_once_a_second_however_many_watch(runtime, client):
    first = client.get("/_om/overview.json").json["at"]
    runtime.clock.advance(0.5)
    assert client.get("/_om/overview.json").json["at"] == first
    runtime.clock.advance(0.5)
    assert client.get("/_om/overview.json").json["at"] == first + 1


def test_a_card_of_any_feature_is_in_the_overview(read):
    overview = read(lambda: Card("Visits", [("/a", 2), ("/b", 0.5)], ("Page", "Times"), "None."))
    assert overview["cards"] == {
        "counting": {
            "title": "Visits",
            "columns": ["Page", "Times"],
            "rows": [["/a", 2], ["/b", 0.5]],
            "empty": "None.",
        }
    }


def test_a_feature_without_a_card_has_none(read):
    assert read(lambda: None)["cards"] == {}


def test_cells_that_are_no_json_become_text(read):
    card = Card("Odd", [(math.inf, ValueError("x"), True, None)])
    assert read(lambda: card)["cards"]["counting"]["rows"] == [["inf", "x", True, "None"]]


def test_a_card_has_a_hundred_rows_at_most(read):
    card = Card("Long", [(number,) for number in range(1000)])
    assert len(read(lambda: card)["cards"]["counting"]["rows"]) == MAX_CARD_ROWS


@dataclasses.dataclass
class Row:
    count: int


def test_data_of_a_feature_is_a_member_of_the_overview_and_no_table(read):
    overview = read(lambda: Card("Visits", data={"visits": [Row(3)]}))
    assert overview["visits"] == [{"count": 3}]
    assert overview["cards"] == {}


def test_data_of_a_feature_replaces_nothing_of_the_overview(read):
    assert read(lambda: Card("Visits", data={"workers": []}))["workers"]


@pytest.mark.parametrize(
    "card",
    [
        lambda: 1 / 0,
        lambda: Card("Visits", data={"visits": object()}),
        lambda: Card("Visits", [5]),
        lambda: "no card",
    ],
)
def test_a_broken_card_takes_nothing_from_the_others(read, card):
    overview = read(card, strict=False)
    assert overview["cards"] == {}
    assert overview["patterns"] == []
    assert overview["violations"]["suggestions"] == []


def test_it_is_made_anew_in_a_forked_child(runtime):
    dashboard = Dashboard(runtime.kit)
    first = dashboard.read()["at"]
    runtime.clock.advance(0.5)
    assert dashboard.read()["at"] == first
    dashboard.after_fork()
    assert dashboard.read()["at"] == first + 0.5
