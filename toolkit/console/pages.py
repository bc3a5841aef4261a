"""Pages from templates, and the files they need; all of it from this machine."""

from __future__ import annotations

import functools
import gzip
import hashlib
import mimetypes
import time
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

import jinja2
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from toolkit import __version__, paths
from toolkit.console.guard import RefusedError

HOME = paths.TEMPLATES / "console"
VENDOR = paths.TEMPLATES / "vendor"
VENDORED = {"htmx.min.js": VENDOR / "htmx/htmx.min.js", "echarts.min.js": VENDOR / "echarts/echarts.min.js"}
_WORTH_PACKING = 1024
NOTHING = "\N{EN DASH}"
"""Stands where there is no figure."""


def page(
    request: Request, name: str, status: int = 200, headers: Mapping[str, str] | None = None, **values: Any
) -> Response:
    """A page or a part of one; every template knows whose session it is drawn for."""
    session = getattr(request.state, "session", None)
    text = (
        _templates()
        .get_template(f"{name}.html.j2")
        .render(may_act=bool(session and session.may_act), path=request.url.path, version=__version__, **values)
    )
    return packed(request, HTMLResponse(text, status_code=status, headers=headers))


def refusal(error: RefusedError) -> Response:
    """The page for a request that is not let through."""
    text = _templates().get_template("refused.html.j2").render(
        title=HTTPStatus(error.status).phrase if error.status != 401 else "Come in by the link",  # noqa: PLR2004
        message=str(error), may_act=False, path="", version=__version__, back="",
    )  # fmt: skip
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


@functools.cache
def _templates() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HOME),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"ago": ago, "moment": moment, "lasted": lasted, "size": size, "rate": rate, "delay": delay}
    environment.globals |= {"static": static_url}
    return environment


# -- files ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class StaticFile:
    """A file in memory, packed once."""

    body: bytes
    packed: bytes
    digest: str
    media_type: str


def static_url(name: str) -> str:
    """A file's address; it changes with the content, so browsers may keep it for ever."""
    return f"/static/{_folder_digest() if name.endswith('.js') and name not in VENDORED else _file(name).digest}/{name}"


@functools.cache
def _folder_digest() -> str:
    """Of all modules together, since they import each other by relative addresses."""
    names = sorted(path.name for path in (HOME / "static").glob("*.js"))
    return hashlib.sha256("".join(_file(name).digest for name in names).encode()).hexdigest()[:12]


@functools.cache
def _file(name: str) -> StaticFile:
    path = VENDORED.get(name) or HOME / "static" / Path(name).name
    body = path.read_bytes()
    media = mimetypes.guess_type(name)[0] or "application/octet-stream"
    return StaticFile(
        body=body,
        packed=gzip.compress(body, 9, mtime=0),
        digest=hashlib.sha256(body).hexdigest()[:12],
        media_type=media,
    )


def static(request: Request) -> Response:
    """A file of the console's own, or one of `VENDORED`."""
    try:
        file = _file(request.path_params["name"])
    except OSError:
        return Response("there is no such file\n", 404, media_type="text/plain")
    headers = {"cache-control": "public, max-age=31536000, immutable", "vary": "accept-encoding"}
    if "gzip" in request.headers.get("accept-encoding", ""):
        return Response(file.packed, headers={**headers, "content-encoding": "gzip"}, media_type=file.media_type)
    return Response(file.body, headers=headers, media_type=file.media_type)


# -- words ------------------------------------------------------------------------------------------------------------


def ago(at: float | None) -> str:
    """How long ago, coarsely."""
    if not at:
        return NOTHING
    passed = max(0.0, time.time() - at)
    for limit, unit, words in ((90, 1, "s"), (5400, 60, "min"), (129600, 3600, "h")):
        if passed < limit:
            return f"{passed / unit:.0f} {words} ago"
    return f"{passed / 86400:.0f} days ago"


def moment(at: float | None) -> str:
    """Date and time on this machine's clock."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at)) if at else NOTHING


def lasted(seconds: float | None) -> str:
    """A duration."""
    if seconds is None:
        return NOTHING
    return f"{seconds:.1f} s" if seconds < 60 else f"{seconds // 60:.0f} min {seconds % 60:.0f} s"  # noqa: PLR2004


def size(count: float | None) -> str:
    """Bytes, in decimal multiples."""
    if count is None:
        return NOTHING
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:  # noqa: PLR2004
            return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.1f} {unit}"  # noqa: PLR2004
        count /= 1000
    return f"{count:.1f} TB"


def rate(bits_per_s: float | None) -> str:
    """A link's speed."""
    if not bits_per_s:
        return ""
    return f"{bits_per_s / 1e9:g} Gbit/s" if bits_per_s >= 1e9 else f"{bits_per_s / 1e6:g} Mbit/s"  # noqa: PLR2004


def delay(milliseconds: float | None) -> str:
    """A delay to three figures."""
    if milliseconds is None:
        return NOTHING
    return f"{milliseconds:.3g} ms" if milliseconds < 999.5 else f"{milliseconds / 1000:.3g} s"  # noqa: PLR2004
