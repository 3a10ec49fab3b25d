"""Tool calls of one answer, joined from the pieces of a stream or read from one message."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from ...types import ToolCall
from ..http.lenient_json import join_surrogates, read_json

_FIELDS = ("id", "name", "arguments")


class ToolCallJoiner:
    """Joins the pieces of tool calls. Its length is the number of calls so far."""

    __slots__ = ("_calls", "_latest")

    def __init__(self) -> None:
        self._calls: dict[object, dict[str, list[str]]] = {}
        self._latest: dict[int, object] = {}  # by index: the key of the call that is open

    def __len__(self) -> int:
        return len(self._calls)

    def add(self, message: Mapping[str, Any]) -> int:
        """Take the calls of a message, or of the new part of one.

        Returns:
            The number of letters that were taken.
        """
        found = message.get("tool_calls")
        calls = list(found) if isinstance(found, list) else []
        if isinstance(message.get("function_call"), dict):  # before tools, there was one function
            calls.append({"function": message["function_call"]})
        return sum(self._add(call) for call in calls if isinstance(call, dict))

    def end(self) -> tuple[ToolCall, ...]:
        """Return the calls that have a name."""
        return tuple(self._list())

    def _add(self, call: Mapping[str, Any]) -> int:
        function = call.get("function")
        function = function if isinstance(function, dict) else call
        key = self._find_key(call.get("index"), call.get("id"), function)
        kept = self._calls.setdefault(key, {field: [] for field in _FIELDS})
        size = 0
        for field in _FIELDS:
            value = (call if field == "id" else function).get(field)
            if field == "arguments" and isinstance(value, dict | list):
                value = msgspec.json.encode(value).decode()
            if isinstance(value, str) and value and (field == "arguments" or not kept[field]):
                size += len(value)
                kept[field].append(value)
        return size

    def _find_key(self, index: object, call_id: object, function: Mapping[str, Any]) -> object:
        """What tells a call from others: its index, its id, or that it has a name. A piece without
        any of the three belongs to the last. Gemini gives all calls the index 0."""
        name = function.get("name")
        if isinstance(index, int):
            key = self._latest.get(index, index)
            kept = self._calls.get(key)
            if kept and name and _begins_another(kept, call_id, function.get("arguments")):
                key = (index, len(self._calls))
            self._latest[index] = key
            return key
        if isinstance(call_id, str) and call_id:
            return call_id
        return ("call", len(self._calls)) if name else next(reversed(self._calls), 0)

    def _list(self) -> Iterator[ToolCall]:
        for kept in self._calls.values():
            texts = {field: join_surrogates("".join(parts)) for field, parts in kept.items()}
            if texts["name"]:
                yield ToolCall(**texts)


def _begins_another(kept: Mapping[str, list[str]], call_id: object, arguments: object) -> bool:
    """Whether a piece with a name is another call, although a call with its index was there."""
    if call_id and kept["id"]:
        return [call_id] != kept["id"]
    # Gemini sends each call whole, some without an id. Services that repeat the name send pieces.
    return bool(arguments) and len(kept["arguments"]) == 1 and _is_json(kept["arguments"][0])


def _is_json(text: str) -> bool:
    try:
        read_json(text)
    except ValueError:
        return False
    return True
