"""YAML 1.2 text to plain values, with the line and column of everything, and duplicate keys refused."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Any

from toolkit.errors import FileInvalidError, Problem

Path = tuple[str | int, ...]
Position = tuple[int, int]
"""Line and column, counted from 1."""

_MOST_VALUES = 200_000
"""Aliases of aliases can make a small file enormous; no testbed comes near this."""

_DEEPEST = 50
"""Levels of nesting; a testbed has seven."""

_TAGS = {None, "!", "!!str", "tag:yaml.org,2002:str"}
"""Those that say no more than quotes do."""

_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_./-]*")
"""Text that needs no quotes, unless it reads as something else."""
_UNPRINTABLE = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")
"""Characters that YAML wants escaped, or takes for line breaks, beyond those JSON escapes."""

_INTEGER = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_WORDS: dict[str, Any] = {
    "": None,
    "~": None,
    **dict.fromkeys(("null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """The values of a file and where each stands."""

    file: str
    root: Any
    keys: Mapping[Path, Position] = field(default_factory=dict)
    """Where the key (or the list item) of a path stands."""
    values: Mapping[Path, Position] = field(default_factory=dict)
    """Where its value stands."""
    references: Mapping[Path, bool] = field(default_factory=dict)
    """Texts with a `${`, and whether they stand without quotes."""
    folder: FilePath = field(default_factory=FilePath)
    """Where relative paths in the file start."""
    overridden: dict[Path, str] = field(default_factory=dict)
    """Paths whose value came from elsewhere, and from where."""
    joined: Mapping[Path, Document] = field(default_factory=dict)
    """Paths that stand in another file."""
    problems: tuple[Problem, ...] = ()
    """Duplicate keys, and what else can be told without knowing what the values mean; the rest was read."""

    def folder_of(self, path: Path) -> FilePath:
        """The folder of the file in which a path stands."""
        for parent in (path[:n] for n in range(len(path), -1, -1)):
            if parent in self.joined:
                return self.joined[parent].folder
        return self.folder

    def problem(self, path: Path, message: str, *, at_key: bool = False) -> Problem:
        """A problem at a path, or at the nearest thing above it that the file has."""
        for parent in (path[:n] for n in range(len(path), -1, -1)):
            if parent in self.overridden:
                return Problem(file=self.overridden[parent], line=1, column=1, message=message)
            if parent in self.joined:
                return self.joined[parent].problem(path, message, at_key=at_key)
            places = self.keys if at_key or parent != path else self.values
            if parent in places:
                line, column = places[parent]
                return Problem(file=self.file, line=line, column=column, message=message)
        return Problem(file=self.file, line=1, column=1, message=message)


def scalar(text: str) -> Any:
    """What a plain scalar means in YAML 1.2's core schema: `on`, `yes` and `22:22` are text."""
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.fullmatch(text):
        return int(text, 0) if text[:2] in {"0o", "0x"} else int(text)
    if _FLOAT.fullmatch(text):
        return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
    return text


def read(file: FilePath) -> Document:
    """The document of a file; raises FileInvalidError where it cannot be read, or for the first syntax error."""
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        message = f"cannot be read: {error.strerror}; try: toolkit init"
        raise FileInvalidError([Problem(file=str(file), line=1, column=1, message=message)]) from None
    except UnicodeDecodeError as error:
        message = f"is not UTF-8 text (byte {error.start})"
        raise FileInvalidError([Problem(file=str(file), line=1, column=1, message=message)]) from None
    return _document(text, str(file), file.parent.absolute())


def parse(text: str, file: str, folder: FilePath = FilePath(), *, typed: bool = True) -> Document:
    """The one document of a file; raises FileInvalidError with every duplicate key, or the first syntax error.

    Not `typed`, every scalar is the text it is written as.
    """
    document = _document(text, file, folder, typed=typed)
    if document.problems:
        raise FileInvalidError([*document.problems])
    return document


def _document(text: str, file: str, folder: FilePath, *, typed: bool = True) -> Document:
    reader = _Reader(file, typed=typed)
    root = reader.read(iter(_events(text, file)))
    return Document(
        file=file,
        root=root,
        keys=reader.keys,
        values=reader.values,
        references=reader.references,
        folder=folder,
        problems=tuple(reader.problems),
    )


