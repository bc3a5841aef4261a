"""Messages from and to JSON, with the coercions and field rules that the Java systems have."""

from __future__ import annotations

import dataclasses
import json
import re
import types
import typing
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from enum import Enum
from functools import cache
from typing import Any, TypeVar

from toolkit.node.arrowhead.fields import Rules, json_name, rules_of
from toolkit.node.arrowhead.pretty import pretty
from toolkit.node.arrowhead.quirks import QUIRKS, Quirks
from toolkit.node.arrowhead.refusals import Refusal

T = TypeVar("T")

_ASCII_NAME = re.compile(r"[A-Za-z0-9\-_:]+")
_UNICODE_NAME = re.compile(r"(?:[^\W\d_]|[0-9\-_:])+")
_ISO = re.compile(r"(\d{4}-\d\d-\d\d)T(\d\d:\d\d)(:\d\d)?(?:\.(\d{1,9}))?(Z)?")
_TROUBLE = re.compile(rb"\\u(?:0000|[dD][89a-fA-F])")
"""Escapes of NUL and of surrogates: the only ways to a string that a database cannot keep."""


class MappingError(ValueError):
    """The JSON is well-formed but has the wrong shape for the message."""


class Reading:
    """One document being read: how, and which rules it broke so far."""

    __slots__ = ("now", "quirks", "violations")

    def __init__(self, quirks: Quirks) -> None:
        self.quirks = quirks
        self.now = datetime.now()  # noqa: DTZ005 - a LocalDateTime has no zone
        self.violations: list[tuple[str, str]] = []


Parse = Callable[[Any, str, Reading], Any]


def read(kind: type[T], body: bytes, quirks: Quirks = QUIRKS["4.1"]) -> T:
    """Read a message of class `kind`, or a list of one for `list[kind]`.

    Raises Refusal: JSON_PROCESSING for what is no JSON or has the wrong shape, BAD_PAYLOAD for broken field rules.
    """
    document = load_json(body, quirks)
    if document is None:
        raise Refusal("BAD_PAYLOAD", "The payload is null", status=quirks.validation_status)
    reading = Reading(quirks)
    try:
        value = _parser(typing.cast("Any", kind))(document, "", reading)
    except MappingError as error:
        raise Refusal("JSON_PROCESSING", str(error), status=quirks.validation_status) from None
    if reading.violations:
        text = "".join(f"{path}: {message}, " for path, message in reading.violations)
        raise Refusal("BAD_PAYLOAD", text, status=quirks.validation_status)
    return typing.cast("T", value)


def write(value: object) -> bytes:
    """The message as pretty-printed JSON; fields that are None are left out."""
    return pretty(document_of(value)).encode()


def load_json(body: bytes, quirks: Quirks) -> Any:
    """Parse a body; raises Refusal JSON_PROCESSING."""
    try:
        text = body.decode()
        document = json.loads(text, parse_constant=_refuse_constant)
        if _TROUBLE.search(body):
            json.dumps(document, ensure_ascii=False).encode()
            if b"\\u0000" in body:
                raise MappingError("NUL is not allowed in a string")
    except (ValueError, RecursionError) as error:
        message = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise Refusal("JSON_PROCESSING", message, status=quirks.validation_status) from None
    return document


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


# ---------------------------------------------------------------- writing


