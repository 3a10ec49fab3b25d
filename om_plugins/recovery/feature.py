"""Recovery: errors of one kind are counted, repaired off the request path, and reported."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ..plugins.feature import Feature
from ..plugins.kit import Card, Finding
from ..plugins.names import check_names
from ..settings.kinds import NAMES
from ..settings.table import Table, key

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

    from ..plugins.kit import Kit
    from .recovery import Recovery
    from .wrong_methods import WrongMethods

MAX_SHOWN = 20
"""How many patterns and recoveries the console shows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecoveryKeys(Table):
    """The settings of recovery and its notices."""

    PREFIX: ClassVar[str] = "OM_"

    display_names: dict[str, str | dict[str, str]] = key(
        {},
        NAMES,
        "what people call a chain or a path: `{'assistant': 'The assistant', '/ask': 'Questions'}`"
        ", by language: `{'assistant': {'en': 'The assistant', 'ko': '도우미'}}`",
        "Notifications",
    )


class RecoveryFeature(Feature["RecoveryPart", RecoveryKeys]):
    """Counts errors, finds patterns, repairs; counts wrong methods as well."""

    name = "recovery"
    keys = RecoveryKeys

    def is_needed(self, kit: Kit, keys: RecoveryKeys) -> bool:
        return bool(keys.display_names)

    def build(self, kit: Kit, keys: RecoveryKeys) -> RecoveryPart:
        return RecoveryPart(kit, keys)

    def card(self, kit: Kit, part: RecoveryPart) -> Card:
        data = {
            "patterns": part.recovery.patterns()[:MAX_SHOWN],
            "wrong_methods": part.wrong_methods.current()[:MAX_SHOWN],
            "recoveries": part.recovery.history()[-MAX_SHOWN:][::-1],
        }
        return Card("Errors and recoveries", data=data)

    def name_findings(self, kit: Kit, part: RecoveryPart) -> Iterable[Finding]:
        chains = kit.part_of("chains").by_name
        rules = kit.host.rules() if kit.host.rules is not None else ()
        routes = [*rules, *(kit.part_of("gateway") or ()), "<unmatched>"]
        known = [*chains, *routes]
        known += [f"chain:{name}" for name in chains] + [f"route:{rule}" for rule in routes]
        names = kit.settings.of(RecoveryKeys).display_names
        if kit.host.rules is None:  # of a host's routes nothing is known
            names = {name: one for name, one in names.items() if "/" not in name}
        yield from check_names(
            "OM_DISPLAY_NAMES[{!r}]",
            names,
            known,
            "Neither a chain nor a url rule has this name, so nobody reads it.",
            "Name a chain, or a rule as the app declares it, such as '/report/<int:page>'.",
        )

    def close(self, kit: Kit, part: RecoveryPart) -> None:
        part.recovery.close()


class RecoveryPart:
    """What recovers in one application, and what counts the 405s of its routes."""

    recovery: Recovery
    wrong_methods: WrongMethods

    def __init__(self, kit: Kit, keys: RecoveryKeys) -> None:
        from ..core.translations import Translations, display_name, load_translations
        from .messages import Recipient
        from .recovery import Recovery
        from .wrong_methods import WrongMethods

        notify = kit.part_of("notifications")

        def get_recipient() -> Recipient:
            """The browser that asks; its cookie is checked in the background."""
            environ = kit.environ()
            if environ is None:
                return Recipient(translate=load_translations())
            cookies = str(environ.get("HTTP_COOKIE", ""))
            return Recipient(
                lambda: notify.browsers.find_address(cookies), load_translations(environ)
            )

        def name_of(subject: str, language: object) -> str:
            return display_name(
                subject,
                keys.display_names,
                language if isinstance(language, Translations) else None,
            )

        self.recovery = Recovery(
            clock=kit.clock,
            hub=kit.hub,
            scheduler=kit.scheduler,
            emit=kit.emit,
            notify=notify,
            steps=lambda: kit.plugin_parts.steps,
            guarded=kit.plugins.call_guarded,
            chains=lambda: kit.part_of("chains").by_name,
            translate=load_translations(),
            get_recipient=get_recipient,
            name=name_of,
            on_answer=lambda engine: kit.part_of("chains").sharing.publish_answer(engine.breaker),
            bounded=not kit.host.testing,
        )
        self.wrong_methods = WrongMethods(
            clock=kit.clock,
            hub=kit.hub,
            scheduler=kit.scheduler,
            emit=kit.emit,
            notify=notify,
            translate=load_translations(),
        )

    def count(self, environ: WSGIEnvironment, subject: str, error: Exception) -> None:
        """Count an error of the request that ``environ`` belongs to."""
        from ..core.call import current_request

        before = current_request.set(environ)
        try:
            self.recovery.note(subject, error)
        finally:
            current_request.reset(before)
