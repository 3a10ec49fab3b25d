from __future__ import annotations

import copy
import json
import operator
import pickle
import re
import threading
from collections import ChainMap

import msgspec
import orjson
import pytest
from flask import (
    Flask,
    current_app,
    flash,
    g,
    get_flashed_messages,
    render_template_string,
    request,
    session,
)
from flask.ctx import RequestContext
from flask.globals import request_ctx
from flask.sessions import (
    NullSession,
    SecureCookieSession,
    SecureCookieSessionInterface,
    SessionInterface,
    SessionMixin,
)
from werkzeug.datastructures import CallbackDict
from werkzeug.local import LocalProxy
from werkzeug.routing import BaseConverter

from tests.flask.conftest import NOBODY, Page, Visitor, share, tell_apart

ANN = Visitor(session={"u": "ann"})
BOB = Visitor(session={"u": "bob"})
DARK = Visitor(session={"u": "ann", "theme": "dark"})

user = LocalProxy(lambda: session.get("u"))


def get_itself():
    return session._get_current_object()


def unpack(**values):
    return values


def match(kept):
    match kept:
        case {"u": name}:
            return name
    return "nobody"


ONE_KEY = {
    "get": lambda: session.get("u"),
    "get with a default": lambda: session.get("u", "nobody"),
    "item": lambda: session["u"],
    "of itself": lambda: get_itself().get("u"),
    "of the context": lambda: request_ctx.session["u"],
    "a local proxy of one's own": lambda: str(user),
    "a proxy of the proxy": lambda: LocalProxy(lambda: session)["u"],
    "setdefault": lambda: session.setdefault("u", "nobody"),
    "itemgetter": lambda: operator.itemgetter("u")(session),
    "a bound method": lambda: get_itself().__getitem__("u"),
    "a template": lambda: render_template_string("{{ session.u }}"),
    "an item in a template": lambda: render_template_string("{{ session['u'] }}"),
    "a filter": lambda: render_template_string("{{ session.get('u')|upper }}"),
    "a format": lambda: "{u}".format_map(session),
    "an old format": lambda: "%(u)s" % get_itself(),  # noqa: UP031
    "a chain of maps": lambda: ChainMap({}, session)["u"],
}


@pytest.mark.parametrize("look", ONE_KEY.values(), ids=ONE_KEY)
def test_a_look_at_one_key_keeps_those_apart_who_differ_in_it_and_no_others(look):
    page = tell_apart(look, ANN, BOB)
    assert page.counted == {"session:u"}
    page.ask(DARK)
    assert page.runs == 2


WHOLE = {
    "a pattern": lambda: match(get_itself()),  # it asks for the length as well
    "dict": lambda: dict(session),
    "list": lambda: list(session),
    "sorted items": lambda: sorted(session.items()),
    "values": lambda: list(session.values()),
    "keys": lambda: list(session.keys()),
    "a loop": lambda: [key for key in session],  # noqa: C416
    "reversed": lambda: list(reversed(get_itself())),
    "len": lambda: len(session),
    "unpacked": lambda: unpack(**session),
    "unpacked itself": lambda: {**get_itself()},
    "repr": lambda: repr(session),
    "str of itself": lambda: str(get_itself()),
    "equal": lambda: session == {"u": "ann"},
    "not equal": lambda: session != {"u": "ann"},
    "equal the other way": lambda: get_itself() == {"u": "ann"},
    "not equal the other way": lambda: get_itself() != {"u": "ann"},
    "or": lambda: get_itself() | {},
    "or the other way": lambda: {} | get_itself(),
    "update of another": lambda: [d := {}, d.update(get_itself()), d][2],
    "a copy": lambda: get_itself().copy(),
    "copy.copy": lambda: dict(copy.copy(get_itself())),
    "copy.deepcopy": lambda: dict(copy.deepcopy(get_itself())),
    "json": lambda: json.dumps(get_itself()),
    "json of a dict": lambda: json.dumps(dict(session)),
    "orjson": lambda: orjson.dumps(get_itself()),
    "orjson before a look": lambda: (orjson.dumps(get_itself()), session.get("lang")),
    "orjson after a look": lambda: (session.get("lang"), orjson.dumps(get_itself())),
    "msgspec": lambda: msgspec.json.encode(get_itself()),
    "msgpack": lambda: msgspec.msgpack.encode(dict(get_itself())),
    "the context's own, in C": lambda: orjson.dumps(request_ctx.session),
    "a template": lambda: render_template_string(
        "{% for name, value in session.items() %}{{ name }}{{ value }}{% endfor %}"
    ),
    "a filter": lambda: render_template_string("{{ session.items()|list }}"),
}


