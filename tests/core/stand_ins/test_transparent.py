import copy
import pickle

import pytest

from om_plugins.core.stand_ins.transparent import Transparent, find_replaced, set_own


class Replaced:
    name = "other"

    @property
    def doubled(self):
        return self.name * 2


class Ours(Transparent):
    __slots__ = ("_om_extra",)
    _om_own = frozenset({"_om_extra"})
    _om_methods = Transparent._om_methods | {"greet"}

    def greet(self):
        return f"hello from {self.name}"


def test_attributes_are_those_of_the_object_that_was_replaced():
    inner = Replaced()
    ours = Ours(inner)
    ours.name = "new"
    assert (inner.name, ours.name, ours.doubled) == ("new", "new", "newnew")
    assert isinstance(ours, Replaced)
    assert vars(ours) == {"name": "new"}
    del ours.name
    assert (inner.name, dir(ours)[-1]) == ("other", "name")
    with pytest.raises(AttributeError, match="'Replaced' object has no attribute 'nothing'"):
        ours.nothing  # noqa: B018


def test_names_that_are_ours_never_reach_it():
    inner = Replaced()
    ours = Ours(inner)
    set_own(ours, "_om_extra", 3)
    assert (ours._om_extra, ours.greet()) == (3, "hello from other")
    ours._om_extra = 4
    assert vars(inner) == {}
    assert "greet" in dir(ours)
    ours.greet = len
    assert (inner.greet, ours.greet()) == (len, "hello from other")
    del ours._om_extra
    assert not hasattr(ours, "_om_extra")


def test_copies_and_pickles_are_of_the_object_that_was_replaced():
    inner = Replaced()
    ours = Ours(inner)
    for copied in (copy.copy(ours), copy.deepcopy(ours), pickle.loads(pickle.dumps(ours))):
        assert type(copied) is Replaced
        assert copied is not inner
    assert find_replaced(ours) is inner
    assert find_replaced(inner) is None
    assert repr(ours) == f"<Ours around {inner!r}>"
