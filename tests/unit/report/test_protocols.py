"""The table of protocols: what is known of each beside what was measured, one row per protocol and server."""

from __future__ import annotations

from typing import Any

import pytest

from toolkit.report.protocols import HEADER, PROTOCOLS, SERVERS, protocol_cells, protocol_files, protocol_rows
from toolkit.spec.services import IMAGES


class Run:
    """`asked`: the workload chose its protocol, which otherwise followed from the broker's settings."""

    def __init__(self, image: str, p50_ms: float, lost: int = 0, *, asked: bool = True, **order: Any) -> None:
        self.image, self.p50_ms, self.lost, self.asked = image, p50_ms, lost, asked
        self.order = {"role": "publisher", "options": {}} | order

    def manifest(self) -> dict[str, Any]:
        services = [{"name": name, "role": "broker", "image": name} for name in ("mosquitto", "rabbitmq")]
        options = self.order["options"] | ({"protocol": self.order["protocol"]} if self.asked else {})
        workload = {"broker": self.image, "options": options}
        return {"orders": {"p": self.order}, "workload": workload, "services": services}

    def kpis(self) -> dict[str, Any]:
        hop = {"p50_ms": self.p50_ms, "p99_ms": 2 * self.p50_ms}
        hops = dict.fromkeys(("publish", "broker", "deliver", "end_to_end"), hop)
        if self.order["protocol"] == "dds":
            hops = {"end_to_end": hop, "publish": {"p50_ms": None, "p99_ms": None}}
        books = {"lost": self.lost, "expected": 10, "refused": 1}
        return {"hops": hops, "delays": {"acknowledge": hop}, "ledger": {"total": books}}


class Folder:
    def __init__(self, *runs: Run) -> None:
        self._runs = runs

    def document(self) -> dict[str, Any]:
        return {"points": [{"name": str(number)} for number in range(len(self._runs))]}

    def runs(self) -> list[tuple[str, int, Run]]:
        return [(str(number), 1, run) for number, run in reversed(list(enumerate(self._runs)))]


def test_each_protocol_and_server_has_a_row_with_what_was_measured() -> None:
    rows = protocol_rows(
        Folder(  # type: ignore[arg-type]
            Run("mosquitto", 1.0, protocol="mqtt"),
            Run("mosquitto", 3.0, protocol="mqtt", lost=2),
            Run("mosquitto", 5.0, protocol="mqtt", options={"mqtt": "5.0"}),
            Run("rabbitmq", 7.0, protocol="mqtt"),
            Run("mosquitto", 9.0, protocol="dds"),
            Run("mosquitto", 9.0, protocol="carrier-pigeon"),
        )
    )
    cells = [dict(zip(HEADER, row, strict=True)) for row in protocol_cells(rows)]
    assert [(row["protocol"], row["implementation"], row["QoS"], row["lost"]) for row in cells] == [
        ("MQTT 3.1.1", "Mosquitto", "0, 1, 2", "2/18"),
        ("MQTT 5", "Mosquitto", "0, 1, 2", "0/9"),
        ("MQTT 3.1.1", "RabbitMQ", "0, 1", "0/9"),
        ("DDS", "Cyclone DDS, no broker", "0, 1", "0/9"),
    ]
    assert [row["broker p50 (ms)"] for row in cells] == ["2.000", "5.000", "7.000", "-"]
    assert [row["end to end p99 (ms)"] for row in cells] == ["4.000", "10.000", "14.000", "18.000"]
    files = protocol_files(rows, "every on brokers")
    assert set(files) == {"protocols.md", "protocols.csv", "protocols.tex"}
    assert "| MQTT 5 | Mosquitto |" in files["protocols.md"]


def test_one_protocol_is_no_comparison() -> None:
    rows = protocol_rows(Folder(Run("mosquitto", 1.0, protocol="mqtt"), Run("mosquitto", 2.0, protocol="mqtt")))  # type: ignore[arg-type]
    assert rows == []
    assert protocol_files(rows, "nothing") == {}


def test_forms_of_one_broker_that_speak_differently_are_none_either() -> None:
    forms = [Run("event-handler", 1.0, protocol=protocol, asked=False) for protocol in ("http", "sse")]
    assert protocol_rows(Folder(*forms)) == []  # type: ignore[arg-type]


@pytest.mark.parametrize("name", [image.name for image in IMAGES.values() if "broker" in image.roles])
def test_every_broker_and_protocol_that_can_be_deployed_is_known(name: str) -> None:
    image = IMAGES[name]
    assert name in SERVERS
    spoken = {f"mqtt {v}" for v in image.mqtt} if "mqtt" in image.protocols else set()
    assert spoken | (set(image.protocols) - {"mqtt"}) <= set(PROTOCOLS)
