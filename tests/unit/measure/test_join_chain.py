"""A made-up run over gateway, broker and hub: every loss comes out at the place where it was put in."""

from __future__ import annotations

import dataclasses
import json
import tempfile
from collections import Counter
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit.contract.samples import STAMP, Point, StampsInfo
from toolkit.measure.join import join
from toolkit.measure.kpis import hops_of
from toolkit.measure.layout import Stream, Subscriber, Terms
from toolkit.measure.ledger import PLACES
from toolkit.measure.stamps import read_files
from toolkit.measure.tables import read_column

START_NS = 1_800_000_000_000_000_000
HOP_NS = 1_000
HUBS = 2
CUSTOMERS = ("cust-0", "cust-1", "cust-2")
"""The first two at hub 0, the third at hub 1."""
HUB_OF = (0, 0, 1)
ON_THE_WAY = ("lost_before_gateway", "lost_in_gateway", "lost_before_broker")
FOR_A_HUB = ("lost_in_broker", "lost_after_broker")
FOR_A_CUSTOMER = ("lost_in_hub", "lost_after_hub", "delivered")

messages = st.lists(
    st.tuples(
        st.sampled_from([*ON_THE_WAY, *["on"] * 6]),
        st.tuples(*[st.sampled_from([*FOR_A_HUB, *["on"] * 4])] * HUBS),
        st.tuples(*[st.sampled_from(FOR_A_CUSTOMER)] * len(CUSTOMERS)),
    ),
    max_size=25,
)


def fate(message: tuple[str, tuple[str, ...], tuple[str, ...]], customer: int) -> str:
    """Where this message ends for a customer."""
    first, at_hubs, at_customers = message
    if first != "on":
        return first
    at_hub = at_hubs[HUB_OF[customer]]
    return at_customers[customer] if at_hub == "on" else at_hub


def stamps_of(drawn: list[tuple[str, tuple[str, ...], tuple[str, ...]]]) -> dict[str, list[bytes]]:  # noqa: C901
    """Process -> its stamps: instant k of the way is k microseconds after the send."""
    out: dict[str, list[bytes]] = {name: [] for name in ("dev", "gw", "eh", "hub-0", "hub-1", *CUSTOMERS)}

    def put(process: str, point: Point, seq: int, step: int, peer: int = 0) -> None:
        at = START_NS + seq * 1_000_000 + step * HOP_NS
        out[process].append(STAMP.pack(point, 0, peer, 7, seq, at, at if point == Point.SENT else 0))

    for seq, (first, at_hubs, at_customers) in enumerate(drawn):
        put("dev", Point.SENT, seq, 0)
        reached = [*ON_THE_WAY, "on"].index(first)
        if reached > 0:
            put("gw", Point.GATEWAY_RECEIVED, seq, 1)
        if reached > 1:
            put("gw", Point.GATEWAY_SENT, seq, 2)
        if first != "on":
            continue
        put("eh", Point.BROKER_RECEIVED, seq, 3)
        for hub, at_hub in enumerate(at_hubs):
            if at_hub == "lost_in_broker":
                continue
            put("eh", Point.BROKER_SENT, seq, 4, peer=hub)
            if at_hub == "on":
                put(f"hub-{hub}", Point.HUB_RECEIVED, seq, 5)
        for customer, name in enumerate(CUSTOMERS):
            if at_hubs[HUB_OF[customer]] != "on" or at_customers[customer] == "lost_in_hub":
                continue
            put(f"hub-{HUB_OF[customer]}", Point.HUB_SENT, seq, 6, peer=1 + customer)
            if at_customers[customer] == "delivered":
                put(name, Point.RECEIVED, seq, 7)
    return out


def write(raw: Path, stamps: dict[str, list[bytes]]) -> None:
    customers = {str(1 + c): ["10.0.2.1", 50_000 + c] for c in range(len(CUSTOMERS))}
    flows = {
        "eh": {str(hub): ["10.0.1.1", 40_000 + hub] for hub in range(HUBS)},
        **{f"hub-{hub}": {"0": ["10.0.1.1", 40_000 + hub], **customers} for hub in range(HUBS)},
        **{name: {"0": customers[str(1 + c)]} for c, name in enumerate(CUSTOMERS)},
    }
    roles = {"dev": "publisher", "gw": "gateway", "eh": "broker", "hub-0": "hub", "hub-1": "hub"}
    for node, mine in stamps.items():
        role = roles.get(node, "subscriber")
        (raw / node).mkdir(parents=True)
        (raw / node / f"{role}-0.stamps").write_bytes(b"".join(mine))
        info = StampsInfo(
            run="r", testbed="t", node=node, service=role, role=role, instance=0, stamps=len(mine), counts={},
            flows=flows.get(node, {}), clock={"resolution_ns": 1, "read_cost_ns": 80, "steps": []}, facts={},
        )  # fmt: skip
        (raw / node / f"{role}-0.json").write_text(json.dumps(dataclasses.asdict(info)))


@settings(max_examples=40, deadline=None)
@given(messages)
def test_every_loss_is_found_where_it_was_put(drawn):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(folder / "raw", stamps_of(drawn))
        subscribers = [
            Subscriber(name=f"{c}/subscriber-0", process=f"{c}/subscriber-0", connection=0, topics=frozenset({"t"}),
                       hub=f"hub-{HUB_OF[i]}/hub-0")
            for i, c in enumerate(CUSTOMERS)
        ]  # fmt: skip
        joined = join(
            read_files(folder / "raw"),
            [Stream(stream=7, topic="t", process="dev/publisher-0")],
            subscribers,
            clocks={},
            terms=Terms(),
            folder=folder,
        )
        for customer, subscriber in enumerate(subscribers):
            ends = Counter(fate(message, customer) for message in drawn)
            ledger = joined.ledgers[subscriber.name]
            assert ledger.closes
            assert ledger.delivered == ends["delivered"]
            assert {place: getattr(ledger, place) for place in PLACES} == {place: ends[place] for place in PLACES}
        assert joined.unmatched_flows == 0
        on = [message for message in drawn if message[0] == "on"]
        assert joined.gateway_received == len(drawn) - sum(m[0] == "lost_before_gateway" for m in drawn)
        assert joined.broker_received == len(on)
        assert joined.broker_sent == sum(at != "lost_in_broker" for _, hubs, _ in on for at in hubs)
        assert joined.broker_lost == sum(at == "lost_in_broker" for _, hubs, _ in on for at in hubs)
        assert joined.hub_received == sum(at == "on" for _, hubs, _ in on for at in hubs)
        if on:
            for hop, (table, expression, rows) in hops_of({"gateway": True, "hub": True}).items():
                delays = set(read_column(folder / f"{table}.parquet", expression, rows).tolist())
                assert delays <= {7 * HOP_NS if hop == "end_to_end" else HOP_NS}
