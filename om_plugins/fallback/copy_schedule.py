"""When a copy of a good response is due, and how many copies a process keeps."""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from ..cache.responses.input_sets import MOST_SETS
from ..core.fork import renew_after_fork
from ..core.inputs import EnvironReader, InputRules
from ..protocols import Clock
from .copy_inputs import SHARED, CopyInputs, Key
from .options import FallbackOptions

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

_UNKNOWN = "?"
"""Stands for the copy of an address whose inputs are not known yet."""


@dataclass(frozen=True, slots=True)
class CopyClaim:
    """The right to make one copy.

    Attributes:
        key: of the request.
        ident: of the copy, see :meth:`.copy_inputs.CopyInputs.identify`.
        at: when it was claimed, on the monotonic clock.
        before: when the copy was claimed before; ``None`` for never.
    """

    key: Key
    ident: str
    at: float
    before: float | None


@dataclass(slots=True)
class _CopiedAddress:
    """What is known about the responses of one address.

    Attributes:
        sets: the sets of inputs that they depend on, the newest first.
        idents: of the copies.
        shared_until: no copy is due before, because one was made that is the same for everybody.
    """

    sets: tuple[CopyInputs, ...] = ()
    idents: set[str] = field(default_factory=set)
    shared_until: float = -math.inf


@dataclass(slots=True, weakref_slot=True, eq=False, repr=False)
class CopySchedule:
    """Says for which responses a copy is due.

    A copy is found by the inputs of its response, which are known only at the response's end. So
    an address remembers the sets of inputs that its responses had. A request that agrees with a
    copy in the inputs of a set would get the same response.

    Args:
        options: how often and how many copies are made.
        rules: how inputs are compared.
        clock: time.
    """

    options: FallbackOptions
    rules: InputRules
    clock: Clock
    _begun_at: OrderedDict[tuple[Key, str], float] = field(init=False)
    _addresses: dict[Key, _CopiedAddress] = field(init=False)
    _lock: threading.Lock = field(init=False)

    def __post_init__(self) -> None:
        self.after_fork()
        renew_after_fork(self)

    def after_fork(self) -> None:
        """Begin anew in a child process: another thread of the parent may hold the lock."""
        self._lock = threading.Lock()
        self._begun_at = OrderedDict()
        self._addresses = {}

    def is_due(self, key: Key, environ: WSGIEnvironment) -> bool:
        """Whether a copy of the response to this request is due, should it be a good one."""
        now = self.clock.monotonic()
        address = self._addresses.get(key)
        if address is not None and now < address.shared_until:  # the fast path
            return False
        return self._choose(key, environ, now) is not None

    def _choose(self, key: Key, environ: WSGIEnvironment, now: float) -> str | None:
        """Return which copy to claim; ``None`` when none is due."""
        address = self._addresses.get(key)
        if address is not None and now < address.shared_until:
            return None
        sets = () if address is None else address.sets
        if sets:
            reader = EnvironReader(environ)
            idents = [one.identify(environ, reader, self.rules) for one in sets]
        else:
            idents = [_UNKNOWN]
        for ident in idents:
            if ident is None:
                return None
            at = self._begun_at.get((key, ident))
            if at is not None and now - at < self.options.copy_every:
                return None
        return idents[0]

    def claim(
        self, key: Key, environ: WSGIEnvironment
    ) -> tuple[CopyClaim | None, list[tuple[Key, str]]]:
        """Claim the copy of the response to this request, if it is due.

        When ``copies`` are in use, the oldest one is dropped, unless it is younger than
        ``copy_every``.

        Returns:
            The claim, and the copies that have to go.
        """
        now = self.clock.monotonic()
        dropped: list[tuple[Key, str]] = []
        with self._lock:
            ident = self._choose(key, environ, now)
            if ident is None:
                return None, dropped
            before = self._begun_at.get((key, ident))
            if before is None and len(self._begun_at) >= self.options.copies:
                oldest, at = next(iter(self._begun_at.items()))
                if now - at < self.options.copy_every:
                    return None, dropped
                self._drop(oldest)
                dropped.append(oldest)
            self._begin(key, ident, now)
        return CopyClaim(key, ident, now, before), dropped

    def release(self, claim: CopyClaim) -> None:
        """Give a claim back: no copy was made."""
        with self._lock:
            self._release(claim)

    def settle(
        self, claim: CopyClaim, inputs: CopyInputs, ident: str
    ) -> tuple[CopyClaim, list[tuple[Key, str]]]:
        """Note what the copy of a claim depends on.

        Returns:
            The claim of this very copy, and the copies that have to go.
        """
        dropped = []
        settled = claim
        with self._lock:
            if ident != claim.ident:
                before = self._begun_at.get((claim.key, ident))
                settled = replace(claim, ident=ident, before=before)
                self._begin(claim.key, ident, claim.at)
                self._release(claim)
            self._learn(claim.key, [inputs])
            while len(self._begun_at) > self.options.copies:
                oldest = next(iter(self._begun_at))
                self._drop(oldest)
                dropped.append(oldest)
        return settled, dropped

    def refuse(self, claim: CopyClaim, inputs: CopyInputs) -> None:
        """Note what a response depends on that may not be copied, because of a cookie.

        Requests without the cookie may be copied at once.
        """
        with self._lock:
            self._learn(claim.key, [inputs])
            if claim.ident != _UNKNOWN:
                self._release(claim)

    def learn(self, key: Key, sets: Sequence[CopyInputs]) -> None:
        """Note what responses of other workers depended on."""
        with self._lock:
            self._learn(key, sets)

    def is_in_use(self, key: Key) -> bool:
        """Whether there are copies of an address."""
        return key in self._addresses

    # --- with the lock ----------------------------------------------------------------------------

    def _begin(self, key: Key, ident: str, at: float) -> None:
        self._begun_at[key, ident] = at
        self._begun_at.move_to_end((key, ident))
        address = self._addresses.setdefault(key, _CopiedAddress())
        address.idents.add(ident)
        if ident == SHARED:
            address.shared_until = at + self.options.copy_every

    def _release(self, claim: CopyClaim) -> None:
        claimed = claim.key, claim.ident
        if self._begun_at.get(claimed) != claim.at:
            return  # it was dropped, or claimed again
        if claim.before is None:
            self._drop(claimed)
        else:
            if claim.ident == SHARED:
                self._addresses[claim.key].shared_until = -math.inf
            self._begun_at[claimed] = claim.before
            self._begun_at.move_to_end(claimed, last=False)

    def _drop(self, copied: tuple[Key, str]) -> None:
        key, ident = copied
        del self._begun_at[copied]
        address = self._addresses[key]
        address.idents.discard(ident)
        if ident == SHARED:
            address.shared_until = -math.inf
        if not address.idents:
            del self._addresses[key]

    def _learn(self, key: Key, sets: Iterable[CopyInputs]) -> None:
        address = self._addresses.get(key)
        if address is not None:
            address.sets = merge_sets(sets, address.sets)


def merge_sets(newer: Iterable[CopyInputs], older: Iterable[CopyInputs]) -> tuple[CopyInputs, ...]:
    """Return the sets of inputs of an address, the newest first."""
    return tuple(dict.fromkeys((*newer, *older)))[:MOST_SETS]
