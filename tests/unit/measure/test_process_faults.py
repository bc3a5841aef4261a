"""What a run says of brokers that made its clients wait, dropped them, or refused their messages."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from toolkit.contract.samples import StampsInfo
from toolkit.measure.compute import process_faults, rejections
from toolkit.measure.stamps import StampsFile, read_files


def told(folder: Path, facts: dict[str, Any], **counts: int) -> list[StampsFile]:
    """The files of one publisher that said this when it ended."""
    info = StampsInfo(
        run="r", testbed="t", node="pub", service="publisher", role="publisher", instance=0, stamps=0, counts=counts,
        flows={}, clock={}, facts=facts,
    )  # fmt: skip
    (folder / "pub").mkdir()
    (folder / "pub" / "publisher-0.stamps").touch()
    (folder / "pub" / "publisher-0.json").write_text(json.dumps(dataclasses.asdict(info)))
    return read_files(folder)


def test_a_broker_that_blocks_publishers_is_back_pressure_and_a_fault(tmp_path: Path) -> None:
    [fault] = process_faults(told(tmp_path, {"blocked": 2, "last_blocked": "low on memory"}))
    assert fault.startswith("pub/publisher-0 was told 2 times by the broker to wait (low on memory)")


def test_lost_connections_are_counted_with_the_last_reason(tmp_path: Path) -> None:
    [fault] = process_faults(told(tmp_path, {"last_lost": "closed"}, reconnects=1))
    assert fault == "pub/publisher-0 lost its connection once during the run: closed"


def test_rejected_messages_are_a_note_with_the_reason_and_no_fault(tmp_path: Path) -> None:
    files = told(tmp_path, {"last_rejection": "the broker took no responsibility for it (basic.nack)"}, rejected=400)
    assert process_faults(files) == []
    [note] = rejections(files)
    assert "rejected 400 messages, the last because the broker took no responsibility" in note
    assert "count as unconfirmed" in note
