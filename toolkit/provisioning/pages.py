"""The text of the console's pages: templates, words for figures, and the files that pages load."""

from __future__ import annotations

import functools
import gzip
import hashlib
import mimetypes
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from toolkit import __version__, paths

HOME = paths.TEMPLATES / "console"
VENDOR = paths.TEMPLATES / "vendor"
VENDORED = {"htmx.min.js": VENDOR / "htmx/htmx.min.js", "echarts.min.js": VENDOR / "echarts/echarts.min.js"}
NOTHING = "\N{EN DASH}"
"""Stands where there is no figure."""


def text_of(name: str, *, on_monitor: bool = False, is_in: bool = True, **values: Any) -> str:
    """A page or a part of one; those for the monitor's node lead only to what is there, a stranger's nowhere."""
    template = _templates().get_template(f"{name}.html.j2")
    return template.render(version=__version__, on_monitor=on_monitor, is_in=is_in, **values)


def prepare() -> None:
    """Compile every template and pack every file, so that nobody who opens a page waits for it."""
    for name in _templates().list_templates(extensions=["j2"]):
        _templates().get_template(name)
    for name in (*VENDORED, *(file.name for file in (HOME / "static").iterdir())):
        static_file(name)


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
    own_module = name.endswith(".js") and name not in VENDORED
    return f"/static/{_folder_digest() if own_module else static_file(name).digest}/{name}"


@functools.cache
def _folder_digest() -> str:
    """Of all modules together, since they import each other by relative addresses."""
    names = sorted(path.name for path in (HOME / "static").glob("*.js"))
    return hashlib.sha256("".join(static_file(name).digest for name in names).encode()).hexdigest()[:12]


@functools.cache
def static_file(name: str) -> StaticFile:
    """A file of the console's own, or one of `VENDORED`; raises OSError where there is none."""
    path = VENDORED.get(name) or HOME / "static" / Path(name).name
    body = path.read_bytes()
    media = mimetypes.guess_type(name)[0] or "application/octet-stream"
    return StaticFile(
        body=body,
        packed=gzip.compress(body, 9, mtime=0),
        digest=hashlib.sha256(body).hexdigest()[:12],
        media_type=media,
    )


# -- words ------------------------------------------------------------------------------------------------------------


def ago(at: float | None) -> str:
    """How long ago, coarsely; page.js keeps it true while a page is open, and pointing at it tells the instant."""
    if not at:
        return NOTHING
    passed = max(0.0, time.time() - at)
    limits = ((90, 1, "s"), (5400, 60, "min"), (129600, 3600, "h"), (float("inf"), 86400, "days"))
    unit, words = next((unit, words) for limit, unit, words in limits if passed < limit)
    return Markup('<time data-at="{}" title="{}">{} {} ago</time>').format(
        f"{at:.0f}", moment(at), f"{passed / unit:.0f}", words
    )


def moment(at: float | None) -> str:
    """Date and time on this machine's clock."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at)) if at else NOTHING


def lasted(seconds: float | None) -> str:
    """A duration."""
    if seconds is None:
        return NOTHING
    whole = round(seconds)
    return f"{seconds:.1f} s" if seconds < 59.95 else f"{whole // 60} min {whole % 60} s"  # noqa: PLR2004


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
