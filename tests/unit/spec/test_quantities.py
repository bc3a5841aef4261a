from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.spec import quantities
from toolkit.spec.quantities import BITRATE, DURATION, FRACTION, FREQUENCY, SIZE


@pytest.mark.parametrize(
    ("read", "text", "value"),
    [
        (quantities.duration_s, "500us", 0.0005),
        (quantities.duration_s, "0.5ms", 0.0005),
        (quantities.duration_s, "2 s", 2.0),
        (quantities.duration_s, "3m", 180.0),
        (quantities.duration_s, "7d", 604800.0),
        (quantities.bitrate_bps, "100mbit", 100_000_000),
        (quantities.bitrate_bps, "2.5gbit", 2_500_000_000),
        (quantities.size_bytes, "512M", 512 * 1024**2),
        (quantities.size_bytes, "71B", 71),
        (quantities.fraction, "0.1%", 0.001),
        (quantities.per_second, "2000/s", 2000.0),
        (quantities.per_second, "30/m", 0.5),
    ],
)
def test_reads_a_number_and_its_unit(read, text, value):
    assert read(text) == value


@pytest.mark.parametrize(
    ("value", "base"), [("30m", 1800.0), ("64K", 65536), ("0B", 0), ("direct", "direct"), (5, 5), (True, True)]
)
def test_settings_can_be_had_in_base_units(value, base):
    assert quantities.in_base_units(value) == base


@pytest.mark.parametrize("text", ["5", "s", "-1s", "1.s", "1 sec", "1e3s", "", " 1s", "1s ", "1s\n", "٣s"])
def test_refuses_what_is_no_duration(text):
    assert not re.search(DURATION.pattern.replace("$", r"\Z"), text, re.ASCII)
    if text.strip() == text:
        with pytest.raises(ValueError, match="write 500us"):
            quantities.duration_s(text)


@pytest.mark.parametrize("quantity", quantities.ALL, ids=lambda quantity: quantity.name)
def test_its_own_examples_are_right(quantity):
    for example in re.findall(r"[0-9][^\s,]*", quantity.example.partition("(")[0]):
        assert re.fullmatch(quantity.pattern, example)


@pytest.mark.parametrize("quantity", [DURATION, FREQUENCY, FRACTION], ids=lambda quantity: quantity.name)
@given(value=st.floats(min_value=0, max_value=1e9, allow_subnormal=False))
def test_what_is_written_reads_back_exactly(quantity, value):
    text = quantity.write(value)
    assert re.fullmatch(quantity.pattern, text)
    assert float(quantity.exactly(text)) == value


@pytest.mark.parametrize("quantity", [BITRATE, SIZE], ids=lambda quantity: quantity.name)
@given(value=st.integers(min_value=0, max_value=10**15))
def test_whole_numbers_read_back_exactly(quantity, value):
    assert int(quantity.exactly(quantity.write(value))) == value


@pytest.mark.parametrize(
    ("quantity", "text", "meant"),
    [
        (DURATION, "5 msec", "5ms"),
        (DURATION, "0,5 sec", "0.5s"),
        (DURATION, "5µs", "5us"),
        (DURATION, "1min", "1m"),
        (DURATION, "1 fortnight", None),
        (BITRATE, "100 Mbps", "100mbit"),
        (BITRATE, "100Mbit/s", "100mbit"),
        (BITRATE, "100M", "100mbit"),
        (BITRATE, "100MB/s", None),  # that is eight times as much
        (SIZE, "512MiB", "512M"),
        (SIZE, "1kb", "1K"),
        (FRACTION, "5 percent", "5%"),
        (FREQUENCY, "100Hz", "100/s"),
        (FREQUENCY, "30 messages per minute", "30/m"),
    ],
)
def test_what_others_write_is_understood_well_enough_to_say_what_was_meant(quantity, text, meant):
    assert quantity.meant(text) == meant
    assert meant is None or re.fullmatch(quantity.pattern, meant)
