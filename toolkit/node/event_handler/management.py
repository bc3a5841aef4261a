"""The operator's access to stored filters, `/eventhandler/mgmt/subscriptions`: listed, or one of them by its number."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

from toolkit.node.event_handler.callbacks import Callbacks
from toolkit.node.event_handler.documents import Filter, Reader
from toolkit.node.event_handler.problems import bad_uri, no_filter

BASE = "/eventhandler/mgmt"
_LIST = f"{BASE}/subscriptions"


def allowed_on(path: str) -> tuple[str, ...] | None:
    """The methods of a path; None where it is none of the operator's."""
    if path in (BASE, _LIST):
        return ("GET",)
    return ("GET", "PUT", "DELETE") if path.startswith(f"{_LIST}/") else None


def manage(filters: Callbacks, reader: Reader, method: str, path: str, body: bytes) -> Any:
    """What is answered, as JSON values; None for nothing. Raises Problem."""
    if path == _LIST:
        return [stored.document() for stored in filters.listed()]
    text = path.removeprefix(f"{_LIST}/")
    if not re.fullmatch(r"-?\d{1,18}", text):
        raise bad_uri(path)
    number = int(text)
    if method == "DELETE":
        if not filters.delete(number):
            raise no_filter(number)
        return None
    if method == "PUT":
        now = datetime.now(UTC)
        found = filters.alter(number, lambda stored: reader.altered_filter(body, stored, now))
    else:
        found = filters.find(number)
    return _document(found, number)


def _document(found: Filter | None, number: int) -> dict[str, Any]:
    if found is None:
        raise no_filter(number)
    return found.document()