def _events(text: str, file: str) -> list[Any]:
    """Parser events: from libyaml where it can, being 25 times faster, else from ruamel.

    libyaml refuses a few texts that are YAML 1.2, such as `[::a]`; so ruamel has the last word, and words the error.
    """
    try:
        from yaml import CLoader, YAMLError, parse  # type: ignore[import-untyped]
    except ImportError:
        return _events_of_ruamel(text, file)
    try:
        return list(_down_to_the_deepest(parse(text, Loader=CLoader)))
    except YAMLError:
        return _events_of_ruamel(text, file)


def _events_of_ruamel(text: str, file: str) -> list[Any]:
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    try:
        return list(_down_to_the_deepest(YAML(typ="safe", pure=True).parse(text)))
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        if "end of stream" in str(error.problem):
            mark = error.context_mark or mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        said = ": ".join(str(part) for part in (error.context, error.problem) if part)
        message = f"not YAML: {said}; {_advice(text, line, str(error.problem))}"
        raise FileInvalidError([Problem(file=file, line=line, column=column, message=message)]) from None
    except YAMLError as error:
        # The reader's errors know the place only as an index into the text.
        before = text[: getattr(error, "position", 0) or 0]
        line, column = before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1
        message = f"not YAML: {getattr(error, 'reason', None) or ' '.join(str(error).split())}; remove it"
        raise FileInvalidError([Problem(file=file, line=line, column=column, message=message)]) from None


def _advice(text: str, line: int, said: str) -> str:
    """What usually helps where YAML cannot be read."""
    here = next(iter(text.splitlines()[line - 1 : line]), "")
    if "\t" in here[: len(here) - len(here.lstrip())]:
        return "indent with spaces, not with tabs"
    if re.search(r"[{,\[:]\s*\$\{", here):
        return 'inside of { } and [ ] write references in quotes: "${NAME}"'
    if "end of stream" in said:
        return "what begins here has no end"
    if "mapping values are not allowed" in said:
        return "text with ': ' in it goes into quotes, and keys of one mapping begin in one column"
    if "<block mapping start>" in said:
        return "keys of one mapping begin in one column"
    return "check quotes, brackets and indentation around here"


def _down_to_the_deepest(events: Iterable[Any]) -> Iterator[Any]:
    """Events until they are nested deeper than is read: both parsers take minutes for a hundred thousand brackets."""
    depth = 0
    for event in events:
        yield event
        kind = _kind(event)
        depth += kind.endswith("Start") - kind.endswith("End")
        if depth > 2 * _DEEPEST:
            return


def _kind(event: Any) -> str:
    """Scalar, Alias, MappingStart, SequenceEnd …: both parsers name their events alike."""
    return str(type(event).__name__).removesuffix("Event")


def write(root: Mapping[str, Any]) -> str:
    """YAML that `parse` reads back as equal: mappings in blocks, lists in a line, text quoted when in doubt."""
    return "".join(f"{line}\n" for line in _block(root, ""))


def _block(mapping: Mapping[str, Any], indent: str) -> Iterator[str]:
    for key, value in mapping.items():
        if isinstance(value, dict) and value:
            yield f"{indent}{_flow(key)}:"
            yield from _block(value, f"{indent}  ")
        else:
            yield f"{indent}{_flow(key)}: {_flow(value)}"


def _flow(value: Any) -> str:
    if isinstance(value, str):
        if _PLAIN.fullmatch(value) and isinstance(scalar(value), str):
            return value
        return _UNPRINTABLE.sub(lambda found: f"\\u{ord(found.group()):04x}", json.dumps(value, ensure_ascii=False))
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_flow(key)}: {_flow(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_flow, value)) + "]"
    if isinstance(value, float) and not math.isfinite(value):
        return ".nan" if math.isnan(value) else ".inf" if value > 0 else "-.inf"
    return json.dumps(value)


