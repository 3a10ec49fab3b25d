"""The pages, the JSON that they poll, and the buttons of the fault panel."""

from __future__ import annotations

import ipaddress
import threading
from dataclasses import asdict

from flask import Blueprint, g, jsonify, make_response, render_template, request, url_for
from werkzeug.exceptions import Forbidden, HTTPException, NotFound, SecurityError
from werkzeug.utils import redirect
from werkzeug.wrappers import Request, Response

from .config import DemoConfig
from .drills import DRILLS, Drills
from .faults import ACTIONS, Faults
from .language import language_of
from .notices import Notices
from .panels import NAMES as PANELS
from .panels import Panels
from .questions.examples import EXAMPLES, TALKS
from .questions.query import Language
from .supervisor import Supervisor
from .timeline import Timeline
from .words import LANGUAGES, WORDS

__all__ = ["from_this_machine", "make_blueprint", "same_origin"]

_YEAR_S = 365 * 86400


def make_blueprint(
    config: DemoConfig,
    supervisor: Supervisor,
    faults: Faults,
    panels: Panels,
    drills: Drills,
    notices: Notices,
    timeline: Timeline,
) -> Blueprint:
    """The demo's views.

    Args:
        config: the demo's settings.
        supervisor: starts the analyst with the first request, when it never ran.
        faults: the fault panel.
        panels: the readings.
        drills: trouble until recovery begins.
        notices: tells everyone that a version is live.
        timeline: what just happened.
    """
    views = Blueprint("demo", __name__)
    first = threading.Event()

    @views.before_app_request
    def guard() -> None:
        if not from_this_machine(request):
            raise Forbidden
        g.language = language_of(request)
        if not first.is_set():
            first.set()
            if config.start_analyst and not config.llm_url and supervisor.status() == "never":
                supervisor.start()

    @views.app_context_processor
    def words() -> dict[str, object]:
        language: Language = g.get("language", "en")
        return {"w": WORDS[language], "language": language, "languages": LANGUAGES}

    @views.get("/")
    def overview() -> Response:
        page = render_template(
            "overview.html",
            initial={**_status(faults, panels, timeline), "note": panels.note()},
            examples=_chips(g.language),
            actions=_fault_rows(),
            drills=_drill_rows(),
        )
        return _remember_language(make_response(page))

    @views.get("/questions")
    def questions() -> Response:
        page = render_template(
            "questions.html", examples=EXAMPLES[g.language], talks=TALKS[g.language]
        )
        return _remember_language(make_response(page))

    @views.get("/api/status")
    def status() -> Response:
        whole = _status(faults, panels, timeline)
        if request.args.get("panels") == "0":  # the page asks for each of them by itself
            del whole["panels"]
        response = jsonify(whole)
        response.headers["Cache-Control"] = "no-store"
        return response

    @views.get("/api/panels/<name>")
    def panel(name: str) -> Response:
        if name not in PANELS:
            raise NotFound
        found = panels.read(name)
        del found["age_s"]  # or no answer would be like another
        return _tagged(jsonify(found))

    @views.get("/api/note")
    def note() -> Response:
        return _tagged(jsonify(panels.note()))

    @views.post("/note")
    def write_note() -> Response:
        if not same_origin(request):
            raise Forbidden
        panels.write_note(request.form.get("note", ""))
        return _done(faults, done=True)

    @views.post("/faults/<action>")
    def fault(action: str) -> Response:
        if not same_origin(request):
            raise Forbidden
        if action not in ACTIONS:
            raise NotFound
        return _done(faults, done=faults.do(action))

    @views.post("/drills/<name>")
    def drill(name: str) -> Response:
        if not same_origin(request):
            raise Forbidden
        if name not in DRILLS:
            raise NotFound
        rests_s = drills.do(name)
        return _done(faults, done=rests_s is not None, rests_s=round(rests_s or 0.0))

    @views.post("/repair")
    def repair() -> Response:
        if not same_origin(request):
            raise Forbidden
        return _done(faults, done=drills.repair(request.headers.get("Cookie", "")))

    @views.post("/announce")
    def announce() -> Response:
        if not same_origin(request):
            raise Forbidden
        notices.version_is_live(g.language)
        return _done(faults, done=True)

    @views.app_errorhandler(HTTPException)
    def explain(error: HTTPException) -> tuple[str, int] | HTTPException:
        if error.code is None or error.code < 400 or isinstance(error, SecurityError):
            return error  # for a host that is not trusted, no address can be made
        word = {404: "not_found", 403: "forbidden"}.get(error.code, "error")
        return render_template("error.html", code=error.code, word=word), error.code

    return views


