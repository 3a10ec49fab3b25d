"""Responses of views in the data cache, each kept under the inputs that its making looked at.

An address has an index of at most four sets of input names, newest first. A response is stored
under the address, a set of names, and a keyed digest of their values. A look-up tries the sets in
turn: a response is right for every request that brings the values of the set of its own making.

The cache bounds the responses of one address (``OM_CACHE_VARIANTS``) and those of one view. Each
process counts those that it stored; the oldest go.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeAlias

from ...core.fork import renew_after_fork
from ...core.observed import ObservedInputs
from ..keys import Ident, Key, Scope, identify
from ..miss import QueryOptions
from ..values import ABSENT, decode
from .deferred import DeferredFetch, begin_fetch
from .input_sets import InputSets, Names, find_coarsest

if TYPE_CHECKING:
    from ..refresh import ProcessCache

_NOBODY: tuple[Names, ...] = ((),)
MakeRefresh: TypeAlias = Callable[[Any], Callable[[], Any]]

_VIEW_SHARE = 20
"""All addresses of a view together have so many times the responses of one address."""


@dataclass(frozen=True, slots=True)
class StoredInputs:
    """Under which inputs a response is stored.

    Attributes:
        names: the inputs that count, sorted.
        digest: a keyed digest of their values.
        known: inputs that only known readers looked at.
    """

    names: Names = ()
    digest: str = ""
    known: Names = ()

    def agrees(self, other: StoredInputs) -> bool:
        """Whether both are the same inputs with the same values."""
        return self.names == other.names and self.digest == other.digest


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponseQuery:
    """One look-up of a response.

    Attributes:
        view: the view, whose responses are bounded together.
        address: the key of the address; a tuple.
        scope: keeps users apart by hand.
        inputs: of the request.
        compares: whether an input counts.
        read: returns the inputs of a stored value.
        stale_time, cache_time, tags, negative_time, negative: see
            :meth:`~om_plugins.cache.cache.SmartCache.query`.
    """

    view: str
    address: tuple[Any, ...]
    inputs: ObservedInputs
    read: Callable[[Any], StoredInputs]
    compares: Callable[[str], bool] = lambda name: True
    scope: Scope = ""
    stale_time: float | None = None
    cache_time: float | None = None
    tags: tuple[str, ...] = ()
    negative_time: float | None = None
    negative: Callable[[Any], bool] | None = None

    def key(self, stored: StoredInputs) -> Key:
        """Return the key of a response with these inputs."""
        if not stored.names:
            return (*self.address, "")
        return (*self.address, f"{_digest_names(stored.names)}{stored.digest}")

    def options(self, stored: StoredInputs) -> QueryOptions:
        """Return the options of a query of the data cache for these inputs."""
        key = self.key(stored)
        return QueryOptions(
            key, identify(key, self.scope), _cannot_fetch, None, self.stale_time, self.cache_time,
            3, 1.0, 1.0, self.tags, self.negative_time, (), self.negative,
        )  # fmt: skip

    def select(self, names: Names) -> StoredInputs | None:
        """Return what this request brings for a set of names; ``None`` when it cannot be told."""
        digest = self.inputs.digest(names)
        return None if digest is None else StoredInputs(names, digest)

    def observe(self, compared: frozenset[str]) -> StoredInputs | None:
        """Return what the code of this request looked at until now.

        Args:
            compared: what look-ups had compared in vain when the response was begun. What later
                ones compared counts: they are those of its parts.
        """
        inputs = self.inputs
        if inputs.refused:
            return None
        inputs.count_all(inputs.compared - compared)
        found = self.select(tuple(filter(self.compares, inputs.names())))
        return None if found is None else replace(found, known=tuple(sorted(inputs.known)))


def _cannot_fetch() -> Any:
    raise NotImplementedError


@lru_cache(maxsize=1024)
def _digest_names(names: Names) -> str:
    data = "\n".join(names).encode("utf-8", "surrogatepass")
    return hashlib.blake2b(data, digest_size=8).hexdigest()


@dataclass(slots=True, eq=False, weakref_slot=True)
class KeptResponses:
    """The responses of an application's views.

    Args:
        here: returns the cache of this process, which stores them.
        variants: bound on the responses of one address.
    """

    here: Callable[[], ProcessCache]
    variants: int
    _sets: InputSets = field(init=False, default_factory=InputSets)
    _lock: threading.Lock = field(init=False)
    _addresses: dict[Ident, OrderedDict[Ident, None]] = field(init=False, default_factory=dict)
    _views: dict[str, OrderedDict[Ident, Ident | None]] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.after_fork()
        renew_after_fork(self)

    def after_fork(self) -> None:
        """Renew the lock in a child process: a thread of the parent may hold it."""
        self._lock = threading.Lock()

    def find(self, query: ResponseQuery, refresh: MakeRefresh) -> Any:
        """Return the stored response for a request, fresh or stale; ``None`` without one.

        The inputs of a response that is found count as looked at by the request. Where nothing is
        found, the code that makes the response looks itself. What was compared in vain is noted
        for the parts around this one only: else the sets of signed-in visitors would count for
        every anonymous one.

        Args:
            query: the look-up.
            refresh: returns the function that makes a stale response again, given its value.
        """
        here = self.here()
        around = here.tracking.current()
        for names in self._sets.read(query.address, query.scope) or _NOBODY:
            stored = query.select(names)
            if stored is None:
                continue
            options = query.options(stored)
            entry = here.tiers.look(options.ident)
            if entry is not None and entry.data != ABSENT:
                found = decode(entry.data)
                options.background = lambda found=found: refresh(found)
                here.refreshes.serve(entry, options, around)
                query.inputs.count_all(names)
                return found
            query.inputs.compared |= frozenset(names)
        return None

    def find_or_begin(
        self, query: ResponseQuery, refresh: MakeRefresh
    ) -> tuple[Any, DeferredFetch | None]:
        """Find the stored response, wait for another request that makes it, or begin to make it.

        Who waited compares what the other request looked at. Where the other response is not his,
        he makes his own and waits for nobody.

        Returns:
            The response and ``None``, or ``None`` and the fetch that the caller has to end.
        """
        here, store = self.here(), self.here().tiers.shared
        found = self.find(query, refresh)
        if found is None and store and self._sets.load(query.address, query.scope, store):
            found = self.find(query, refresh)
        if found is not None:
            return found, None
        stored = self._find_group(query)
        if stored is None:
            return None, begin_fetch(here, query.options(StoredInputs()), alone=True)[1]
        options = query.options(stored)
        data, deferred = begin_fetch(here, options)
        if deferred is None:
            found = decode(data)
            if self._is_for(query, found):
                query.inputs.count_all(query.read(found).names)
                return found, None
            return None, begin_fetch(here, options, alone=True)[1]
        # another process, for which this one waited, may have made it under other inputs
        if store is not None and (
            self._sets.load(query.address, query.scope, store) or deferred.waited
        ):
            found = self.find(query, refresh)
            if found is not None:
                deferred.give_up()
                return found, None
        return None, deferred

    def begin_beside(self, query: ResponseQuery) -> DeferredFetch:
        """Begin to make a response in a refresh that may have to store it under other inputs."""
        return DeferredFetch.begin(self.here(), query.options(StoredInputs()))

    def knows(self, query: ResponseQuery) -> bool:
        """Whether a response was stored at the address of a request, under whichever inputs."""
        return bool(self._sets.read(query.address, query.scope))

    def store(self, query: ResponseQuery, deferred: DeferredFetch, value: Any) -> bool:
        """Store what was made, and end the fetch; return whether the cache took it."""
        stored = query.read(value)
        here = self.here()
        options = query.options(stored)
        now = here.misses.clock.time()
        self._sets.add(query.address, query.scope, stored.names, here.tiers.shared, now)
        coarse = self._select_coarsest(query)
        if coarse is not None:
            finer = None if stored.names == coarse.names else stored.names
            self._sets.learn_finer(query.options(coarse).ident, finer)
        if not deferred.commit(value, options):
            return False
        for ident in self._count(query, options.ident, stored):
            here.tiers.remove(ident)
        return True

    def _find_group(self, query: ResponseQuery) -> StoredInputs | None:
        """Find under which inputs a request waits for others, and others for it.

        Returns:
            The inputs that the last making with such values looked at; ``None`` when the request
            cannot be compared.
        """
        coarse = self._select_coarsest(query)
        if coarse is None:
            return None
        finer = self._sets.recall_finer(query.options(coarse).ident)
        return coarse if finer is None else query.select(finer)

    def _select_coarsest(self, query: ResponseQuery) -> StoredInputs | None:
        return query.select(find_coarsest(self._sets.read(query.address, query.scope)))

    def _is_for(self, query: ResponseQuery, value: Any) -> bool:
        stored = query.read(value)
        own = query.select(stored.names)
        return own is not None and own.digest == stored.digest

    # --- bounds -----------------------------------------------------------------------------------

    def _count(self, query: ResponseQuery, ident: Ident, stored: StoredInputs) -> list[Ident]:
        """Count a response; return those that have to go."""
        address = identify(query.address, query.scope)
        gone: list[Ident] = []
        with self._lock:
            of_view = self._views.setdefault(query.view, OrderedDict())
            of_view[ident] = address if stored.names else None
            of_view.move_to_end(ident)
            if stored.names:  # one that looked at nobody is the only one of its address
                of_address = self._addresses.setdefault(address, OrderedDict())
                of_address[ident] = None
                of_address.move_to_end(ident)
                if len(of_address) > self.variants:
                    gone.append(next(iter(of_address)))
            if len(of_view) > self.variants * _VIEW_SHARE:
                gone.append(next(iter(of_view)))
            for one in gone:
                other = of_view.pop(one, None)
                responses = None if other is None else self._addresses.get(other)
                if other is not None and responses is not None:
                    responses.pop(one, None)
                    if not responses:
                        del self._addresses[other]
        return gone
