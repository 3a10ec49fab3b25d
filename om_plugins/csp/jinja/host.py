"""The functions that the templates of an environment call: the host of the inserted statements.

Inserted statements, ``csp_nonce()``, ``om_head()`` and ``|om_trusted`` find the current response
here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from jinja2 import pass_context
from markupsafe import Markup

from ...core.request_state import KEY, RequestState, state_of
from ..hashes import OWN, note_hash
from ..html.attributes import find_attribute, has_nonce, put_nonce
from ..html.document import add_nonces
from ..nonce import NonceWatch, note_question, tag_nonce
from .modules import HOST, make_fresh_at_first

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment
    from jinja2 import Environment
    from jinja2.runtime import Context

# with a space in it, no author can write it
FILTER = "om nonce filter"
"""The name of the filter that completes the attributes of a tag."""


class NonceVariable:
    """``csp_nonce`` in templates: ``csp_nonce()`` is this response's nonce.

    Templates that were written for another package may ask whether there is a variable of this name
    and print it: ``{% if csp_nonce %} nonce="{{ csp_nonce }}"{% endif %}``. As a text it is the
    nonce of a tag whose author wrote none. Where such a tag stays as it is, it is "" and false.

    Args:
        find_state: returns the state of the request, ``None`` outside of one.
    """

    __slots__ = ("_find_state",)

    def __init__(self, find_state: Callable[[], RequestState | None]) -> None:
        self._find_state = find_state

    def __call__(self) -> str:
        state = self._find_state()
        return "" if state is None else state.nonce_for_page()

    def __str__(self) -> str:
        state = self._find_state()
        return (None if state is None else tag_nonce(state)) or ""

    def __html__(self) -> str:
        return str(self)

    def __bool__(self) -> bool:
        return bool(str(self))


@dataclass(slots=True)
class TemplateHost:
    """The functions that templates call: by the inserted statements, and as globals."""

    environ: Callable[[], WSGIEnvironment | None] = lambda: None
    owner: object = None
    head: Callable[..., str] = lambda environ, **parts: ""
    plain: Callable[[], bool | None] = lambda: None
    trusted: bool = True
    hashes: bool = False
    attributes: bool = False
    questions: bool = False
    installed: bool = False
    csp_nonce: NonceVariable = field(init=False, repr=False)
    join: ClassVar = "".join
    """Puts a text and what inserted calls return in the middle of it together."""

    def __post_init__(self) -> None:
        self.csp_nonce = NonceVariable(self._state)

    def attribute(self, quote: str = '"') -> str:
        """Return the nonce attribute with a space before it; "" for a tag that stays as it is."""
        environ = self.environ()
        if environ is None:  # a mail or a job has no header
            return ""
        state = environ.get(KEY)
        if state is None or state.owner is not self.owner:
            state = state_of(environ, self.owner, plain=self.plain())
        value = (state.take_report_turn is None and state.page_nonce) or tag_nonce(state)
        return "" if value is None else f" nonce={quote}{value}{quote}"

    def note(self, what: str, quote: str = "") -> str:
        """Note what replaces the nonce of a tag: a hash, or that the file is the site's own.

        Args:
            what: the result of :func:`~.hashes.hash_text`, or ``OWN``.
            quote: of the nonce attribute, which is returned when the headers were already sent; ""
                for no attribute.
        """
        state = self._state()
        if state is None or note_hash(state, what) or not quote:
            return ""
        return self.attribute(quote)

    def complete(self, attributes: str, quote: str = '"', what: str = "") -> str:
        """Return the attributes that a tag has when it is put out, with a nonce.

        Args:
            attributes: the text between the tag's name and its ``>``. A nonce in it is kept.
            quote: of the nonce attribute.
            what: the hash of the tag's text, or ``OWN``; see :meth:`note`.
        """
        attributes = str(attributes)
        if not what and "nonce" not in attributes.lower():  # most often
            return self.attribute(quote) + attributes
        if has_nonce(attributes):
            return attributes
        state = self._state()
        # with another address, the text inside of the tag is not what runs
        hashed = what and (what == OWN or find_attribute(attributes, "src") is None)
        if state is None or (hashed and note_hash(state, what)):
            return attributes
        value = tag_nonce(state)
        return attributes if value is None else put_nonce(attributes, value, quote=quote)

    def ask(self, what: str) -> str:
        """Note the hash of an event handler that only asks; return ""."""
        state = self._state()
        if state is not None:
            note_question(state, what)
        return ""

    def om_head(self, **parts: object) -> Markup:
        """Return the HTML of ``{{ om_head() }}``."""
        environ = self.environ()
        html = "" if environ is None else self.head(environ, **parts)
        return Markup(html)  # noqa: S704 - the host's own markup

    def trust(self, html: object) -> Markup:
        """Return the value of ``{{ html|om_trusted }}``."""
        state = self._state() if self.trusted else None
        if state is None:
            return Markup(html)  # noqa: S704 - the template's author says so
        found = state
        return Markup(add_nonces(str(Markup(html)), lambda: tag_nonce(found)))  # noqa: S704

    def watch(self) -> NonceWatch:
        """Return a watch over the response that is being made."""
        state = self._state()
        return NonceWatch(state, lasting=state is self._state())

    def prepare(self, root: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap the root function of a template that was compiled."""
        return make_fresh_at_first(root)

    def _state(self) -> RequestState | None:
        environ = self.environ()
        return None if environ is None else state_of(environ, self.owner, plain=self.plain())


def host_of(environment: Environment) -> TemplateHost:
    """Return the environment's host; the first call makes it."""
    found: TemplateHost | None = environment.policies.get(HOST)
    if found is None:
        found = environment.policies[HOST] = TemplateHost()
        # an existing "csp_nonce" belongs to the package that sets the header
        environment.globals.setdefault("csp_nonce", found.csp_nonce)
        environment.globals["om_head"] = found.om_head
        environment.filters["om_trusted"] = om_trusted
        environment.filters[FILTER] = found.complete
    return found


def has_own_nonce(environment: Environment) -> bool:
    """Return whether ``csp_nonce()`` is ours, the nonce that the response has."""
    return environment.globals.get("csp_nonce") is host_of(environment).csp_nonce


@pass_context  # without it, Jinja would filter a constant once, when the template is compiled
def om_trusted(context: Context, html: object) -> Markup:
    """Mark a piece of HTML as the author's own: it is safe, and its literal tags get nonces.

    Args:
        context: of the template.
        html: without markup of users, such as a chart that a library drew.
    """
    return host_of(context.environment).trust(html)
