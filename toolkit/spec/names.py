"""The form of names, and the nearest valid one to a wrong one."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

NAME_PATTERN = "^[a-z]([a-z0-9-]{0,38}[a-z0-9])?$"


def as_name(text: str) -> str:
    """The nearest text that may be a name, such as `kuche-2` for "Küche 2"; empty where there is none."""
    letters = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", letters).lstrip("-0123456789")[:40].rstrip("-")


def did_you_mean(name: str, candidates: Iterable[str]) -> str:
    """A hint to append to an error: `; did you mean 'delay'?`, or the valid names where none is near and few exist."""
    from difflib import get_close_matches

    known = sorted(set(candidates))
    by_lower = {candidate.lower(): candidate for candidate in reversed(known)}
    if near := get_close_matches(name.lower(), by_lower, n=1, cutoff=0.6):
        return f"; did you mean {by_lower[near[0]]!r}?"
    few = 20
    return f"; expected one of {', '.join(known)}" if 0 < len(known) <= few else ""
