"""What a subscriber notes and counts of what its connections read, without a broker."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from toolkit.contract.orders import RunOrder
from toolkit.contract.samples import STAMP, Flag, Header, Point, pack_header
from toolkit.contract.settings import ProcessSettings
from toolkit.node import subscriber
from toolkit.node.control import Control
from toolkit.node.drivers.base import Message
from toolkit.node.subscriber import Subscribing

FIRST, SECOND, REDELIVERED, RETAINED = 10**18, 10**18 + 5, int(Flag.REDELIVERED), int(Flag.RETAINED)


def message(seq: int, flags: int = 0, *, stream: int = 7, told: int = 0) -> Message:
    return pack_header(Header(stream=stream, seq=seq, t0_ns=1, t1_ns=2, flags=flags)) + b"fill", told


READS: list[tuple[int, list[Message]]] = [
    (FIRST, [message(0, Flag.WARMUP), message(1), (b"foreign", 0), message(1, told=REDELIVERED)]),
    (FIRST, [message(5, Flag.PROBE), message(6, stream=8)]),
    (SECOND, [message(3, told=RETAINED), message(2)]),
]


class Connection:
    """Has read everything already."""

    def __init__(self, control: Control) -> None:
        self.facts: dict[str, Any] = {}
        self._control = control
        self._reads = list(READS)

    def fileno(self) -> int:
        return self._control.stop_fd

    def local(self) -> tuple[str, int]:
        return "10.0.0.1", 5

    def read(self) -> int:
        return self._reads[0][0]

    def messages(self) -> list[Message]:
        if len(self._reads) == 1:
            self._control.stop()
        return self._reads.pop(0)[1] if self._reads else []

    def keep_alive(self) -> None: ...

    def close(self) -> None: ...


class Driver:
    def __init__(self, control: Control) -> None:
        self._control = control

    def open_subscribers(self, _: RunOrder, **__: Any) -> list[Connection]:
        return [Connection(self._control)]


@pytest.mark.parametrize("options", [{}, {"consume_delay_s": 1e-6}])
@pytest.mark.parametrize("record", [True, False])
def test_what_was_read_is_noted_with_its_instant_and_what_the_broker_told(
    record: bool, options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = ProcessSettings(
        testbed="t", node="n", service="sub", instance=0, metrics_port=0, control_port=0, samples_dir=str(tmp_path)
    )
    order = RunOrder(
        run="r", testbed="t", role="subscriber", protocol="mqtt", streams=[7], record=record, options=options
    )
    control = Control(settings, "subscriber")
    monkeypatch.setattr(subscriber, "make_driver", lambda _: Driver(control))
    run = Subscribing(settings, control, order)
    run.prepare()
    while not control.stopping:
        run._receive([(control.stop_fd, 0)])
    assert run.finish(None) is None
    counts = control.counts
    assert (counts.received, counts.warmup, counts.duplicate, counts.redelivered) == (2, 2, 1, 1)
    assert (counts.foreign, counts.probes, counts.last_ns) == (2, 1, SECOND)
    found = list(STAMP.iter_unpack((tmp_path / "r" / "sub-0.stamps").read_bytes()))
    noted = [(Flag.WARMUP, 0, FIRST), (0, 1, FIRST), (REDELIVERED, 1, FIRST), (RETAINED, 3, SECOND), (0, 2, SECOND)]
    # What came while subscribing is noted as it was adopted.
    assert [stamp[:5] for stamp in found] == [(Point.RECEIVED, flags, 0, 7, seq) for flags, seq, _ in noted] * record
    assert [stamp[5:] for stamp in found[3:]] == [(at_ns, 0) for _, _, at_ns in noted[3:]] * record
    control.close()
