"""What people read about errors and recovery. The English text is the key for translations."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import InitVar, asdict, dataclass, field
from typing import Literal, Protocol

from ..protocols import Notify
from ..types import Action, ErrorPattern, Kind, Notification

logger = logging.getLogger("om_plugins")

FIRST = "{name} had a problem. You may go on; please try again if something is missing."
PATTERN = "{name} keeps having the same trouble. Telling us what you did helps us to fix it."
REPAIRING = "{name} is being repaired"
FINISHING = "Almost done"
SUCCEEDED = "{name} was repaired. Please try again."
FAILED = "{name} could not be repaired by itself. Refresh the page, or report the problem."
TIDIED = "{name} was tidied up. Please try again."
WRONG_METHOD = (
    "Clients send {method} to {name}, which allows {allowed} only: {times} times in five minutes."
)
REFUSED_METHOD = "Clients send {method} to {name}, which refuses it: {times} times in five minutes."
REFRESH = "Refresh"
REPORT = "Report problem"

OPERATORS = "operators"

Button = Literal["refresh", "report"]
_LABELS: dict[Button, str] = {"refresh": REFRESH, "report": REPORT}


class Translate(Protocol):
    """Translates a text into the language of the people who will read it."""

    def __call__(self, text: str, /, **values: str) -> str:
        """Return the text, one of this module or of a recovery step, with ``values`` filled in."""


def translate_nothing(text: str, /, **values: str) -> str:
    """Return the English text. A text that is not a template stays as it is."""
    try:
        return text.format(**values)
    except (LookupError, ValueError, AttributeError):
        return text


def _has_no_address() -> str:
    return ""


@dataclass(frozen=True, slots=True)
class Recipient:
    """The person to whom an error happened.

    Attributes:
        address: returns the address, such as ``sid:…``, in the background; "" when there is none.
        translate: translates into the person's language.
    """

    address: Callable[[], str] = _has_no_address
    translate: Translate = translate_nothing


def get_inner_name(subject: str, translate: Translate) -> str:
    """Return the name of a subject for operators: ``assistant`` for ``chain:assistant``."""
    return subject.partition(":")[2] or subject


@dataclass(slots=True, eq=False, repr=False)
class Announcer:
    """Notifies the person to whom an error happened, and the operators, who also get details.

    Args:
        notify: takes notifications.
        translate: translates into the operators' language.
        name: returns the name of a subject for end users.
    """

    notify: Notify
    translate: InitVar[Translate]
    name: Callable[[str, Translate], str]
    operators: Recipient = field(init=False)

    def __post_init__(self, translate: Translate) -> None:
        self.operators = Recipient(lambda: OPERATORS, translate)

    def announce(
        self,
        kind: Kind,
        text: str,
        subject: str,
        fingerprint: str,
        recipient: Recipient,
        *,
        title: str = "",
        buttons: Sequence[Button] = (),
        progress: float | None = None,
        pattern: ErrorPattern | None = None,
    ) -> None:
        """Notify the recipient and the operators.

        All notifications about one subject have the same key, so that a new one replaces the one
        before.

        Args:
            text, title: texts of this module, or of a recovery step.
            fingerprint: the kind of error; "" when it is not known.
            progress: how much is done, in percent.
            pattern: details for the operators.
        """
        address = _get_address(recipient)
        has_person = address not in ("", OPERATORS)
        for one in (recipient, self.operators) if has_person else (self.operators,):
            details: dict[str, object] = {}
            if one is self.operators:
                address = OPERATORS
                name = get_inner_name(subject, one.translate)
                details = {"subject": subject} if pattern is None else asdict(pattern)
            else:
                name = self.name(subject, one.translate)
            report_about = fingerprint or subject
            self.notify(
                Notification(
                    kind=kind,
                    message=one.translate(text, name=name),
                    title=one.translate(title, name=name) if title else "",
                    to=address,
                    actions=tuple(
                        Action(
                            one.translate(_LABELS[button]),
                            button,
                            report_about if button == "report" else "",
                        )
                        for button in buttons
                    ),
                    progress=progress,
                    key=f"trouble:{subject}",
                    data=details,
                )
            )


def _get_address(recipient: Recipient) -> str:
    try:
        return recipient.address()
    except Exception:
        logger.exception("the browser that an error happened to is not known")
        return ""
