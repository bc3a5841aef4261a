"""The systems that an Event Handler without a database has heard of in filters: known by name, numbered."""

from __future__ import annotations

from dataclasses import replace

from toolkit.node.event_handler.documents import Filter, System

_MOST_SYSTEMS = 65_536


class Systems:
    """Consumers and sources of filters, whether these are still there or not; the oldest of too many is forgotten."""

    def __init__(self, most: int = _MOST_SYSTEMS) -> None:
        self._most = most
        self._numbers: dict[System, int] = {}
        self._names: dict[str, int] = {}
        """How many systems have that name."""
        self._next_number = 1

    def numbered(self, wanted: Filter) -> Filter:
        """The filter with the numbers of its systems, who are known from now on."""
        return replace(
            wanted,
            consumer=self._keep(wanted.consumer),
            sources=frozenset(self._keep(source) for source in wanted.sources),
        )

    def has(self, name: str) -> bool:
        """Whether a system of that name is known."""
        return name in self._names

    def _keep(self, system: System) -> System:
        number = self._numbers.get(system)
        if number is None:
            if len(self._numbers) >= self._most:
                self._forget_one()
            number = self._numbers[system] = self._next_number
            self._next_number += 1
            self._names[system.name] = self._names.get(system.name, 0) + 1
        return replace(system, id=number)

    def _forget_one(self) -> None:
        name = next(iter(self._numbers)).name
        del self._numbers[next(iter(self._numbers))]
        self._names[name] -= 1
        if not self._names[name]:
            del self._names[name]
