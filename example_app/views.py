"""The pages, the JSON that they poll, and the endpoints of the buttons."""

from __future__ import annotations

import ipaddress
import threading
from dataclasses import asdict

from flask import Blueprint, g, jsonify, make_response, render_template, request, url_for
from werkzeug.exceptions import Forbidden, HTTPException, NotFound, SecurityError
from werkzeug.utils import redirect
from werkzeug.wrappers import Request, Response

from .config import DemoConfig
from .fault_injection import ACTIONS, FaultInjector
from .language import find_language
from .notifications import DemoNotifier
from .panels import PANELS, Panels
from .questions.examples import CONVERSATIONS, EXAMPLES
from .questions.query import Language
from .scenarios import SCENARIOS, FailureScenarios
from .supervisor import Supervisor
from .timeline import Timeline
from .translations import LANGUAGES, TRANSLATIONS

__all__ = ["is_from_this_machine", "is_same_origin", "make_blueprint"]

_YEAR_S = 365 * 86400


def make_blueprint(
    config: DemoConfig,
    supervisor: Supervisor,
    faults: FaultInjector,
    panels: Panels,
    scenarios: FailureScenarios,
    notifier: DemoNotifier,
    timeline: Timeline,
) -> Blueprint:
    """Make the demo's views.

    Args:
        config: the demo's settings.
        supervisor: starts the analyst at the first request, when it never ran.
        faults: the actions of the fault panel.
        panels: the readings.
        scenarios: failures until recovery begins.
        notifier: tells all browsers that a version is live.
        timeline: the newest events.
    """
    views = Blueprint("demo", __name__)
    first = threading.Event()

    @views.before_app_request
    def guard() -> None:
        if not is_from_this_machine(request):
            raise Forbidden
        g.language = find_language(request)
        if not first.is_set():
            first.set()
            if config.start_analyst and not config.llm_url and supervisor.status() == "never":
                supervisor.start()

    @views.app_context_processor
    def add_texts() -> dict[str, object]:
        language: Language = g.get("language", "en")
        return {"w": TRANSLATIONS[language], "language": language, "languages": LANGUAGES}

    @views.get("/")
    def overview() -> Response:
        page = render_template(
            "overview.html",
            initial={**_read_status(faults, panels, timeline), "note": panels.read_note()},
            examples=_choose_examples(g.language),
            actions=_list_faults(),
            scenarios=_list_scenarios(),
        )
        return _remember_language(make_response(page))

    @views.get("/questions")
    def questions() -> Response:
        page = render_template(
            "questions.html", examples=EXAMPLES[g.language], talks=CONVERSATIONS[g.language]
        )
        return _remember_language(make_response(page))

    @views.get("/api/status")
    def status() -> Response:
        whole = _read_status(faults, panels, timeline)
        if request.args.get("panels") == "0":  # the page polls each panel by itself
            del whole["panels"]
        response = jsonify(whole)
        response.headers["Cache-Control"] = "no-store"
        return response

    @views.get("/api/panels/<name>")
    def panel(name: str) -> Response:
        if name not in PANELS:
            raise NotFound
        found = panels.read(name)
        del found["age_s"]  # it changes each time, and the entity tag with it
        return _add_etag(jsonify(found))

    @views.get("/api/note")
    def note() -> Response:
        return _add_etag(jsonify(panels.read_note()))

    @views.post("/note")
    def write_note() -> Response:
        if not is_same_origin(request):
            raise Forbidden
        panels.write_note(request.form.get("note", ""))
        return _reply(faults, done=True)

    @views.post("/faults/<action>")
    def fault(action: str) -> Response:
        if not is_same_origin(request):
            raise Forbidden
        if action not in ACTIONS:
            raise NotFound
        return _reply(faults, done=faults.apply(action))

    @views.post("/scenarios/<name>")
    def run_scenario(name: str) -> Response:
        if not is_same_origin(request):
            raise Forbidden
        if name not in SCENARIOS:
            raise NotFound
        cooldown_s = scenarios.run(name)
        return _reply(faults, done=cooldown_s is not None, cooldown_s=round(cooldown_s or 0.0))

    @views.post("/repair")
    def repair() -> Response:
        if not is_same_origin(request):
            raise Forbidden
        return _reply(faults, done=scenarios.repair(request.headers.get("Cookie", "")))

    @views.post("/announce")
    def announce() -> Response:
        if not is_same_origin(request):
            raise Forbidden
        notifier.announce_version(g.language)
        return _reply(faults, done=True)

    @views.app_errorhandler(HTTPException)
    def explain(error: HTTPException) -> tuple[str, int] | HTTPException:
        if error.code is None or error.code < 400 or isinstance(error, SecurityError):
            return error  # url_for fails for a host that is not trusted
        word = {404: "not_found", 403: "forbidden"}.get(error.code, "error")
        return render_template("error.html", code=error.code, word=word), error.code

    return views


