"""A dashboard built in Python: Dash writes the page, its settings and its start script itself."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from dash import Dash, Input, Output, dcc, html
from flask import Flask
from playwright.sync_api import expect

if TYPE_CHECKING:
    from collections.abc import Callable

PAGES = ("/dash/", "/dash/_dash-layout", "/dash/_dash-dependencies")
FILES = ("/dash/assets/none.css",)
SETTINGS = {"OM_CSP_HTML_NONCES": ["/dash/*"]}
RISK = "medium"  # its scripts write <style> elements


def build(app: Flask, add_line: Callable[[], object], *, line_first: bool) -> None:
    if line_first:
        add_line()
    board = Dash(__name__, server=app, url_base_pathname="/dash/")
    if not line_first:
        add_line()
    board.layout = html.Div(
        [
            html.H1("Sales"),
            dcc.Input(id="name", value="ada", debounce=False),
            dcc.Dropdown(["north", "south"], "north", id="region", searchable=False),
            html.Button("More", id="more"),
            html.P(id="shown"),
            html.P(id="clicks"),
            dcc.Graph(id="graph"),
        ]
    )

    @board.callback(Output("shown", "children"), Input("name", "value"), Input("region", "value"))
    def show(name, region):
        return f"{name} sells in the {region}"

    @board.callback(Output("graph", "figure"), Input("region", "value"))
    def draw(region):
        return {"data": [{"y": [1, 2, 3], "type": "bar"}], "layout": {"title": {"text": region}}}

    board.clientside_callback(
        "function (clicks) { return `${clicks || 0} clicks`; }",
        Output("clicks", "children"),
        Input("more", "n_clicks"),
    )


def scrub(page: str) -> str:
    """Each page of Dash has a random id."""
    return re.sub(r'"end_id":"[^"]*"', "", page)


def visit(tab, url):
    """What a reader of the dashboard sees."""
    seen = {}
    tab.goto(f"{url}/dash/")
    shown, clicks = tab.locator("#shown"), tab.locator("#clicks")
    tab.get_by_text("ada sells in the north").wait_for()
    expect(tab).to_have_title("Dash", timeout=20_000)  # "Updating…" until then
    seen["begin"] = (shown.inner_text(), clicks.inner_text())
    tab.locator("#name").fill("grace")
    tab.get_by_text("grace sells in the north").wait_for()
    seen["typed"] = shown.inner_text()
    tab.locator("#more").click()
    tab.get_by_text("1 clicks").wait_for()
    seen["clicked"] = clicks.inner_text()
    tab.locator("#region").click()
    tab.get_by_role("option", name="south").or_(tab.get_by_text("south", exact=True)).first.click()
    tab.get_by_text("grace sells in the south").wait_for()
    title = tab.locator("#graph .gtitle:text-is('south')")
    title.wait_for()
    seen["graph"] = (
        title.text_content(),
        tab.locator("#graph .bars .point").count(),
        tab.locator("#graph svg.main-svg").first.evaluate("e => getComputedStyle(e).position"),
    )
    return seen
