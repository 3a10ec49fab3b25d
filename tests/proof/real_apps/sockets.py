"""Flask-SocketIO: long polling, WebSocket, and a page whose script talks to both."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flask import Flask, render_template_string, request, session
from flask_socketio import SocketIO, emit, join_room

if TYPE_CHECKING:
    from collections.abc import Callable

PAGES = ("/",)
FILES = ("/socket.js",)
SETTINGS = {}
RISK = "none"

# Engine.IO 4 and Socket.IO 5 in small: https://socket.io/docs/v4/engine-io-protocol/
CLIENT = """
export function connect(transport, heard) {
  let send;
  const take = (packet) => {
    if (packet === "2") send("3");
    else if (packet[0] === "0") { send("40"); heard("open", JSON.parse(packet.slice(1)).upgrades); }
    else if (packet.startsWith("40")) heard("connected");
    else if (packet.startsWith("42")) heard(...JSON.parse(packet.slice(2)));
  };
  if (transport === "websocket") {
    const socket = new WebSocket(`ws://${location.host}/socket.io/?EIO=4&transport=websocket`);
    send = (packet) => socket.send(packet);
    socket.onmessage = ({ data }) => take(data);
    socket.onerror = () => heard("error");
  } else {
    let url = "/socket.io/?EIO=4&transport=polling";
    let sending = Promise.resolve();
    send = (body) => { sending = sending.then(() => fetch(url, { method: "POST", body })); };
    const poll = async () => {
      const answer = await fetch(url);
      if (!answer.ok) return heard("error", answer.status);
      for (const packet of (await answer.text()).split("\\x1e")) {
        if (packet[0] === "0") url += `&sid=${JSON.parse(packet.slice(1)).sid}`;
        take(packet);
      }
      poll();
    };
    poll();
  }
  return (...event) => send("42" + JSON.stringify(event));
}
"""
PAGE = """<!doctype html><title>Chat</title>
<ul id="polling"></ul><ul id="websocket"></ul>
<script type="module">
import { connect } from "/socket.js";
const say = {};
for (const transport of ["polling", "websocket"]) {
  const list = document.getElementById(transport);
  say[transport] = connect(transport, (...event) => {
    const item = document.createElement("li");
    item.textContent = event.join(" ");
    list.append(item);
  });
}
window.say = say;
</script>"""


def build(app: Flask, add_line: Callable[[], object], *, line_first: bool) -> None:
    if line_first:
        add_line()
    sockets = SocketIO(app, async_mode="threading")
    if not line_first:
        add_line()

    @app.get("/")
    def chat():
        session["name"] = "ada"
        return render_template_string(PAGE)

    @app.get("/socket.js")
    def client():
        return CLIENT, {"Content-Type": "text/javascript"}

    @sockets.on("join")
    def join(room):
        join_room(room)
        emit("joined", room)

    @sockets.on("say")
    def say(text):
        emit("said", f"{session['name']}: {text}", to="hall")
        emit("from", request.path)


def visit(tab, url):
    """What both transports bring."""
    tab.goto(url)
    items = {name: tab.locator(f"#{name} li") for name in ("polling", "websocket")}
    for name, heard in items.items():
        heard.get_by_text("connected").or_(
            tab.locator(f"#{name} li:text('connected')")
        ).first.wait_for()
        tab.evaluate(f"say.{name}('join', 'hall')")
        tab.locator(f"#{name} li:text('joined hall')").wait_for()
    tab.evaluate("say.polling('say', 'one')")
    tab.locator("#websocket li:text('said ada: one')").wait_for()
    tab.locator("#polling li:text('from')").wait_for()
    tab.evaluate("say.websocket('say', 'two')")
    tab.locator("#polling li:text('said ada: two')").wait_for()
    tab.locator("#websocket li:text('from')").wait_for()
    return {name: sorted(heard.all_inner_texts()) for name, heard in items.items()}
