"""The form of names, and the nearest valid one to a wrong one."""

from __future__ import annotations

from collections.abc import Iterable

NAME_PATTERN = "^[a-z]([a-z0-9-]{0,38}[a-z0-9])?$"


def did_you_mean(name: str, candidates: Iterable[str]) -> str:
    """A hint to append to an error: `; did you mean 'delay'?`, or the valid names where none is near and few exist."""
    from difflib import get_close_matches

    known = sorted(set(candidates))
    by_lower = {candidate.lower(): candidate for candidate in reversed(known)}
    if near := get_close_matches(name.lower(), by_lower, n=1, cutoff=0.6):
        return f"; did you mean {by_lower[near[0]]!r}?"
    few = 20
    return f"; expected one of {', '.join(known)}" if 0 < len(known) <= few else ""