def _status(faults: Faults, panels: Panels, timeline: Timeline) -> dict[str, object]:
    return {
        "panels": panels.all(),
        "faults": asdict(faults.state()),
        "timeline": timeline.recent(g.language),
    }


def _tagged(response: Response) -> Response:
    """A response that a page may ask for again by its entity tag."""
    response.headers["Cache-Control"] = "private, no-cache"
    response.add_etag()
    return response.make_conditional(request.environ)


def _done(faults: Faults, **told: object) -> Response:
    """What a button's script is told; without a script the page is shown again."""
    if request.accept_mimetypes.best_match(["text/html", "application/json"]) == "text/html":
        return redirect(url_for("demo.overview"), 303)
    response = jsonify({**told, "faults": asdict(faults.state())})
    response.headers["Cache-Control"] = "no-store"
    return response


def _chips(language: Language) -> list[str]:
    return [EXAMPLES[language][i] for i in (0, 3, 14)] + list(TALKS[language][:1])


def _fault_rows() -> list[dict[str, str]]:
    """Each fault with the action that causes it, the one that ends it, and their words."""
    return [
        {"name": "analyst", "break": "stop", "mend": "start", "do": "stop", "undo": "start"},
        {"name": "slow", "break": "slow", "mend": "hurry", "do": "turn_on", "undo": "turn_off"},
        {"name": "garble", "break": "garble", "mend": "ungarble", "do": "turn_on",
         "undo": "turn_off"},
        {"name": "analysis", "break": "break-analysis", "mend": "mend-analysis", "do": "break",
         "undo": "mend"},
        {"name": "disk", "break": "break-disk", "mend": "mend-disk", "do": "break",
         "undo": "mend"},
    ]  # fmt: skip


def _drill_rows() -> list[dict[str, str]]:
    """Each button of the drills: its words and where it is sent."""
    return [{"name": name, "address": url_for("demo.drill", name=name)} for name in DRILLS] + [
        {"name": "repair", "address": url_for("demo.repair")},
        {"name": "announce", "address": url_for("demo.announce")},
    ]


def _remember_language(response: Response) -> Response:
    if request.args.get("lang") in LANGUAGES:
        response.set_cookie("lang", g.language, max_age=_YEAR_S, httponly=True, samesite="Lax")
    response.headers["Cache-Control"] = "no-store"
    response.headers["Vary"] = "Accept-Language, Cookie"
    return response


def from_this_machine(incoming: Request) -> bool:
    """Who may look, ask the assistant and open the console: whoever sits at this machine."""
    try:
        return ipaddress.ip_address(incoming.remote_addr or "").is_loopback
    except ValueError:
        return False


def same_origin(incoming: Request) -> bool:
    """Whether a request comes from the demo's own pages, or from no browser at all.

    Browsers say where a request comes from in ``Sec-Fetch-Site``, older ones in ``Origin``; a
    program that sends neither could send anything, and has no cookies of somebody else.
    """
    site = incoming.headers.get("Sec-Fetch-Site")
    if site is not None:
        return site == "same-origin"
    origin = incoming.headers.get("Origin")
    return origin is None or origin == f"{incoming.scheme}://{incoming.host}"
