"""What a Raspberry Pi's firmware says of its power and heat; nothing on machines that are no Pi."""

from __future__ import annotations

from pathlib import Path

from toolkit.contract import metrics

SYSFS = Path("/sys")
THROTTLED = "devices/platform/soc/soc:firmware/get_throttled"
"""Below sysfs; hexadecimal, the same bits as `vcgencmd get_throttled`."""
FIRMWARE_BITS = {
    metrics.BOARD_UNDER_VOLTAGE: 1 << 0,
    metrics.BOARD_FREQUENCY_CAPPED: 1 << 1,
    metrics.BOARD_THROTTLED: 1 << 2,
    metrics.BOARD_SOFT_TEMPERATURE_LIMIT: 1 << 3,
}
EVER = 16
"""A bit this much higher tells that the condition has held at some time since the board booted."""


def throttled_bits(sysfs: Path = SYSFS) -> int | None:
    """What the firmware says now; None where its file is not there."""
    try:
        return int((sysfs / THROTTLED).read_text().strip(), 16)
    except (OSError, ValueError):
        return None


def board_families(sysfs: Path = SYSFS) -> dict[metrics.Metric, dict[tuple[str, ...], float]]:
    """Each condition twice: `since="now"` and `since="boot"`; empty where the firmware's file is not there."""
    bits = throttled_bits(sysfs)
    if bits is None:
        return {}
    return {
        metric: {("now",): float(bool(bits & bit)), ("boot",): float(bool(bits & bit << EVER))}
        for metric, bit in FIRMWARE_BITS.items()
    }
