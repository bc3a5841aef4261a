"""The errors of the framework: an exception inside a system, an error document on the wire."""

from __future__ import annotations

from typing import Any

DOCUMENTATION = "https://github.com/arrowhead-f/core-java/tree/master/documentation"

DEFAULT_STATUS = {
    "AUTH": 401,
    "BAD_PAYLOAD": 400,
    "DATA_NOT_FOUND": 404,
    "DUPLICATE_ENTRY": 400,
    "JSON_PROCESSING": 400,
    "BAD_METHOD": 405,
    "BAD_URI": 400,
    "BAD_MEDIA_TYPE": 415,
    "UNAVAILABLE": 504,
    "DNS_SD": 500,
    "ARROWHEAD": 500,
    "GENERIC": 500,
}
"""HTTP status of an exception type that came without a code of its own."""
ERROR_MESSAGE = {
    "type": "object",
    "required": ["errorMessage", "errorCode", "exceptionType", "origin"],
    "properties": {
        "errorMessage": {"type": "string"},
        "errorCode": {"type": "integer"},
        "exceptionType": {"type": "string"},
        "origin": {"type": "string"},
        "documentation": {"type": "string"},
    },
}
"""The schema of the body that says no, in OpenAPI 3.1."""


class Refusal(Exception):  # noqa: N818 - an answer of the protocol, not a fault of the program
    """A request is answered with an error document instead of a result.

    `origin` is the address of the system where the error first arose; None until that system's front fills it in.
    """

    def __init__(self, kind: str, message: str, *, status: int | None = None, origin: str | None = None) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.status = status or DEFAULT_STATUS.get(kind, 500)
        self.origin = origin

    def document(self, origin: str) -> dict[str, Any]:
        """The error document; `origin` is used where the refusal has none of its own."""
        return {
            "errorMessage": self.message,
            # The originals say 405 in the body of a 415.
            "errorCode": 405 if self.kind == "BAD_MEDIA_TYPE" else self.status,
            "exceptionType": self.kind,
            "origin": self.origin or origin,
            "documentation": DOCUMENTATION,
        }


def not_found(message: str) -> Refusal:
    """Nothing there: 404."""
    return Refusal("DATA_NOT_FOUND", message)


def bad_payload(message: str) -> Refusal:
    """A rule between fields is violated: 400."""
    return Refusal("BAD_PAYLOAD", message)


def unauthorized(message: str) -> Refusal:
    """The caller may not: 401."""
    return Refusal("AUTH", message)


def refusal_from(status: int, document: object, url: str) -> Refusal:
    """The refusal that another system answered, to be passed on with its message, code and origin.

    A document that is no error document becomes ARROWHEAD with that system's status.
    """
    if isinstance(document, dict) and document.get("exceptionType") in DEFAULT_STATUS:
        code = document.get("errorCode")
        kind = document["exceptionType"]
        return Refusal(
            kind,
            str(document.get("errorMessage") or ""),
            status=code if isinstance(code, int) and code // 100 in {4, 5} and kind != "BAD_MEDIA_TYPE" else None,
            origin=str(document.get("origin") or url),
        )
    return Refusal("ARROWHEAD", f"{url} answered {status} without an error document", status=status, origin=url)