def document_of(value: Any) -> Any:
    """The message as dicts and lists, ready for `pretty`."""
    if isinstance(value, Enum):
        return value.value
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, datetime):
        return local_date_time(value)
    if isinstance(value, Mapping):
        return {str(key): document_of(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [document_of(item) for item in value]
    document = {}
    for attribute, name, omit_empty in _written_fields(typing.cast("Any", type(value))):
        item = getattr(value, attribute)
        if item is None or (omit_empty and not item):
            continue
        document[name] = document_of(item)
    return document


@cache
def _written_fields(kind: Any) -> tuple[tuple[str, str, bool], ...]:
    return tuple((field.name, json_name(field), rules_of(field).omit_empty) for field in dataclasses.fields(kind))


def local_date_time(value: datetime) -> str:
    """ISO form without a zone; the fraction only when there is one."""
    text = value.replace(tzinfo=None).isoformat(timespec="microseconds")
    return text.rstrip("0").rstrip(".") if "." in text and not text.endswith(".000000") else text[:19]


# ---------------------------------------------------------------- reading


@cache
def _parser(kind: Any) -> Parse:  # noqa: C901 - it builds one function
    if typing.get_origin(kind) is list:
        return _array(_parser(typing.get_args(kind)[0]), Rules(), list)
    plan = {}
    for field in dataclasses.fields(kind):
        rules = rules_of(field)
        parse = _parser_for(typing.get_type_hints(kind)[field.name], rules)
        plan[json_name(field).lower()] = (field.name, json_name(field), rules, parse)
    required = [(name, attribute) for attribute, name, rules, _ in plan.values() if rules.required]
    unfit = _unfit_defaults(kind)

    def parse_object(value: Any, path: str, reading: Reading) -> Any:
        if not isinstance(value, dict):
            raise MappingError(f"{path or 'the document'}: expected an object of type {kind.__name__}")
        found = {}
        for key, item in value.items():
            known = plan.get(key.lower())
            if known is None or item is None:
                continue
            attribute, name, _, parse = known
            found[attribute] = parse(item, f"{path}.{name}" if path else name, reading)
        for name, attribute in required:
            if found.get(attribute) is None:
                found[attribute] = None
                reading.violations.append((f"{path}.{name}" if path else name, "must not be null"))
        for attribute, name, least in unfit:
            if attribute not in found:
                where = f"{path}.{name}" if path else name
                reading.violations.append((where, f"must be greater than or equal to {least}"))
        return kind(**found)

    return parse_object


def _unfit_defaults(kind: Any) -> list[tuple[str, str, int | None]]:
    """Fields whose default breaks their own rule, and so must be sent: name, JSON name, least value."""
    return [
        (field.name, json_name(field), rules_of(field).least)
        for field in dataclasses.fields(kind)
        if isinstance(field.default, int) and field.default < (rules_of(field).least or field.default)
    ]


def _parser_for(hint: Any, rules: Rules) -> Parse:  # noqa: PLR0911 - one for each kind of value
    if isinstance(hint, types.UnionType):
        hint = next(option for option in typing.get_args(hint) if option is not type(None))
    origin = typing.get_origin(hint)
    if origin is tuple:
        element = typing.get_args(hint)[0]
        return _array(_parser_for(element, Rules(not_blank=False)), rules, tuple)
    if origin is not None and issubclass(origin, Mapping):
        of_values = Rules(longest=rules.longest_value, least=rules.least_value)
        return _object(_parser_for(typing.get_args(hint)[1], of_values), rules)
    if hint is str:
        return _text(rules)
    if hint is bool:
        return _boolean
    if hint is int:
        return _whole(rules)
    if hint is datetime:
        return _date_time(rules)
    if isinstance(hint, type) and issubclass(hint, Enum):
        return _choice(hint)
    return _parser(hint)


def _text(rules: Rules) -> Parse:
    def parse(value: Any, path: str, reading: Reading) -> str:
        if isinstance(value, dict | list):
            raise MappingError(f"{path}: expected a string")
        text = value if isinstance(value, str) else pretty(value)
        if rules.not_blank and not text.strip():
            reading.violations.append((path, "must not be blank"))
        elif rules.shortest > len(text) or (rules.longest is not None and len(text) > rules.longest):
            reading.violations.append((path, f"size must be between {rules.shortest} and {rules.longest}"))
        if rules.is_name and text.strip():
            allowed = _UNICODE_NAME if reading.quirks.unicode_names else _ASCII_NAME
            if not allowed.fullmatch(text):
                reading.violations.append((path, 'must match "[A-Za-z0-9-_:]+"'))
        return text

    return parse


def _whole(rules: Rules) -> Parse:
    bound = 2**63 if rules.long else 2**31

    def parse(value: Any, path: str, reading: Reading) -> int:
        if isinstance(value, bool):
            raise MappingError(f"{path}: expected a whole number")
        try:
            number = int(value.strip() or 0) if isinstance(value, str) else int(value)
        except (ValueError, TypeError, OverflowError):
            raise MappingError(f"{path}: expected a whole number") from None
        if not -bound <= number < bound:
            raise MappingError(f"{path}: {number} does not fit")
        if rules.least is not None and number < rules.least:
            reading.violations.append((path, f"must be greater than or equal to {rules.least}"))
        if rules.most is not None and number > rules.most:
            reading.violations.append((path, f"must be less than or equal to {rules.most}"))
        return number

    return parse


def _boolean(value: Any, path: str, _: Reading) -> bool:
    if isinstance(value, bool | int):
        return bool(value)
    if isinstance(value, str) and value.strip().lower() in {"true", "false", ""}:
        return value.strip().lower() == "true"
    raise MappingError(f"{path}: expected true or false")


def _date_time(rules: Rules) -> Parse:
    def parse(value: Any, path: str, reading: Reading) -> datetime:
        match = _ISO.fullmatch(value) if isinstance(value, str) else None
        try:
            if match is None:
                raise ValueError  # noqa: TRY301 - one message for both ways of being wrong
            day, minute, second, fraction, _ = match.groups()
            moment = datetime.fromisoformat(f"{day}T{minute}{second or ':00'}.{(fraction or '0')[:6]:0<6}")
        except ValueError:
            raise MappingError(f"{path}: expected a local date and time like 2031-01-01T00:00:00") from None
        if match[5]:
            moment = moment.replace(tzinfo=UTC).astimezone().replace(tzinfo=None)
        if rules.future and moment <= reading.now:
            reading.violations.append((path, "must be in the future"))
        return moment

    return parse


def _choice(kind: type[Enum]) -> Parse:
    def parse(value: Any, path: str, _: Reading) -> Enum:
        try:
            return kind(value)
        except ValueError:
            raise MappingError(f"{path}: expected one of {', '.join(option.value for option in kind)}") from None

    return parse


def _array(parse_element: Parse, rules: Rules, made_of: type[list[Any] | tuple[Any, ...]]) -> Parse:
    def parse(value: Any, path: str, reading: Reading) -> Any:
        if not isinstance(value, list):
            raise MappingError(f"{path or 'the document'}: expected an array")
        elements = []
        for index, item in enumerate(value):
            where = f"{path}[{index}]"
            if item is None:
                reading.violations.append((where, "must not be null"))
                continue
            before = len(reading.violations)
            element = parse_element(item, where, reading)
            if rules.drop_invalid and len(reading.violations) > before:
                del reading.violations[before:]
                continue
            if reading.quirks.blank_entries_refused and isinstance(element, str) and not element.strip():
                reading.violations.append((where, "must not be blank"))
            # The originals hold these in sets.
            if not isinstance(element, str) or element not in elements:
                elements.append(element)
        if len(elements) < rules.shortest:
            reading.violations.append((path, "must not be empty"))
        if rules.longest is not None and len(elements) > rules.longest:
            reading.violations.append((path, f"size must be between 0 and {rules.longest}"))
        return made_of(elements)

    return parse


def _object(parse_value: Parse, rules: Rules) -> Parse:
    def parse(value: Any, path: str, reading: Reading) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise MappingError(f"{path}: expected an object")
        pairs = {}
        for key, item in value.items():
            where = f"{path}[{key}]"
            if item is None:
                reading.violations.append((where, "must not be null"))
                continue
            pairs[key] = parse_value(item, where, reading)
            blank = not key.strip() or (isinstance(pairs[key], str) and not pairs[key].strip())
            if reading.quirks.blank_entries_refused and blank:
                reading.violations.append((where, "must not be blank"))
        if len(pairs) < rules.shortest:
            reading.violations.append((path, "must not be empty"))
        if rules.longest is not None and len(pairs) > rules.longest:
            reading.violations.append((path, f"size must be between 0 and {rules.longest}"))
        return pairs

    return parse
