"""Requests read and checked: PublishEvent and EventFilter as JSON, with Arrowhead's rules and messages."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, cast

from toolkit.node.arrowhead.quirks import Quirks
from toolkit.node.event_handler.problems import Problem

_NAME = re.compile(r"[\w:-]+")
_MOST_CHARACTERS = 255
_MOST_TEXT = 2047
"""Of what the framework's databases keep in their longest columns."""
_MOST_SOURCES = 100
_LAST_PORT = 65_535
_SHORTEST_ADDRESS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class System:
    """An ArrowheadSystem; equal by name, address and port alone."""

    name: str
    address: str
    port: int
    authentication_info: str | None = field(default=None, compare=False)
    id: int | None = field(default=None, compare=False)
    """Its number where it is stored."""

    def document(self) -> dict[str, Any]:
        """As JSON, without nulls."""
        document: dict[str, Any] = {} if self.id is None else {"id": self.id}
        document |= {"systemName": self.name, "address": self.address, "port": self.port}
        if self.authentication_info is not None:
            document["authenticationInfo"] = self.authentication_info
        return document


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One published event; `timestamp` None: the Event Handler's own time."""

    type: str
    payload: str | None
    timestamp: datetime | None
    metadata: Mapping[str, str]

    def document(self, timestamp: datetime) -> dict[str, Any]:
        """As a callback subscriber gets it."""
        document: dict[str, Any] = {"type": self.type}
        if self.payload is not None:
            document["payload"] = self.payload
        document["timestamp"] = iso(timestamp)
        document["eventMetadata"] = dict(self.metadata)
        return document


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """An EventFilter: which events of a type somebody wants."""

    event_type: str
    consumer: System
    sources: frozenset[System] = frozenset()
    start: datetime | None = None
    end: datetime | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    match_metadata: bool = False
    notify_uri: str | None = None
    id: int | None = field(default=None, compare=False)
    """Its number where it is stored."""

    def wants(self, event: Event, source: System, timestamp: datetime) -> bool:
        """Whether an event of the right type passes: sources, dates (boundaries included), whole metadata."""
        return (
            (not self.sources or source in self.sources)
            and (self.start is None or timestamp >= self.start)
            and (self.end is None or timestamp <= self.end)
            and (not self.match_metadata or dict(event.metadata) == dict(self.metadata))
        )

    def url(self, *, secure: bool) -> str:
        """Where the consumer wants to be told."""
        place = f"{self.consumer.address}:{self.consumer.port}/{(self.notify_uri or '').lstrip('/')}"
        return f"{'https' if secure else 'http'}://{place}"

    @property
    def selective(self) -> bool:
        """Whether `wants` can say no."""
        return bool(self.sources or self.start or self.end or self.match_metadata)

    def document(self) -> dict[str, Any]:
        """As JSON, without nulls."""
        document: dict[str, Any] = {} if self.id is None else {"id": self.id}
        document |= {
            "eventType": self.event_type,
            "consumer": self.consumer.document(),
            "sources": [
                source.document() for source in sorted(self.sources, key=lambda s: (s.name, s.address, s.port))
            ],
        }
        if self.start is not None:
            document["startDate"] = iso(self.start)
        if self.end is not None:
            document["endDate"] = iso(self.end)
        document["filterMetadata"] = dict(self.metadata)
        if self.notify_uri is not None:
            document["notifyUri"] = self.notify_uri
        document["matchMetadata"] = self.match_metadata
        return document


def iso(instant: datetime) -> str:
    """ISO 8601 in UTC with milliseconds and Z."""
    return instant.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


_FIELDS: Mapping[str, str] = {
    "eventtype": "event_type",
    "consumer": "consumer",
    "sources": "sources",
    "startdate": "start",
    "enddate": "end",
    "filtermetadata": "metadata",
    "notifyuri": "notify_uri",
    "matchmetadata": "match_metadata",
}
"""Fields of an EventFilter, by their names in JSON, in lower case."""


