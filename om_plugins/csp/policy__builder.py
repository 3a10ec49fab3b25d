"""A policy to be built in code: each step is checked where it is written.

A :class:`Csp` is a mapping from a directive to its sources, so it may stand wherever a policy is
asked for: in ``OM_CSP``, in ``@om.csp(update=…)``, in a plugin's ``om_csp``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final, Self

from . import presets
from .policy import Policy, check_directive, checked, replaced, widened

__all__ = ["Csp"]


class Csp(Mapping[str, tuple[str, ...]]):
    """A Content-Security-Policy that never changes: each method gives a new one.

    Args:
        policy: a dict from a directive to its sources, or the header's text.

    Raises:
        ConfigError: names the directive, the value and the way out.

    Example::

        OM_CSP = (
            Csp.strict()
            .add("style-src", "https://fonts.example")
            .set("img-src", Csp.SELF, "data:")
            .set("upgrade-insecure-requests")
        )
    """

    __slots__ = ("_dropped", "_policy")

    SELF: Final = "'self'"
    NONE: Final = "'none'"
    NONCE: Final = "'nonce'"
    """Stands for the nonce of each response."""
    STRICT_DYNAMIC: Final = "'strict-dynamic'"
    UNSAFE_INLINE: Final = "'unsafe-inline'"
    UNSAFE_EVAL: Final = "'unsafe-eval'"
    UNSAFE_HASHES: Final = "'unsafe-hashes'"
    WASM_UNSAFE_EVAL: Final = "'wasm-unsafe-eval'"
    REPORT_SAMPLE: Final = "'report-sample'"
    INLINE_SPECULATION_RULES: Final = "'inline-speculation-rules'"
    TRUSTED_TYPES_EVAL: Final = "'trusted-types-eval'"

    def __init__(self, policy: Mapping[str, object] | str = "") -> None:
        self._policy: Policy = checked(policy, "Csp")
        self._dropped: tuple[str, ...] = ()

    @classmethod
    def strict(cls) -> Self:
        """What ``OM_CSP_PRESET = "strict"`` sends; see :data:`~.presets.STRICT`."""
        return cls(presets.STRICT)

    @classmethod
    def compatible(cls, *hosts: str) -> Self:
        """What ``OM_CSP_PRESET = "compatible"`` sends; see :func:`~.presets.compatible`.

        Args:
            hosts: where scripts may come from without a nonce, such as ``https://cdn.example``.
        """
        return cls(presets.compatible(hosts))

    @classmethod
    def api(cls) -> Self:
        """What goes with data; see :data:`~.presets.API`."""
        return cls(presets.API)

    def set(self, directive: str, *sources: str) -> Self:
        """With this directive as given, whatever it was before."""
        return self._made(replaced(self._policy, checked({directive: sources}, "Csp.set")))

    def add(self, directive: str, *sources: str) -> Self:
        """With more sources in this directive. A missing one begins as a copy of the one that
        browsers fall back to."""
        extra = checked({directive: sources}, "Csp.add")
        return self._made(widened(self._policy, extra, set_missing=True))

    def without(self, *directives: str) -> Self:
        """Without these directives. In ``OM_CSP`` and ``@om.csp(replace=…)`` they are taken out of
        what is sent there otherwise, too."""
        for name in directives:
            check_directive(name, None, "Csp.without")
        left = {k: v for k, v in self._policy.items() if k not in directives}
        return self._made(left, directives)

    @property
    def dropped(self) -> tuple[str, ...]:
        """The directives that :meth:`without` took out, and that nothing put back."""
        return self._dropped

    def _made(self, policy: Policy, dropped: tuple[str, ...] = ()) -> Self:
        made = type(self)(policy)
        made._dropped = tuple(
            name for name in dict.fromkeys((*self._dropped, *dropped)) if name not in policy
        )
        return made

    def __getitem__(self, directive: str) -> tuple[str, ...]:
        return self._policy[directive]

    def __iter__(self) -> Iterator[str]:
        return iter(self._policy)

    def __len__(self) -> int:
        return len(self._policy)

    def __str__(self) -> str:
        return "; ".join(" ".join((name, *sources)) for name, sources in self.items())

    def __repr__(self) -> str:
        return f"Csp({str(self)!r})"