if not isinstance(getattr(RequestContext, "session", None), property):  # Flask < 3.1.3
    # what C code reads of the session itself cannot be seen there
    WHOLE = {name: look for name, look in WHOLE.items() if not re.search("orjson|msgspec|C", name)}


@pytest.mark.parametrize("look", WHOLE.values(), ids=WHOLE)
def test_a_look_at_all_of_the_session_keeps_all_sessions_apart(look):
    page = tell_apart(look, ANN, Visitor(session={"u": "ann", "v": "x"})
                      if look is WHOLE["values"] or look is WHOLE["len"] else
                      Visitor(session={"w": "bob"}))  # fmt: skip
    assert "session" in page.counted
    before = page.runs
    page.ask(DARK)
    page.ask(DARK)
    assert page.runs == before + 1


def test_a_pickled_session_is_looked_at_as_a_whole():
    page = Page(lambda: pickle.loads(pickle.dumps(get_itself())))
    for visitor in (ANN, BOB, ANN):  # where nobody observes it, it cannot be pickled
        assert page.request(visitor).text == str(dict(visitor.session))
    assert page.counted == {"session"}


@pytest.mark.parametrize(
    "look",
    [
        lambda: "u" in session,
        lambda: "u" not in session,
        lambda: session.get("u") is None,
        lambda: session.pop("u", None) is None,
        lambda: render_template_string("{{ 'u' in session }}"),
    ],
)
def test_an_absent_key_is_a_value_of_its_own(look):
    page = Page(look)
    for visitor in (NOBODY, ANN, NOBODY, ANN):
        page.ask(visitor)
    assert page.counted == {"session:u"}


@pytest.mark.parametrize(
    "look",
    [
        lambda: bool(session),
        lambda: not session,
        lambda: "in" if session else "out",
        lambda: render_template_string("{% if session %}in{% else %}out{% endif %}"),
    ],
)
def test_whether_the_session_is_empty_is_an_input_of_its_own(look):
    page = tell_apart(look, ANN, NOBODY)
    assert page.counted == {"session?"}
    page.ask(BOB)
    assert page.runs == 2


@pytest.mark.parametrize(
    "content",
    [
        {"u": "ann"},
        {"u": "ann", "seen": [1, 2]},
        {"theme": "dark", "cart": {"a": 1}},
        {"_flashes": [("message", "hello")]},
    ],
)
def test_sessions_that_nobody_looks_at_share_a_page(content):
    share(lambda: "page", NOBODY, Visitor(session=content), ANN, NOBODY)


# --- changes ------------------------------------------------------------------------------------

SAME = {
    "permanent": lambda: setattr(session, "permanent", True),
    "item": lambda: session.__setitem__("u", "ann"),
    "after a look": lambda: [session["u"], session.__setitem__("u", session["u"])],
    "setdefault": lambda: session.setdefault("u", "other"),
    "pop of none": lambda: session.pop("none", None),
}


@pytest.mark.parametrize("change", SAME.values(), ids=SAME)
def test_the_same_value_set_again_is_no_change(change):
    page = Page(lambda: f"{change() and ''}{session.get('u')}")
    visitor = Visitor(session={"u": "ann", "_permanent": True})
    for _ in range(3):
        page.ask(visitor)
    assert page.runs == 1


def test_a_visitor_without_the_value_that_is_set_gets_his_session():
    page = Page(lambda: session.__setitem__("u", "ann") or "page")
    for visitor in (Visitor(session={"u": "ann"}), Visitor(session={"u": "ann"})):
        assert page.ask(visitor) == "page"
    assert page.runs == 1
    assert "Set-Cookie" in page.request(NOBODY).headers


def test_an_app_that_makes_all_sessions_permanent_keeps_its_pages():
    def setup(app):
        app.before_request(lambda: setattr(session, "permanent", True))

    page = Page(lambda: "page", setup=setup)
    for _ in range(3):
        page.ask(NOBODY)
    assert page.runs == 3  # each is a newcomer, who gets a cookie
    for name in ("ann", "bob", "ann"):
        page.ask(Visitor(session={"u": name, "_permanent": True}))
    assert page.runs == 4


