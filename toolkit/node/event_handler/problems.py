"""Errors as Arrowhead 4.1 systems answer them: status, exception type and the five-field body."""

from __future__ import annotations

from toolkit.node.arrowhead.pretty import pretty
from toolkit.node.arrowhead.refusals import DOCUMENTATION


class Problem(Exception):  # noqa: N818  not every refusal is an error of ours
    """A request that is refused; `code` is what the body says where it differs from the status."""

    def __init__(self, status: int, exception_type: str, message: str, *, code: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.exception_type = exception_type
        self.code = code if code is not None else status

    def body(self, origin: str) -> bytes:
        """The JSON error document; `origin` is the request's absolute URI."""
        document = {
            "errorMessage": str(self),
            "errorCode": self.code,
            "exceptionType": self.exception_type,
            "origin": origin,
            "documentation": DOCUMENTATION,
        }
        return pretty(document).encode("utf-8", "replace")


def bad_payload(message: str) -> Problem:
    """A rule between fields is broken, or the body is empty."""
    return Problem(400, "BAD_PAYLOAD", message)


def bad_uri(path: str) -> Problem:
    """There is no such path; Arrowhead says 400, not 404."""
    return Problem(400, "BAD_URI", f"the Event Handler has no path {path}; see /eventhandler")


def bad_method(method: str, path: str) -> Problem:
    """The path exists, not with this method."""
    return Problem(405, "BAD_METHOD", f"{method} is not allowed on {path}")


def bad_media_type(content_type: str) -> Problem:
    """Only JSON is taken; the body's code is 405, an oddity of 4.1.2."""
    return Problem(415, "BAD_MEDIA_TYPE", f"{content_type!r} is not application/json", code=405)


def no_filter(number: int) -> Problem:
    """The operator asks for a filter that is not there."""
    return Problem(404, "DATA_NOT_FOUND", f"there is no EventFilter with the id {number}")
