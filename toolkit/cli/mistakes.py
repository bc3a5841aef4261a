"""What to type in the place of an option that other programs have."""

from __future__ import annotations

from collections.abc import Sequence

CONSENT = frozenset({"--yes", "-y", "--force", "--auto-approve", "--assume-yes", "--no-input"})
PLACE = frozenset({"--testbed", "-t", "--file", "-f", "--name", "-n"})
ELSEWHERE = {"--version": "version", "-V": "version", "-h": "--help"}


def instead(option: str, words: Sequence[str], known: frozenset[str], arguments: frozenset[str]) -> str:
    """What to do about an option that the command has not, and the line to type; empty: nothing is known of it.

    `words` are the command line after the program's name; `known` and `arguments` the command's own options and
    arguments.
    """
    at = next((at for at, word in enumerate(words) if word.partition("=")[0] == option), None)
    if at is None:
        return ""
    before, value, after = [*words[:at]], words[at].partition("=")[2], [*words[at + 1 :]]
    given = [value, *after] if value else after
    names_something = bool(given) and not given[0].startswith("-")
    if option in ELSEWHERE:
        return _typed("", [*before, ELSEWHERE[option]])
    if option in PLACE and names_something and "--testbed" in known:
        return _typed("", [*before, "--testbed", *given])
    if option in PLACE and names_something and arguments & {"testbed", "file", "files"}:
        return _typed("it is named without an option", [*before, *given])
    if option in CONSENT or option == "-f":
        return _typed("no command asks back", [*before, *given])
    return ""


def _typed(why: str, words: Sequence[str]) -> str:
    return f"{why}; type: {' '.join(['toolkit', *words])}".removeprefix("; ")