@pytest.mark.parametrize(
    "change",
    [
        lambda: session["cart"].append(1) or session.__setitem__("cart", session["cart"]),
        lambda: dict(session)["cart"].append(1) or session.__setitem__("cart", session["cart"]),
        lambda: [
            cart := list(session.values())[-1],
            cart.append(1),
            session.__setitem__("cart", cart),
        ],
        lambda: session.__setitem__("u", True),
        lambda: session.__setitem__("u", 1.0),
    ],
)
def test_a_value_that_was_changed_in_its_place_is_a_change(change):
    page = Page(lambda: str(change()) + str(session["cart"]))
    for _ in range(3):
        page.ask(Visitor(session={"u": 1, "cart": []}))
    assert page.runs == 3
    assert page.purge() == 0


CHANGES = {
    "item": lambda: session.__setitem__("seen", 1),
    "update": lambda: session.update(seen=1),
    "or": lambda: operator.ior(get_itself(), {"seen": 1}),
    "setdefault": lambda: session.setdefault("seen", 1),
    "permanent": lambda: setattr(session, "permanent", True),
    "modified": lambda: setattr(session, "modified", True),
    "in place": lambda: [session.get("cart", []), setattr(session, "modified", True)],
    "flash": lambda: flash("hello"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("where", ["view", "before", "after"])
def test_a_request_that_changes_the_session_keeps_nothing(change, where):
    def do(response=None):
        change()
        return response

    def setup(app):
        if where == "before":
            app.before_request(do)
        elif where == "after":
            app.after_request(do)

    page = Page(lambda: do() if where == "view" else "x", setup=setup)
    for _ in range(3):
        page.ask(NOBODY)
    assert page.runs == 3
    assert page.purge() == 0


@pytest.mark.parametrize(
    "change",
    [
        lambda: session.pop("u"),
        lambda: session.clear(),
        lambda: session.popitem(),
        lambda: session.__delitem__("u"),
    ],
)
def test_a_request_that_takes_from_the_session_keeps_nothing(change):
    page = Page(lambda: str(change()))
    for _ in range(3):
        page.ask(ANN)
    assert page.runs == 3
    assert page.purge() == 0


def test_who_changed_the_session_in_a_hook_is_not_answered_from_the_store():
    def setup(app):
        @app.before_request
        def welcome():
            if "u" in session and "token" not in session:
                session["token"] = f"token of {session['u']}"

    page = Page(lambda: session.get("token", "no token"), setup=setup)
    for visitor in (NOBODY, ANN, BOB, NOBODY, ANN):
        page.ask(visitor)
    assert page.runs == 4  # the anonymous page is kept


def test_a_newcomers_token_never_reaches_a_second_one():
    tokens = iter(range(100))

    def token():
        if "token" not in session:
            session["token"] = next(tokens)
        return session["token"]

    page = Page(lambda: render_template_string("{{ token() }}", token=token))
    newcomers = [page.request(NOBODY).text for _ in range(5)]
    assert len(set(newcomers)) == 5
    client, path = page.app.test_client(), f"/{page.number}/page"
    own = client.get(path).text
    assert [client.get(path).text for _ in range(2)] == [own] * 2


def test_a_renewed_session_is_no_changed_session():
    page = Page(lambda: session["u"])
    visitor = Visitor(session={"u": "ann", "_permanent": True})
    for _ in range(3):
        assert "Set-Cookie" in page.request(visitor).headers
    assert page.runs == 1


def test_flashed_messages_reach_only_whom_they_are_for():
    page = Page(lambda: get_flashed_messages())
    flashed = Visitor(session={"_flashes": [("message", "secret")]})
    for visitor in (flashed, NOBODY, ANN, flashed, NOBODY):
        page.ask(visitor)
    assert page.runs == 3  # those without messages share one page


# --- values -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, "1"), (1, True), (0, None), ("", None), (0, False), (1, 1.0), ([1], [1, 1]), ([], {}),
        ({"a": 1}, {"a": 2}), ((1, 2), [1, 2]), ("ä", "a\u0308"), (b"x", "x"),
    ],
)  # fmt: skip
def test_values_of_another_type_are_other_values(one, other):
    tell_apart(
        lambda: repr(session.get("u", "none")),
        Visitor(session={"u": one}),
        Visitor(session={"u": other}),
    )


def test_a_key_that_is_no_text_is_a_look_at_everything():
    page = tell_apart(lambda: (session.get(7), session.get("u"))[1], ANN, BOB)
    assert "session" in page.counted


