"""Draws random programs."""

from __future__ import annotations

from dataclasses import replace
from random import Random

from .looks import ANONYMOUS, CHANGES, DRAWN, HEADER, IN_TEMPLATES, NAMES, WAYS
from .programs import (
    HARMLESS,
    Abort,
    Answer,
    Ask,
    Break,
    Case,
    Event,
    Forget,
    GiveCookie,
    Hook,
    Keep,
    Look,
    Pass,
    Refresh,
    Since,
    Step,
    Steps,
    View,
    When,
)  # fmt: skip
from .visitors import COUNT

_CHANGING = frozenset({*CHANGES, "flashed"})
_ANONYMOUS = sorted(ANONYMOUS)
_KINDS = ("cached",) * 5 + ("shared",) * 4 + ("http",) * 3 + ("http public",) * 3 + (
    "public", "scope", "none",
)  # fmt: skip
_QUERIES = ("", "", "", "", "q=1", "q=2", "page=1", "q=1&page=2", "utm=7")


class Generator:
    """Draws one program.

    Args:
        seed: of the program; the same seed gives the same program.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.rng = Random(seed)

    def draw(self) -> Case:
        rng = self.rng
        quiet = rng.random() < 0.3  # nothing looks at anybody
        ways = _ANONYMOUS if quiet else DRAWN
        hooks = self._draw_hooks(ways, quiet)
        views = tuple(self._draw_view(ways, quiet, hooks) for _ in range(rng.randint(1, 3)))
        fallback = rng.random() < 0.4
        return Case(
            self.seed,
            views,
            self._draw_events(len(views), fallback),
            hooks,
            self._draw_steps(ways, 2, changes=False) if rng.random() < 0.2 else (),
            rng.choice(("", "on", "on", "cookies")),
            fallback,
            rng.random() < 0.5,
        )

    def _draw_hooks(self, ways: list[str], quiet: bool) -> tuple[Hook, ...]:
        rng, hooks = self.rng, []
        for _ in range(rng.choice((0, 0, 1, 1, 2, 3))):
            at = rng.choice(
                ("signal", "values", "before", "before", "after", "context", "teardown")
            )
            if at == "signal" and any(one.at == at for one in hooks):
                continue  # receivers of a signal have no order
            steps = self._draw_steps(
                ways, 2, changes=at != "teardown", ends=at in ("values", "before", "context"),
                answers=at == "before",
            )  # fmt: skip
            hooks.append(Hook(at, steps, at != "signal" and rng.random() < 0.3))
        hooks += [Hook(at) for at in HARMLESS if rng.random() < 0.15]
        return tuple(hooks)

    def _draw_view(self, ways: list[str], quiet: bool, hooks: tuple[Hook, ...]) -> View:
        rng = self.rng
        kind = rng.choice(_KINDS)
        noisy = any(one.steps != () for one in hooks)
        if kind == "scope" and noisy:
            kind = "cached"
        blueprint = rng.random() < 0.3
        if kind == "scope":
            ways = [*HEADER, *(["session.get", "session[]", "session in"] * 3)]
            names = {"session": ("user",), **{k: v for k, v in NAMES.items() if k != "session"}}
            steps = tuple(self._draw_look(ways, names) for _ in range(rng.randint(0, 3)))
            return View(kind, steps, blueprint=blueprint)
        query: bool | tuple[str, ...] = True
        if not quiet and rng.random() < 0.15:
            query = rng.choice((False, ("q",)))
        view = {
            "above": self._draw_steps(ways, 2) if rng.random() < 0.15 else (),
            "below": self._draw_steps(ways, 2) if rng.random() < 0.15 else (),
        }
        if rng.random() < 0.25:
            kinds = [one for one in IN_TEMPLATES if not quiet or one in ANONYMOUS]
            view["template"] = tuple(self._draw_look(kinds) for _ in range(rng.randint(0, 2)))
        if rng.random() < 0.08:
            view["part"] = self._draw_steps(ways, 2)
        elif rng.random() < 0.12:
            view["streamed"] = self._draw_steps(ways, 2, changes=False)
        steps = self._draw_steps(ways, 3, ends=not quiet, answers=True)
        if not quiet and rng.random() < 0.2:
            later = (self._draw_look(ways), *self._draw_steps(ways, 1, ends=True))
            steps += (Since(rng.randint(2, 3), later),)
        return View(kind, steps, query, blueprint=blueprint, **view)

    # --- steps ----------------------------------------------------------------------------------

    def _draw_look(self, ways: list[str], names: dict[str, tuple[str, ...]] | None = None) -> Look:
        way = self.rng.choice(ways)
        return Look(way, self.rng.choice((names or NAMES)[WAYS[way].takes]))

    def _draw_steps(
        self, ways: list[str], most: int, *, changes: bool = True, ends: bool = False,
        answers: bool = False, depth: int = 0,
    ) -> Steps:  # fmt: skip
        rng, steps = self.rng, []
        quiet = ways is _ANONYMOUS
        for _ in range(rng.randint(0, most)):
            drawn = rng.random()
            step: Step
            if quiet or drawn < 0.6:
                step = self._draw_look(ways)
                if not changes and step.way in _CHANGING:
                    continue
            elif drawn < 0.85 and depth < 2:
                look = self._draw_look(ways)
                if not changes and look.way in _CHANGING:
                    continue
                options = {"changes": changes, "ends": ends, "answers": answers}
                step = When(
                    look,
                    rng.choice(("1", "1", "-", "True", "u1", "de")),
                    self._draw_steps(ways, 2, **options, depth=depth + 1),
                    self._draw_steps(ways, 1, **options, depth=depth + 1),
                )
            elif drawn < 0.88 and changes:
                steps += self._draw_token()
                continue
            elif drawn < 0.9 and changes and depth:
                step = self._draw_change()
            elif drawn < 0.92 and ends and depth:
                step = Abort(rng.choice((403, 404, 410, 500, 503)))
            elif drawn < 0.95 and answers and depth:
                step = Answer()
            else:
                step = self._draw_look(["session.get", "cookie.get"])
            steps.append(step)
        return tuple(steps)

    def _draw_token(self) -> list[Step]:
        """Make a new value for a visitor who has none, as extensions do against forged forms."""
        name = self.rng.choice(NAMES["session"])
        make = When(Look("session in", name), "False", (Keep(name, "fresh"),))
        return [make, Look(self.rng.choice(("session.get", "session[]")), name)]

    def _draw_change(self) -> Step:
        rng = self.rng
        return rng.choice((
            Keep(rng.choice(NAMES["session"]), rng.choice(("1", "2", "fresh", "fresh"))),
            Forget(rng.choice(NAMES["session"])),
            GiveCookie(rng.choice(NAMES["cookie"]), rng.choice(("1", "2"))),
        ))  # fmt: skip

    # --- events ---------------------------------------------------------------------------------

    def _draw_events(self, views: int, fallback: bool) -> tuple[Event, ...]:
        rng = self.rng
        crowd = rng.sample(range(COUNT), rng.randint(3, 12))
        events: list[Event] = []
        asked: list[Ask] = []
        broken, until = False, 0
        for _ in range(rng.randint(15, 35)):
            drawn = rng.random()
            until -= 1
            if until == 0:
                events.append(Refresh())
            elif drawn < 0.08:
                events.append(Pass(rng.choice((3, 11, 11, 11, 50, 200))))
                until = rng.randint(2, 5)
            elif drawn < (0.12 if fallback else 0.09):
                broken = not broken
                events.append(Break(broken))
            elif asked and rng.random() < (0.7 if until > 0 else 0.35):
                before = rng.choice(asked)
                body = before.body and rng.choice(("body", "text"))
                events.append(replace(before, visitor=rng.choice(crowd), body=body))
            else:
                asked.append(Ask(
                    rng.choice(crowd),
                    rng.randrange(views),
                    rng.choice(_QUERIES),
                    "HEAD" if rng.random() < 0.04 else "GET",
                    rng.choice(("body", "text")) if rng.random() < 0.05 else "",
                    int(rng.random() < 0.05),
                    rng.random() < 0.1,
                ))  # fmt: skip
                events.append(asked[-1])
        return tuple(events)
