"""Data that anybody may have written, as typed values."""

from __future__ import annotations

from typing import Any, TypeVar, overload

import msgspec

__all__ = ["converted"]

T = TypeVar("T")


@overload
def converted(data: object, kind: type[T]) -> T: ...
@overload
def converted(data: object, kind: Any) -> Any: ...
def converted(data: object, kind: Any) -> Any:
    """``msgspec.convert`` for what may have been written by anybody.

    Raises:
        ValueError: it is not of that kind. Of msgspec's own error this is true since 0.22 only.
    """
    try:
        return msgspec.convert(data, kind)
    except msgspec.ValidationError as error:
        raise ValueError(str(error)) from None