# --- sessions of other kinds --------------------------------------------------------------------


class StoredSession(CallbackDict, SessionMixin):
    """As the session of the pattern for stored sessions."""

    def __init__(self, initial=None, sid=None, *, new=False):
        def on_update(self):
            self.modified = True

        super().__init__(initial, on_update)
        self.sid = sid
        self.new = new
        self.modified = False


class MappingSession(SessionMixin):
    """A session that is no dict."""

    modified = False

    def __init__(self, values):
        self._values = dict(values)

    def __getitem__(self, key):
        return self._values[key]

    def __setitem__(self, key, value):
        self._values[key] = value
        self.modified = True

    def __delitem__(self, key):
        del self._values[key]
        self.modified = True

    def __iter__(self):
        return iter(self._values)

    def __len__(self):
        return len(self._values)


class SlottedSession(dict, SessionMixin):
    """A dict with a layout of its own, whose class cannot be changed."""

    __slots__ = ("extra",)
    modified = False
    accessed = False


class OwnSession(SecureCookieSession):
    @property
    def name(self):
        return self.get("u", "nobody")


def stored(make):
    """Return a Flask class whose sessions ``make(values, sid)`` makes."""
    values = {"1": {"u": "ann"}, "2": {"u": "bob"}, "3": {"u": "ann", "theme": "dark"}}

    class Interface(SessionInterface):
        def open_session(self, app, request):
            sid = request.cookies.get("sid")
            return make(values.get(sid, {}), sid)

        def save_session(self, app, session, response):
            if session.modified:
                response.set_cookie("sid", "changed")

    class Site(Flask):
        session_interface = Interface()

    return Site


KNOWN = {"OM_CACHE_READERS": [f"{__name__}:open_session"]}
"""Says that the interface above keeps to itself what it looks at."""
FIRST, SECOND, THIRD = (Visitor(cookies={"sid": sid}) for sid in "123")


@pytest.mark.parametrize(
    "look",
    [lambda: session.get("u"), lambda: dict(session), lambda: json.dumps(dict(session.items()))],
)
@pytest.mark.parametrize(
    "make",
    [
        lambda values, sid: StoredSession(values, sid),
        lambda values, sid: MappingSession(values),
        lambda values, sid: SlottedSession(values),
        lambda values, sid: OwnSession(values),
    ],
    ids=["stored", "no dict", "slots", "subclass"],
)
def test_sessions_of_any_class_are_compared(make, look):
    tell_apart(look, FIRST, SECOND, flask_class=stored(make))


def test_a_stored_session_is_compared_by_key_and_its_id_only_when_code_looks_at_it():
    site = stored(lambda values, sid: StoredSession(values, sid))
    share(lambda: session.get("u"), FIRST, THIRD, flask_class=site, config=KNOWN)
    page = tell_apart(lambda: session.sid, FIRST, THIRD, flask_class=site, config=KNOWN)
    assert page.counted == {"session"}


def test_what_the_applications_own_interface_reads_counts_unless_a_setting_names_it():
    site = stored(lambda values, sid: StoredSession(values, sid))
    page = tell_apart(lambda: f"{session.get('u')} {session.sid}", FIRST, THIRD, flask_class=site)
    assert page.counted == {"cookie:sid", "session:u", "session"}
    page = Page(lambda: "x", flask_class=site)
    for visitor in (FIRST, SECOND, FIRST):
        page.ask(visitor)
    assert page.runs == 2


def test_what_an_interface_puts_into_g_is_compared():
    class Interface(SecureCookieSessionInterface):
        def open_session(self, app, request):
            g.user = request.cookies.get("u")
            return super().open_session(app, request)

    class Site(Flask):
        session_interface = Interface()

    page = tell_apart(
        lambda: g.user, *(Visitor(cookies={"u": n}) for n in ("ann", "bob")), flask_class=Site
    )
    assert page.counted == {"cookie:u"}


@pytest.mark.parametrize("look", [lambda: request.cookies["u"], lambda: request.headers["X-User"]])
def test_what_a_converter_of_the_url_reads_is_compared(look):
    class Converter(BaseConverter):
        def to_python(self, value):
            return f"{value} of {look()}"

    def setup(app):
        app.url_map.converters["own"] = Converter

    visitors = [
        Visitor(cookies={"u": name}, headers={"X-User": name}, path="/page/1")
        for name in ("ann", "bob")
    ]
    tell_apart(lambda item: item, *visitors, setup=setup, route="/page/<own:item>")