class Reader:
    """Reads request bodies, with the statuses of a release."""

    def __init__(self, quirks: Quirks) -> None:
        self._status = quirks.validation_status
        self._last_source: tuple[Any, System] | None = None

    def publish_event(self, body: bytes) -> tuple[System, Event, str | None]:
        """(source, event, deliveryCompleteUri); raises Problem."""
        document = self._object(body)
        wrong: list[str] = []
        source_document = _get(document, "source")
        last = self._last_source  # once: other threads read events too
        if last is not None and source_document == last[0]:
            source = last[1]
        else:
            source = self._system(source_document, "source", wrong)
            if not wrong:
                self._last_source = (source_document, source)
        event = self._event(_get(document, "event"), wrong)
        feedback = self._text(_get(document, "deliveryCompleteUri"), "deliveryCompleteUri", wrong, most=_MOST_TEXT)
        if wrong:
            raise self._violations(wrong)
        return source, event, feedback

    def event_filter(self, body: bytes, now: datetime | None = None) -> Filter:
        """An EventFilter; `now` checks that its end is in the future. Raises Problem."""
        return self._filter(self._object(body), now)

    def altered_filter(self, body: bytes, stored: Filter, now: datetime) -> Filter:
        """`stored` with the fields that an EventFilter has; those that are absent or null stay. Raises Problem."""
        document = self._object(body)
        given = self._filter(document, now)
        named = {name.lower() for name, value in document.items() if value is not None}
        return replace(
            stored, **{attribute: getattr(given, attribute) for name, attribute in _FIELDS.items() if name in named}
        )

    def _filter(self, document: dict[str, Any], now: datetime | None) -> Filter:
        wrong: list[str] = []
        event_type = self._text(_get(document, "eventType"), "eventType", wrong, required=True)
        consumer = self._system(_get(document, "consumer"), "consumer", wrong)
        sources = _get(document, "sources")
        if sources is None:
            sources = []
        if not isinstance(sources, list):
            raise self._mapping("sources", "an array")
        if len(sources) > _MOST_SOURCES:
            wrong.append(f"sources: size must be between 0 and {_MOST_SOURCES}")
        systems = [self._system(source, f"sources[{index}]", wrong) for index, source in enumerate(sources)]
        start = self._instant(_get(document, "startDate"), "startDate")
        end = self._instant(_get(document, "endDate"), "endDate")
        if now is not None and end is not None and end <= now:
            wrong.append("endDate: must be a future date")
        notify_uri = self._text(_get(document, "notifyUri"), "notifyUri", wrong)
        match = _get(document, "matchMetadata")
        if match is not None and not isinstance(match, bool):
            raise self._mapping("matchMetadata", "a boolean")
        metadata = self._map(_get(document, "filterMetadata"), "filterMetadata")
        for name, text in metadata.items():
            self._text(name, "filterMetadata: a name", wrong)
            self._text(text, f"filterMetadata[{name}]", wrong, most=_MOST_TEXT)
        if wrong:
            raise self._violations(wrong)
        return Filter(
            event_type=event_type or "",
            consumer=consumer,
            sources=frozenset(systems),
            start=start,
            end=end,
            metadata=metadata,
            match_metadata=bool(match),
            notify_uri=notify_uri,
        )

    def _object(self, body: bytes) -> dict[str, Any]:
        try:
            document = json.loads(body)
            if b"\\u" in body:  # half a character, which nobody can be sent
                json.dumps(document, ensure_ascii=False).encode()
        except (ValueError, RecursionError) as error:
            raise Problem(self._status, "JSON_PROCESSING", f"the body is not JSON: {error}") from error
        if not isinstance(document, dict):
            raise self._mapping("the body", "an object")
        return document

    def _event(self, value: Any, wrong: list[str]) -> Event:
        if value is None:
            wrong.append("event: may not be null")
            return Event(type="", payload=None, timestamp=None, metadata={})
        if not isinstance(value, dict):
            raise self._mapping("event", "an object")
        event_type = self._text(_get(value, "type"), "event.type", wrong, required=True)
        if event_type and ("\n" in event_type or "\r" in event_type):
            wrong.append("event.type: may not contain line breaks")
        return Event(
            type=event_type or "",
            payload=self._text(_get(value, "payload"), "event.payload", wrong, most=None),
            timestamp=self._instant(_get(value, "timestamp"), "event.timestamp"),
            metadata=self._map(_get(value, "eventMetadata"), "event.eventMetadata"),
        )

    def _system(self, value: Any, path: str, wrong: list[str]) -> System:
        if value is None:
            wrong.append(f"{path}: may not be null")
            return System(name="", address="", port=0)
        if not isinstance(value, dict):
            raise self._mapping(path, "an object")
        name = self._text(_get(value, "systemName"), f"{path}.systemName", wrong, required=True) or ""
        if name and not _NAME.fullmatch(name):
            wrong.append(f"{path}.systemName: may only contain letters, digits and -_:")
        address = self._text(_get(value, "address"), f"{path}.address", wrong, required=True) or ""
        if address and len(address) < _SHORTEST_ADDRESS:
            wrong.append(f"{path}.address: size must be between {_SHORTEST_ADDRESS} and {_MOST_CHARACTERS}")
        port = _get(value, "port")
        if isinstance(port, str) and port.strip().isdigit():
            port = int(port)
        if port is None:
            port = 0
        if isinstance(port, bool) or not isinstance(port, int):
            raise self._mapping(f"{path}.port", "a number")
        if not 1 <= port <= _LAST_PORT:
            wrong.append(f"{path}.port: must be between 1 and {_LAST_PORT}")
        information = _get(value, "authenticationInfo")
        if not isinstance(information, str):
            information = None
        return System(
            name=name, address=address, port=port,
            authentication_info=self._text(information, f"{path}.authenticationInfo", wrong, most=_MOST_TEXT),
        )  # fmt: skip

    def _text(
        self, value: Any, path: str, wrong: list[str], *, required: bool = False, most: int | None = _MOST_CHARACTERS
    ) -> str | None:
        """A string; numbers and booleans become text, as Jackson makes them."""
        if isinstance(value, bool):
            value = "true" if value else "false"
        elif isinstance(value, int | float):
            value = json.dumps(value)
        if value is not None and (not isinstance(value, str) or (most is not None and "\0" in value)):
            raise self._mapping(path, "a string" if most is None else "a string without NUL")
        if required and (value is None or not value.strip()):
            wrong.append(f"{path}: may not be empty")
        elif value is not None and most is not None and len(value) > most:
            wrong.append(f"{path}: length must be between 0 and {most}")
        return cast("str | None", value)

    def _map(self, value: Any, path: str) -> dict[str, str]:
        if value is None:
            return {}
        if not isinstance(value, dict) or not all(isinstance(text, str | int | float) for text in value.values()):
            raise self._mapping(path, "an object of strings")
        return {name: text if isinstance(text, str) else json.dumps(text) for name, text in value.items()}

    def _instant(self, value: Any, path: str) -> datetime | None:
        if value is None:
            return None
        try:
            if isinstance(value, int | float) and not isinstance(value, bool):
                return datetime.fromtimestamp(value, UTC)
            instant = datetime.fromisoformat(value)
            if instant.tzinfo is not None:
                instant = instant.astimezone(UTC)
        except (ValueError, TypeError, OverflowError, OSError) as error:
            raise self._mapping(path, "an ISO 8601 instant with its zone") from error
        if instant.tzinfo is None:
            raise self._mapping(path, "an ISO 8601 instant with its zone")
        return instant

    def _mapping(self, path: str, wanted: str) -> Problem:
        return Problem(self._status, "JSON_PROCESSING", f"{path} is not {wanted}")

    def _violations(self, wrong: list[str]) -> Problem:
        return Problem(self._status, "BAD_PAYLOAD", "".join(f"{text}, " for text in wrong))


def _get(document: dict[str, Any], name: str) -> Any:
    """A property, its name in any case; the exact one first."""
    value = document.get(name)
    if value is None and name not in document:
        lowered = name.lower()
        for key, other in document.items():
            if key.lower() == lowered:
                return other
    return value