class _Reader:
    """Builds values from parser events."""

    def __init__(self, file: str, *, typed: bool = True) -> None:
        self.file = file
        self._typed = typed
        self.keys: dict[Path, Position] = {}
        self.values: dict[Path, Position] = {}
        self.references: dict[Path, bool] = {}
        self.problems: list[Problem] = []
        self._anchors: dict[str, tuple[Any, int]] = {}
        self._count = 0

    def read(self, events: Iterator[Any]) -> Any:
        root: Any = None
        documents = 0
        for event in events:
            if _kind(event) not in {"Scalar", "MappingStart", "SequenceStart", "Alias"}:
                continue
            documents += 1
            if documents > 1:
                self._complain(event, "a second document; a testbed is one document, so remove the `---` above")
                break
            root = self._value(event, events, ())
        return root

    def _complain(self, event: Any, message: str) -> None:
        line, column = _position(event)
        self.problems.append(Problem(file=self.file, line=line, column=column, message=message))

    def _value(self, event: Any, events: Iterator[Any], path: Path) -> Any:
        self.values[path] = _position(event)
        self._count += 1
        if len(path) > _DEEPEST:
            self._complain(event, "nested too deeply; no part of a testbed is")
            raise FileInvalidError(self.problems)
        kind = _kind(event)
        if kind == "Alias":
            return self._alias(event)
        before = self._count
        if event.tag not in _TAGS:
            self._complain(event, f"tags such as {event.tag} mean nothing here; write the plain value")
        value: Any
        if kind == "Scalar":
            plain = event.implicit[0] and not event.style
            value = scalar(event.value) if plain and self._typed else self._text(event)
            if "${" in event.value:
                self.references[path] = plain
        elif kind == "MappingStart":
            value = self._mapping(events, path)
        else:
            value = []
            while _kind(item := next(events)) != "SequenceEnd":
                self.keys[*path, len(value)] = _position(item)
                value.append(self._value(item, events, (*path, len(value))))
        if event.anchor:
            self._anchors[event.anchor] = (value, self._count - before + 1)
        return value

    def _text(self, event: Any) -> str:
        """The text, its pairs of surrogate escapes joined to one character as in JSON."""
        text = str(event.value)
        if text.isascii():
            return text
        try:
            return text.encode("utf-16", "surrogatepass").decode("utf-16")
        except UnicodeDecodeError:
            self._complain(event, "half a character: a \\ud800 to \\udfff without its other half")
            return ""

    def _mapping(self, events: Iterator[Any], path: Path) -> dict[str, Any]:
        value: dict[str, Any] = {}
        while _kind(key := next(events)) != "MappingEnd":
            if _kind(key) != "Scalar":
                self._complain(key, "a key must be plain text")
                self._value(key, events, (*path, "?"))
                self._value(next(events), events, (*path, "?"))
                continue
            name = self._text(key)
            place = (*path, name)
            if name in value:
                line, _ = self.keys[place]
                self._complain(key, f"duplicate key {name!r}: it already stands in line {line}; keep one of them")
                again = (*place, "?")
                value[name] = self._both(value[name], self._value(next(events), events, again), place, again)
            else:
                self.keys[place] = _position(key)
                value[name] = self._value(next(events), events, place)
        return value

    def _both(self, first: Any, second: Any, place: Path, again: Path) -> Any:
        """What two values of one key are checked as: of mappings every entry, so that none seems to be missing."""
        if not isinstance(first, dict) or not isinstance(second, dict):
            return first
        noted: tuple[dict[Path, Any], ...] = (self.keys, self.values, self.references)
        for places in noted:
            for path in [path for path in places if path[: len(again)] == again]:
                places.setdefault((*place, *path[len(again) :]), places[path])
        return {**second, **first}

    def _alias(self, event: Any) -> Any:
        if event.anchor not in self._anchors:
            self._complain(event, f"nothing above is marked &{event.anchor}")
            return None
        value, size = self._anchors[event.anchor]
        self._count += size
        if self._count > _MOST_VALUES:
            self._complain(event, "aliases make this file enormous; write it out")
            raise FileInvalidError(self.problems)
        return value


def _position(event: Any) -> Position:
    return event.start_mark.line + 1, event.start_mark.column + 1
