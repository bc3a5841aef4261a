from __future__ import annotations

from pathlib import Path

import pytest

from toolkit.contract import metrics
from toolkit.node.board import THROTTLED, board_families, throttled_bits


def test_the_firmware_bits_become_conditions_now_and_since_boot(tmp_path: Path) -> None:
    file = tmp_path / THROTTLED
    file.parent.mkdir(parents=True)
    file.write_text("50005\n")  # under-voltage and throttled, now and since boot
    families = board_families(tmp_path)
    assert throttled_bits(tmp_path) == 0x50005
    assert families[metrics.BOARD_UNDER_VOLTAGE] == {("now",): 1.0, ("boot",): 1.0}
    assert families[metrics.BOARD_THROTTLED] == {("now",): 1.0, ("boot",): 1.0}
    assert families[metrics.BOARD_FREQUENCY_CAPPED] == {("now",): 0.0, ("boot",): 0.0}
    file.write_text("20000\n")  # capped once, not now
    assert board_families(tmp_path)[metrics.BOARD_FREQUENCY_CAPPED] == {("now",): 0.0, ("boot",): 1.0}


@pytest.mark.parametrize("content", [None, "", "not hexadecimal"])
def test_machines_that_are_no_pi_say_nothing(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / THROTTLED
    file.parent.mkdir(parents=True)
    if content is not None:
        file.write_text(content)
    assert board_families(tmp_path) == {}
    assert throttled_bits(tmp_path) is None
