"""Counts the visits of pages: a whole feature of a third party, with public names alone."""

import json
from dataclasses import dataclass
from typing import ClassVar

import click

from om_plugins import Card, Feature, FeatureSpec, Finding, Metric, Table, hookimpl, key, kinds


@dataclass(frozen=True, slots=True, kw_only=True)
class VisitKeys(Table):
    PREFIX: ClassVar[str] = "OM_"

    visits_from: int = key(0, kinds.integer(0, 1_000_000), "the first number", "Visits")


class Visits:
    """The count of one application, and its path on the web."""

    def __init__(self, first):
        self.count = first

    def answer(self, environ, start_response):
        body = json.dumps({"visits": self.count}).encode()
        start_response("200 OK", [("Content-Type", "application/json")])
        return [body]


class VisitsLayer:
    """Counts a request and tells its number in a header."""

    def __init__(self, app, visits):
        self.app = app
        self.visits = visits

    def __call__(self, environ, start_response):
        self.visits.count += 1
        number = ("X-Visit", str(self.visits.count))

        def start(status, headers, exc_info=None):
            return start_response(status, [*headers, number], exc_info)

        return self.app(environ, start)


@click.command("visits")
@click.pass_obj
def visits_command(kit):
    """Print the number of visits of this process."""
    click.echo(f"{kit.part_of('visits').count} visits")


class VisitsFeature(Feature):
    name = "visits"
    keys = VisitKeys

    def build(self, kit, keys):
        return Visits(keys.visits_from)

    def layer(self, kit, part, app):
        return VisitsLayer(app, part)

    def endpoints(self, kit, part):
        return {"/visits": part.answer}

    def commands(self):
        return [visits_command]

    def card(self, kit, part):
        return Card("Visits", [("this process", part.count)], empty="Nobody came yet.")

    def metrics(self, kit, part):
        return [Metric("om_visits", "Visits of pages", part.count)]

    def findings(self, kit, part):
        yield Finding("ok", "visits", "Visits are counted.")


@hookimpl
def om_features():
    return [FeatureSpec(VisitsFeature(), after="headers")]
