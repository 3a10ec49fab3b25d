"""Fallback: what answers in place of a view of the host app that failed."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ..plugins.feature import Feature
from ..plugins.kit import Finding
from ..plugins.names import check_paths, nearest
from ..settings.kinds import table
from ..settings.table import Table, key
from .options import STALE, FallbackOptions

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication, WSGIEnvironment

    from ..plugins.kit import Kit


@dataclass(frozen=True, slots=True, kw_only=True)
class FallbackKeys(Table):
    """The settings of fallbacks for paths."""

    PREFIX: ClassVar[str] = "OM_"
    RENAMED: ClassVar[Mapping[str, str]] = {"OM_SHIELD": "OM_FALLBACK"}

    fallback: dict[str, FallbackOptions] = key(
        {},
        table(FallbackOptions, "OM_FALLBACK"),
        "paths of the host app, with all that is below them, whose failures are answered: "
        "`{'/reports/': ['stale', 'reports']}`",
        "Engines",
    )


class FallbackFeature(Feature["Mapping[str, FallbackOptions]", FallbackKeys]):
    """``OM_FALLBACK`` and ``@om.fallback``."""

    name = "fallback"
    keys = FallbackKeys

    def build(self, kit: Kit, keys: FallbackKeys) -> Mapping[str, FallbackOptions]:
        return keys.fallback

    def layer(
        self, kit: Kit, part: Mapping[str, FallbackOptions], app: WSGIApplication
    ) -> WSGIApplication | None:
        of_views: Sequence[FallbackOptions] = kit.host.declared.get(self.name, ())
        if not part and not of_views:
            return None
        from .layer import FallbackLayer

        return FallbackLayer(
            app,
            part,
            kit.part_of("chains").get,
            cache=kit.part_of("cache"),
            scheduler=kit.scheduler,
            clock=kit.clock,
            rules=kit.part_of("cache").internals.inputs,
            observes=kit.host.observes,
            prefix=kit.keys.prefix,
            views=of_views,
            show_errors=kit.host.testing or kit.host.debug,
            note=functools.partial(_count_error, kit),
            emit=kit.emit,
        )

    def endpoints(
        self, kit: Kit, part: Mapping[str, FallbackOptions]
    ) -> Mapping[str, WSGIApplication]:
        from .page import thank_for_report

        return {"/report": kit.part_of("notifications").report_form(thank_for_report)}

    def name_findings(self, kit: Kit, part: Mapping[str, FallbackOptions]) -> Iterable[Finding]:
        yield from check_paths("OM_FALLBACK[{!r}]", part, kit.host.rules)
        of_views: Sequence[FallbackOptions] = kit.host.declared.get(self.name, ())
        if not part and not of_views:
            return
        chains = kit.part_of("chains").by_name
        for subject, options in (
            *((f"OM_FALLBACK[{path!r}]", one) for path, one in part.items()),
            *((f"@om.fallback({', '.join(map(repr, o.answers))})", o) for o in of_views),
        ):
            unknown = [n for n in options.answers if n != STALE and n not in chains]
            for name in unknown:
                yield Finding(
                    "fail",
                    subject,
                    f"No engine belongs to the chain {name!r}, so it never answers for a view.",
                    nearest(name, {STALE: None, **chains})
                    or f"Add an engine to it: om.engine(…, chain={name!r}).",
                )
            if not unknown:
                yield Finding("ok", subject, "What it asks for an answer is there.")


def _count_error(kit: Kit, environ: WSGIEnvironment, path: str, error: Exception) -> None:
    """Count what a view with a fallback raised."""
    kit.part_of("recovery").count(environ, f"route:{path}", error)