def test_what_a_session_class_makes_of_its_keys_is_seen():
    site = stored(lambda values, sid: OwnSession(values))
    page = tell_apart(lambda: session.name, FIRST, SECOND, flask_class=site, config=KNOWN)
    assert page.counted == {"session", "session:u"}  # it could look without a look that is seen


def test_a_member_of_a_session_class_that_looks_unseen_counts_as_a_look_at_all():
    class Hidden(SecureCookieSession):
        @property
        def name(self):
            return super().get("u")

        def read_name(self):
            return dict.get(self, "u")

        def __getattr__(self, name):
            return dict.get(self, name.removesuffix("_"))

    for look in (
        lambda: session.name,
        lambda: session.read_name(),
        lambda: session.u_,
    ):
        site = stored(lambda values, sid: Hidden(values))
        tell_apart(look, FIRST, SECOND, flask_class=site, config=KNOWN)


def test_a_session_that_code_opens_itself_is_a_look_at_its_cookie():
    page = tell_apart(
        lambda: current_app.session_interface.open_session(current_app, request).get("u"),
        ANN,
        BOB,
    )
    assert page.counted == {"cookie:session"}


def test_the_session_of_a_context_inside_of_the_request_is_seen():
    def body():
        with current_app.request_context(request.environ):
            return session.get("u")

    tell_apart(body, ANN, BOB)


def test_whether_a_stored_session_is_new_is_an_input():
    site = stored(lambda values, sid: StoredSession(values, sid, new=sid is None))
    tell_apart(lambda: "welcome" if session.new else "back", NOBODY, FIRST, flask_class=site)


def test_an_attribute_of_the_session_that_is_written_is_a_change():
    site = stored(lambda values, sid: StoredSession(values, sid))
    page = Page(lambda: setattr(session, "sid", "9") or "x", flask_class=site)
    for _ in range(3):
        page.ask(FIRST)
    assert page.runs == 3


@pytest.mark.parametrize("kind", [StoredSession, OwnSession])
def test_one_object_that_serves_several_requests_is_one_input(kind):
    one = kind({"u": "ann"})
    page = Page(lambda: session.get("u"), flask_class=stored(lambda values, sid: one))
    page.ask(NOBODY)
    page.ask(NOBODY)
    one["u"] = "bob"
    one.modified = False
    assert page.ask(NOBODY) == "bob"
    assert "session" in page.counted


def test_without_a_secret_key_pages_are_kept_and_the_session_can_be_read():
    page = share(lambda: session.get("u"), NOBODY, NOBODY, secret_key=None)
    assert page.counted == {"session:u"}


def test_without_a_secret_key_a_change_fails_as_before():
    page = Page(lambda: session.update(a=1), secret_key=None)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="no secret key"):
            page.request(NOBODY)
    assert page.purge() == 0


def test_the_session_keeps_its_type_and_answers_as_before():
    def body():
        found = get_itself()
        return (
            isinstance(found, SecureCookieSession), type(found).__name__, isinstance(found, dict),
            found.new, found.permanent, found.modified, len(found), "x" in found,
            isinstance(found, NullSession), type(copy.copy(found)).__name__ == type(found).__name__,
        )  # fmt: skip

    Page(body).ask(ANN)


def test_a_session_whose_own_methods_note_the_access_is_compared_by_key():
    class NotingSession(SecureCookieSession):  # as Flask's until 3.1.2, and Flask-Session's
        def get(self, key, default=None):
            self.accessed = True
            return super().get(key, default)

    page = share(
        lambda: session.get("u"),
        FIRST,
        THIRD,
        flask_class=stored(lambda values, sid: NotingSession(values)),
        config=KNOWN,
    )
    assert page.counted == {"session:u"}


def test_what_another_thread_looks_at_is_seen():
    def body():
        kept, found = get_itself(), []
        thread = threading.Thread(target=lambda: found.append(kept.get("u")))
        thread.start()
        thread.join()
        return found

    page = tell_apart(body, ANN, BOB)
    assert page.counted == {"session:u"}


def test_the_interface_of_a_subclass_of_flasks_own_is_known():
    class Interface(SecureCookieSessionInterface):
        session_class = OwnSession

    class Site(Flask):
        session_interface = Interface()

    page = tell_apart(lambda: session.name, ANN, BOB, flask_class=Site)
    assert page.counted == {"session", "session:u"}
