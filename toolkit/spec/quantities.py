"""Quantities as people write them: a number and its unit, never a bare number."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

_NUMBER = r"[0-9]+(\.[0-9]+)?"


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantity:
    """One kind of quantity: its units in terms of the base unit, and how to tell people about it."""

    name: str
    example: str
    units: dict[str, int | Fraction]
    spellings: Mapping[str, str] = field(default_factory=dict)
    """How people write units elsewhere, in small letters -> ours."""

    @property
    def pattern(self) -> str:
        """What the text must match; the JSON Schema carries it."""
        return f"^{_NUMBER} ?({'|'.join(sorted(self.units, key=len, reverse=True))})$"

    def exactly(self, text: str) -> Fraction:
        """The value in base units; raises ValueError with a hint for people."""
        number = re.match(_NUMBER, text)
        unit = text[number.end() :].strip() if number else ""
        if number is None or unit not in self.units:
            raise ValueError(f"{text!r} is not {self.name}; write {self.example}")
        return Fraction(number.group()) * self.units[unit]

    def meant(self, text: str) -> str | None:
        """The same amount as it is written here, for "100 Mbps" or "0,5 msec"; None where nobody can tell."""
        found = re.fullmatch(r"\+?([0-9]+)(?:[.,]([0-9]+))? *(\D*)", text.strip())
        if found is None:
            return None
        whole, decimals, unit = found.groups()
        small = unit.strip().lower()
        ours = next((u for u in self.units if u.lower() == small), self.spellings.get(small))
        if ours is None or (self is BITRATE and "B" in unit and not small.endswith("bit")):  # bytes a second
            return None
        return f"{whole}.{decimals}{ours}" if decimals else f"{whole}{ours}"

    def write(self, value: float) -> str:
        """The shortest text that `exactly` reads back as the same value; raises ValueError where there is none."""
        exact = Fraction(repr(value))
        for unit, scale in sorted(self.units.items(), key=lambda item: -item[1]):
            amount = exact / scale
            if amount.denominator == 1 and (amount or scale == 1):
                return f"{amount}{unit}"
        scale, unit = min((scale, unit) for unit, scale in self.units.items())
        return f"{_decimal(exact / scale)}{unit}"


def _decimal(amount: Fraction) -> str:
    """A fraction as a plain decimal number; raises ValueError where it has no finite one."""
    digits = 0
    while (amount * 10**digits).denominator != 1:
        digits += 1
        if digits > 400:  # noqa: PLR2004 - no float has more decimals that matter
            raise ValueError(f"{amount} has no finite decimal form")
    scaled = str(int(amount * 10**digits)).rjust(digits + 1, "0")
    return f"{scaled[:-digits]}.{scaled[-digits:]}" if digits else scaled


def _spelt(**spellings: str) -> dict[str, str]:
    return {spelling: unit for unit, known in spellings.items() for spelling in known.split()}


DURATION = Quantity(
    name="a duration with its unit",
    example="500us, 0.5ms, 2s, 3m, 1h or 7d",
    units={
        "ns": Fraction(1, 10**9),
        "us": Fraction(1, 10**6),
        "ms": Fraction(1, 1000),
        "s": 1,
        "m": 60,
        "h": 3600,
        "d": 86400,
    },
    spellings=_spelt(
        ns="nsec nanoseconds",
        us="\u00b5s \u03bcs usec microseconds",
        ms="msec msecs millis millisecond milliseconds",
        s="sec secs second seconds",
        m="min mins minute minutes",
        h="hr hrs hour hours",
        d="day days",
    ),
)
BITRATE = Quantity(
    name="a link rate with its unit",
    example="250kbit, 100mbit or 1gbit",
    units={"bit": 1, "kbit": 10**3, "mbit": 10**6, "gbit": 10**9},
    spellings=_spelt(
        bit="bps bit/s bits/s",
        kbit="k kb kbps kb/s kbits kbit/s kbits/s",
        mbit="m mb mbps mb/s mbits mbit/s mbits/s",
        gbit="g gb gbps gb/s gbits gbit/s gbits/s",
    ),
)
SIZE = Quantity(
    name="a size with its unit",
    example="71B, 64K, 512M or 1G (powers of 1024)",
    units={"B": 1, "K": 2**10, "M": 2**20, "G": 2**30},
    spellings=_spelt(B="b byte bytes", K="k kb kib", M="m mb mib", G="g gb gib"),
)
FRACTION = Quantity(
    name="a share with its sign",
    example="0.1% or 5%",
    units={"%": Fraction(1, 100)},
    spellings={"percent": "%"},
)
FREQUENCY = Quantity(
    name="a rate with its unit",
    example="100/s, 2000/s or 30/m",
    units={"/s": 1, "/m": Fraction(1, 60)},
    spellings={
        "hz": "/s",
        **{
            f"{what}{sep}{per}": unit
            for what in ("", "msg", "msgs", "messages", "events")
            for sep in ("/", " / ", " per ", "per ")
            for per, unit in {"s": "/s", "sec": "/s", "second": "/s", "m": "/m", "min": "/m", "minute": "/m"}.items()
        },
    },
)

ALL = (DURATION, BITRATE, SIZE, FRACTION, FREQUENCY)
BY_PATTERN = {quantity.pattern: quantity for quantity in ALL}


def in_base_units(value: Any) -> Any:
    """A setting as software wants it: seconds for "30m", bytes for "64K", anything else as it is."""
    if isinstance(value, str):
        if re.fullmatch(DURATION.pattern, value):
            return duration_s(value)
        if re.fullmatch(SIZE.pattern, value):
            return size_bytes(value)
    return value


def duration_s(text: str) -> float:
    """Seconds in "250ms"."""
    return float(DURATION.exactly(text))


def bitrate_bps(text: str) -> int:
    """Bits per second in "100mbit"."""
    return int(BITRATE.exactly(text))


def size_bytes(text: str) -> int:
    """Bytes in "512M", which is 512 times 1024 squared."""
    return int(SIZE.exactly(text))


def fraction(text: str) -> float:
    """0.001 for "0.1%"."""
    return float(FRACTION.exactly(text))


def per_second(text: str) -> float:
    """2000.0 for "2000/s"."""
    return float(FREQUENCY.exactly(text))
