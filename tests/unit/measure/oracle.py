"""A made-up run whose every outcome is known: it writes stamps as the processes would, and says what must come out."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from toolkit.contract.samples import STAMP, Flag, Point, StampsInfo
from toolkit.measure.layout import Stream, Subscriber, Terms

START_NS = 1_800_000_000_000_000_000
TIMEOUT_NS = 1_000_000_000


@dataclass(kw_only=True)
class Fate:
    """What happens to one message on its way to one subscriber."""

    outcome: str = "delivered"  # delivered, late, lost_after, lost_in
    copies: int = 1
    delay_ns: tuple[int, int] = (100_000, 200_000)  # in the broker, and on the way to the subscriber


@dataclass(kw_only=True)
class Message:
    outcome: str = "sent"  # sent, refused, lost_before
    acked: bool = True
    publish_ns: int = 300_000
    behind_ns: int = 0
    warm_up: bool = False
    fates: list[Fate] = field(default_factory=list)


@dataclass(kw_only=True)
class Oracle:
    """`messages[stream]` in sending order, one fate for each of `subscribers`."""

    messages: list[list[Message]]
    subscribers: int
    qos: int = 0
    skews_ns: dict[str, int] = field(default_factory=dict)
    interval_ns: int = 1_000_000
    has_broker: bool = True
    streams: list[Stream] = field(init=False)
    subscriptions: list[Subscriber] = field(init=False)
    terms: Terms = field(init=False)

    def __post_init__(self) -> None:
        self.streams = [
            Stream(stream=1000 + i, topic=f"t{i}", process="pub/publisher-0") for i in range(len(self.messages))
        ]
        topics = frozenset(stream.topic for stream in self.streams)
        self.subscriptions = [
            Subscriber(name=f"sub-{i}/subscriber-0", process=f"sub-{i}/subscriber-0", connection=0, topics=topics)
            for i in range(self.subscribers)
        ]
        self.terms = Terms(qos=self.qos, loss_timeout_ns=TIMEOUT_NS)

    def write(self, raw: Path) -> None:  # noqa: C901
        published, broker = [], []
        received: list[list[tuple[int, bytes]]] = [[] for _ in range(self.subscribers)]
        for s, messages in enumerate(self.messages):
            stream = self.streams[s].stream
            for seq, message in enumerate(messages):
                flags = Flag.WARMUP if message.warm_up else 0
                t0 = START_NS + seq * self.interval_ns + s * 7
                t1 = t0 + message.behind_ns
                if message.outcome == "refused":
                    published.append((t1, self._stamp("pub", Point.REFUSED, stream, seq, t1, t0, 0, flags)))
                    continue
                published.append((t1, self._stamp("pub", Point.SENT, stream, seq, t1, t0, 0, flags)))
                t2 = t1 + message.publish_ns
                if message.acked:
                    t5 = t2 + 50_000
                    published.append((t5, self._stamp("pub", Point.ACKED, stream, seq, t5, 0, 0, flags)))
                if message.outcome == "lost_before":
                    continue
                broker.append((t2, self._stamp("eh", Point.BROKER_RECEIVED, stream, seq, t2, 0, 900, flags)))
                for i, fate in enumerate(message.fates):
                    if fate.outcome == "lost_in":
                        continue
                    t3 = t2 + fate.delay_ns[0]
                    t4 = t3 + fate.delay_ns[1] + (2 * TIMEOUT_NS if fate.outcome == "late" else 0)
                    for copy in range(fate.copies if fate.outcome != "lost_after" else 1):
                        at = t3 + copy * 1000
                        broker.append((at, self._stamp("eh", Point.BROKER_SENT, stream, seq, at, 0, i + 1, flags)))
                        if fate.outcome != "lost_after":
                            at, flag = t4 + copy * 1000, flags | (Flag.REDELIVERED if copy else 0)
                            stamp = self._stamp(f"sub-{i}", Point.RECEIVED, stream, seq, at, 0, 0, flag)
                            received[i].append((at, stamp))
        self._file(raw, "pub", "publisher", "publisher", published, {})
        if self.has_broker:
            flows = {str(i + 1): [f"::ffff:10.77.0.{20 + i}", 40000 + i] for i in range(self.subscribers)}
            self._file(raw, "eh", "broker", "broker", broker, flows | {"900": ["10.77.0.9", 50000]})
        for i, stamps in enumerate(received):
            flow = {"0": [f"10.77.0.{20 + i}", 40000 + i]}
            self._file(raw, f"sub-{i}", "subscriber", "subscriber", stamps, flow)

    def _stamp(self, node: str, point: Point, stream: int, seq: int, at: int, aux: int, peer: int, flags: int) -> bytes:
        skew = self.skews_ns.get(node, 0)
        return STAMP.pack(point, flags, peer, stream, seq, at + skew, aux + skew if aux else 0)

    def _file(self, raw: Path, node: str, service: str, role: str, stamps: list, flows: dict) -> None:
        folder = raw / node
        folder.mkdir(parents=True, exist_ok=True)
        stamps.sort(key=lambda item: item[0])
        (folder / f"{service}-0.stamps").write_bytes(b"".join(stamp for _, stamp in stamps))
        info = StampsInfo(
            run="r", testbed="t", node=node, service=service, role=role, instance=0, stamps=len(stamps), counts={},
            flows=flows, clock={"resolution_ns": 1, "read_cost_ns": 80, "steps": []}, facts={},
        )  # fmt: skip
        (folder / f"{service}-0.json").write_text(json.dumps(dataclasses.asdict(info)))

    def books(self, i: int) -> dict[str, int]:
        """What the ledger of subscriber `i` must say."""
        out: Counter[str] = Counter()
        arrivals: dict[int, list[tuple[int, int]]] = {}
        for s, messages in enumerate(self.messages):
            for seq, message in enumerate(messages):
                if message.warm_up:
                    continue
                fate = message.fates[i]
                out["expected"] += 1
                arrives = message.outcome == "sent" and fate.outcome in {"delivered", "late"}
                if message.outcome == "refused":
                    out["refused"] += 1
                elif arrives:
                    out[fate.outcome] += 1
                    out["duplicates"] += fate.copies - 1
                    at = seq * self.interval_ns + s * 7 + message.behind_ns + message.publish_ns + sum(fate.delay_ns)
                    arrivals.setdefault(s, []).append((at + (2 * TIMEOUT_NS if fate.outcome == "late" else 0), seq))
                elif self.qos and not message.acked:
                    out["unconfirmed"] += 1
                else:
                    out["dropped"] += 1
        for stream in arrivals.values():
            stream.sort(key=lambda arrival: arrival[0])
            next_expected = 0
            for _, seq in stream:
                out["reordered"] += seq < next_expected
                next_expected = max(next_expected, seq + 1)
        return dict(out)

    def delays(self, hop: str) -> np.ndarray:
        """The hop's delays of delivered messages, sorted, ns."""
        out = []
        for messages in self.messages:
            for message in messages:
                if message.warm_up or message.outcome == "refused":
                    continue
                if hop == "publish":
                    if message.outcome == "sent":
                        out.append(message.publish_ns)
                    continue
                for fate in message.fates:
                    if message.outcome == "sent" and fate.outcome == "delivered":
                        path = message.publish_ns + sum(fate.delay_ns)
                        whole = message.behind_ns + path
                        out.append({"broker": fate.delay_ns[0], "deliver": fate.delay_ns[1], "end_to_end": whole}[hop])
        return np.sort(np.array(out, dtype=np.int64))
