"""Pages and the files they need, as answers to a browser; all of it from this machine."""

from __future__ import annotations

import gzip
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from toolkit.console.guard import RefusedError
from toolkit.provisioning.pages import static_file, text_of

_WORTH_PACKING = 1024


def page(
    request: Request, name: str, status: int = 200, headers: Mapping[str, str] | None = None, **values: Any
) -> Response:
    """A page or a part of one; every template knows whose session it is drawn for."""
    session = getattr(request.state, "session", None)
    may_act = bool(session and session.may_act)
    text = text_of(name, may_act=may_act, is_in=session is not None, path=request.url.path, **values)
    return packed(request, HTMLResponse(text, status_code=status, headers=headers))


def refusal(error: RefusedError) -> Response:
    """The page for a request that is not let through."""
    title = HTTPStatus(error.status).phrase if error.status != 401 else "Come in by the link"  # noqa: PLR2004
    text = text_of("refused", title=title, message=str(error), may_act=False, is_in=False, path="", back="")
    return HTMLResponse(text, status_code=error.status)


def packed(request: Request, response: Response) -> Response:
    """The same answer in fewer bytes where the browser takes them."""
    body = bytes(response.body)
    if len(body) > _WORTH_PACKING and "gzip" in request.headers.get("accept-encoding", ""):
        response.body = gzip.compress(body, 5, mtime=0)
        response.headers["content-encoding"] = "gzip"
        response.headers["content-length"] = str(len(response.body))
        response.headers["vary"] = "accept-encoding"
    return response


async def static(request: Request) -> Response:  # from memory: no thread is needed
    """A file of the console's own, or one of `VENDORED`."""
    try:
        file = static_file(request.path_params["name"])
    except OSError:
        return Response("there is no such file\n", 404, media_type="text/plain")
    headers = {"cache-control": "public, max-age=31536000, immutable", "vary": "accept-encoding"}
    if "gzip" in request.headers.get("accept-encoding", ""):
        return Response(file.packed, headers={**headers, "content-encoding": "gzip"}, media_type=file.media_type)
    return Response(file.body, headers=headers, media_type=file.media_type)