def _read_status(faults: FaultInjector, panels: Panels, timeline: Timeline) -> dict[str, object]:
    return {
        "panels": panels.read_all(),
        "faults": asdict(faults.read_state()),
        "timeline": timeline.list_recent(g.language),
    }


def _add_etag(response: Response) -> Response:
    """Add an entity tag, so that a page gets a 304 when nothing changed."""
    response.headers["Cache-Control"] = "private, no-cache"
    response.add_etag()
    return response.make_conditional(request.environ)


def _reply(faults: FaultInjector, **values: object) -> Response:
    """Answer a button: JSON for the page's script, a redirect to the page without a script."""
    if request.accept_mimetypes.best_match(["text/html", "application/json"]) == "text/html":
        return redirect(url_for("demo.overview"), 303)
    response = jsonify({**values, "faults": asdict(faults.read_state())})
    response.headers["Cache-Control"] = "no-store"
    return response


def _choose_examples(language: Language) -> list[str]:
    return [EXAMPLES[language][i] for i in (0, 3, 14)] + list(CONVERSATIONS[language][:1])


def _list_faults() -> list[dict[str, str]]:
    """Return each fault with the actions that start and end it, and the keys of their labels."""
    return [
        {"name": "analyst", "break": "stop", "fix": "start", "do": "stop", "undo": "start"},
        {"name": "slow", "break": "slow", "fix": "unslow", "do": "turn_on", "undo": "turn_off"},
        {"name": "garble", "break": "garble", "fix": "ungarble", "do": "turn_on",
         "undo": "turn_off"},
        {"name": "analysis", "break": "break-analysis", "fix": "fix-analysis", "do": "break",
         "undo": "fix"},
        {"name": "disk", "break": "break-disk", "fix": "fix-disk", "do": "break",
         "undo": "fix"},
    ]  # fmt: skip


def _list_scenarios() -> list[dict[str, str]]:
    """Return the buttons of the scenarios: the key of each label and its address."""
    return [
        {"name": name, "address": url_for("demo.run_scenario", name=name)} for name in SCENARIOS
    ] + [
        {"name": "repair", "address": url_for("demo.repair")},
        {"name": "announce", "address": url_for("demo.announce")},
    ]


def _remember_language(response: Response) -> Response:
    if request.args.get("lang") in LANGUAGES:
        response.set_cookie("lang", g.language, max_age=_YEAR_S, httponly=True, samesite="Lax")
    response.headers["Cache-Control"] = "no-store"
    response.headers["Vary"] = "Accept-Language, Cookie"
    return response


def is_from_this_machine(incoming: Request) -> bool:
    """Return whether a request comes from this machine: others get no page and no console."""
    try:
        return ipaddress.ip_address(incoming.remote_addr or "").is_loopback
    except ValueError:
        return False


def is_same_origin(incoming: Request) -> bool:
    """Return whether a request comes from the demo's own pages, or not from a browser.

    Browsers name the origin of a request in ``Sec-Fetch-Site``, older ones in ``Origin``. A program
    that sends neither could send any header, and it does not have the cookies of another user.
    """
    site = incoming.headers.get("Sec-Fetch-Site")
    if site is not None:
        return site == "same-origin"
    origin = incoming.headers.get("Origin")
    return origin is None or origin == f"{incoming.scheme}://{incoming.host}"
