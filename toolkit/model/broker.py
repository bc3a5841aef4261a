"""The net of a broker that a run makes: cables, threads, cores and connections as servers, measured rests as delays.

    publish (rest) -> cable in -> thread, core: execute -> one connection after the other: write -> cable out -> rest
                                                                                      last one -> answer -> cable out

A token is a message up to the writing, and from there a copy for each of `S` subscribers. Hops of one message depend
on each other, so each kind of message (`classes.py`) has delays of its own; an immediate transition chooses the kind by
its share, and copies remember it as tokens in `Copies_<kind>`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolkit.errors import ModelError
from toolkit.model.cables import QUANTUM_BYTES, SHRINKING, WIRE_SHARE, Cables, Freed
from toolkit.model.classes import MOST_CLASSES, message_classes
from toolkit.model.delays import delay_of, rest_of
from toolkit.model.distributions import Deterministic, Distribution, FloatArray
from toolkit.model.samples import RunSamples
from toolkit.spec.quantities import size_bytes

MESSAGES = 60
"""In a net whose messages may queue behind each other: enough for queues to settle."""
BUFFER_BYTES = 300_000
"""What the kernel is supposed to hold for one subscriber before a blocking broker waits, where no run showed it.

Linux sets the limit for each connection by the most that was ever under way on it: 124 to 442 kB in one set of runs.
"""
_WAKES_AT = 2 / 3
"""Of the buffer: Linux lets a writer that found it full go on when so much is left in it."""
_ANSWER_BYTES = 200
_SIZED_CLASSES = 3
_FEW = 20
_BLOCKING_MODES = {"enhanced", "original"}


def run_settings(samples: RunSamples) -> dict[str, float]:
    """The what-if parameters that a run had: pool, cores, subscribers of a message, rate or window."""
    cores = int(samples.setting("cores", "cpus") or 4)
    threads = samples.setting("thread_pool_size", "threads")
    settings: dict[str, float] = {
        "K": 64 if threads is None else int(threads) or 2 * cores,
        # The run itself shows how many can be in progress at once: fewer cores would contradict it.
        "C": max(cores, samples.in_broker, 1),
        "S": samples.subscribers,
    }
    if _mode(samples) == "direct":  # one event loop does everything, one thing after the other
        settings |= {"K": 1, "C": 1}
    if held := _known_buffer(samples):
        settings["buffer"] = held
    window = samples.window
    return settings | ({"rate": samples.rate_per_s} if window is None else {"W": window})


def broker_document(samples: RunSamples, subscribers: int, *, at_a_rate: bool = False) -> dict[str, Any]:
    """The net for up to `subscribers` copies of a message; `at_a_rate` makes an open loop of a closed one.

    A closed loop sends the next message when fewer than `W` are without an answer. With one at a time, and copies that
    leave in one piece, the answer leaves after them: no message meets another, and the net holds one.
    """
    assert samples.freed is not None
    settings = run_settings(samples)
    settings.pop("buffer", None)  # of nets in which a broker waits for it
    settings["S"] = min(settings["S"], subscribers)
    if at_a_rate and "W" in settings:
        del settings["W"]
        settings["rate"] = samples.rate_per_s
    freed = samples.freed
    is_whole = not freed.cables.out_mbps or freed.cables.parts(subscribers) == 1
    is_alone = settings.get("W") == 1 and is_whole
    kinds = _kinds(samples, freed, MOST_CLASSES if is_alone else _SIZED_CLASSES)
    net = _Broker(samples=samples, freed=freed, lanes=subscribers, kinds=kinds, settings=settings, is_alone=is_alone)
    return net.document()


def buffer_bytes(samples: RunSamples) -> int:
    """What the kernel holds for one subscriber before a blocking broker waits: as set, as seen, or supposed."""
    assert samples.freed is not None
    freed = samples.freed
    copy = freed.cables.out_bytes
    if held := _known_buffer(samples):
        return max(held, round(copy))
    return round(max(freed.held_copies / _WAKES_AT * copy if freed.held_copies else BUFFER_BYTES, copy))


@dataclass(kw_only=True)
class _Broker:
    """The net while it is put together, from the publisher to the subscribers."""

    samples: RunSamples
    freed: Freed
    lanes: int
    kinds: NDArray[np.int64]
    settings: dict[str, float]
    is_alone: bool
    places: dict[str, Any] = field(default_factory=dict)
    transitions: dict[str, Any] = field(default_factory=dict)

    @property
    def cables(self) -> Cables:
        return self.freed.cables

    @property
    def parts(self) -> int:
        """In how many turns a copy leaves, where there is a cable."""
        return self.cables.parts(self.lanes) if self.cables.out_mbps else 0

    @property
    def is_answered(self) -> bool:
        """Whether the next message waits for an answer that may wait for others' copies."""
        return not self.is_alone and "W" in self.settings

    @property
    def quantum(self) -> str:
        """What a connection may have in the cable's queue."""
        return f"min(quantum / S ** {SHRINKING}, {QUANTUM_BYTES})" if self.cables.is_paced else "quantum"

    @property
    def blocks(self) -> bool:
        """Whether the broker waits where the kernel holds too much for a subscriber, and messages can meet."""
        return bool(self.parts) and not self.is_alone and _mode(self.samples) in _BLOCKING_MODES

    @property
    def hides_rest(self) -> bool:
        """Whether what is left of the way is not seen; small copies take no turns, so it is."""
        return self.samples.is_rest_hidden and self.parts > 1

    @property
    def suffixes(self) -> list[str]:
        """What is added to the names of each kind's places and transitions."""
        return kind_suffixes(self.kinds)

    @property
    def lag_ms(self) -> float:
        """By how much each further copy is read later than its way explains (a process that reads one at a time)."""
        if self.hides_rest:
            return 0.0
        ways = self.freed.deliver[self.rows, : self.lanes]
        known = np.nanmedian(ways, axis=0) if len(ways) else np.zeros(1)
        return max(float(known[-1] - known[0]) / (len(known) - 1), 0.0) if len(known) > 1 else 0.0

    @property
    def rows(self) -> NDArray[np.int64]:
        """The messages whose way out is known: those that found it empty, or all where there are too few of them."""
        followed = ~np.isnan(self.freed.deliver[:, 0])
        idle = self.freed.is_idle & followed
        return np.flatnonzero(idle if idle.sum() >= _FEW else followed)

    def document(self) -> dict[str, Any]:
        self.put_sending()
        for kind, suffix in enumerate(self.suffixes):
            self.put_way_in(kind, suffix)
        for lane in range(1, self.lanes + 1):
            self.put_lane(lane)
        self.put_arrivals()
        if self.is_answered:
            self.put_answer()
        params = self.params()
        names = {"W": ("window", "connections"), "out_bytes": ("frame_bytes",), "out_mbps": ("link_mbps",)}
        aliases = {
            "tokens": "N", "messages": "N", "threads": "K", "thread_pool_size": "K", "cores": "C", "cpus": "C",
            "subscribers": "S",
        }  # fmt: skip
        aliases |= {alias: name for name, given in names.items() for alias in given if name in params}
        return {
            "net": "broker_of_run",
            "unit": "ms",
            "about": f"one broker, fitted on run {self.samples.name}",
            "params": params,
            "aliases": aliases,
            "tokens": "N",
            "places": self.places,
            "transitions": self.transitions,
            "measures": {"delivered": {"first_passage": "Subscriber == N * S"}},
            "latency": {"from": [f"publish{suffix}" for suffix in self.suffixes], "to": "Subscriber", "copies": "S"},
        }

    def params(self) -> dict[str, float]:
        cables = self.cables
        made: dict[str, float] = {"N": 1 if self.is_alone else MESSAGES, **self.settings}
        if cables.in_mbps:
            made |= {"in_bytes": round(cables.in_bytes), "in_mbps": _short(cables.in_mbps)}
        if cables.out_mbps:
            made |= {"out_bytes": round(cables.out_bytes), "out_mbps": _short(cables.out_mbps)}
            if cables.burst_bytes:
                made["burst"] = round(cables.burst_bytes)
            if self.parts > 1:
                most = QUANTUM_BYTES * (max(self.lanes, 2) ** SHRINKING if cables.is_paced else 1)
                made["quantum"] = round(min(cables.quantum_bytes, most))
            if self.blocks:
                made["buffer"] = buffer_bytes(self.samples)
        made |= {"gap": _short(self.freed.gap_ms)} if self.lanes > 1 else {}
        made |= {"lag": _short(self.lag_ms)} if self.lag_ms and self.lanes > 1 else {}
        return made

    def put_sending(self) -> None:
        """Messages come at a rate, or when another was answered; each is of one kind."""
        self.places |= {"To_Send": "N", "Sent": 0}
        if "W" not in self.settings:
            self.transitions["arrive"] = {"in": "To_Send", "out": "Sent", "delay": "deterministic(1000 / rate)"}
        elif self.is_alone:
            self.transitions["arrive"] = _at_once("To_Send", "Sent")
        else:
            self.places["Window"] = "W"
            self.transitions["arrive"] = _at_once(["To_Send", "Window"], "Sent")
        shares = np.bincount(self.kinds) / len(self.kinds)
        for suffix, share in zip(self.suffixes, shares, strict=True):
            self.places[f"Publisher{suffix}"] = 0
            self.transitions[f"kind{suffix or '_1'}"] = _at_once("Sent", f"Publisher{suffix}", weight=float(share))

    def put_way_in(self, kind: int, suffix: str) -> None:
        """The publisher's side, the cable to the broker, a thread and a core."""
        names = ("Publisher", "Request_Queue", "Active_Threads", "Executing")
        publisher, queue, active, executing = (f"{name}{suffix}" for name in names)
        self.places |= dict.fromkeys((queue, active, executing), 0)
        rest = self.freed.publish[self.kinds == kind]
        publish = rest_of("publish", rest[~np.isnan(rest)] if not np.isnan(rest).all() else _known(self.freed.publish))
        if self.cables.in_mbps:
            uploading, waiting = f"Uploading{suffix}", f"To_Upload{suffix}"
            self.places |= {waiting: 0, uploading: 0}
            self.transitions[f"publish{suffix}"] = _timed(publisher, waiting, publish)
            free = " + ".join(f"Uploading{other}" for other in self.suffixes) + " < 1"
            self.transitions[f"enter{suffix}"] = _at_once(waiting, uploading, guard="" if self.is_alone else free)
            self.transitions[f"upload{suffix}"] = _timed(uploading, queue, _lasting("in_bytes * 8 / 1000 / in_mbps"))
        else:
            self.transitions[f"publish{suffix}"] = _timed(publisher, queue, publish)
        held = [f"{name}{other}" for other in self.suffixes for name in ("Active_Threads", "Executing")]
        held += [f"To_Write_{lane}" for lane in range(1, self.lanes + 1)]
        held += [f"Writing_{lane}" for lane in range(1, self.lanes)]
        held += [f"Blocked_{lane}" for lane in range(1, self.lanes + 1) if self.blocks]
        busy = " + ".join(f"Executing{other}" for other in self.suffixes)
        execute = delay_of("broker", self.samples.messages["broker"][self.kinds == kind])
        after: dict[str, Any] = {"To_Write_1": 1}
        if len(self.suffixes) > 1:
            self.places[f"Copies{suffix}"] = 0
            after[f"Copies{suffix}"] = "S"
        threads = "" if self.is_alone else f"{' + '.join(held)} < K"
        self.transitions[f"assign{suffix}"] = _at_once(queue, active, guard=threads)
        self.transitions[f"start{suffix}"] = _at_once(active, executing, guard="" if self.is_alone else f"{busy} < C")
        self.transitions[f"execute{suffix}"] = _timed(executing, after, execute)

    def put_lane(self, lane: int) -> None:
        """Writing to one subscriber, and its copies' turns on the cable."""
        writing, waiting = f"To_Write_{lane}", f"Waiting_{lane}"
        self.places[writing] = 0
        arrived = self.put_lag(lane)
        parts = self.parts
        into = waiting if parts else arrived
        room = f"{self.bytes_held(lane)} <= max(buffer - out_bytes, 0)" if self.blocks else ""
        if self.blocks:
            self.put_block(lane, writing, room)
        if lane < self.lanes:
            self.places[f"Writing_{lane}"] = 0
            guard = " and ".join(text for text in (f"S > {lane}", room) if text)
            self.transitions[f"write_{lane}"] = _at_once(writing, [into, f"Writing_{lane}"], guard=guard)
            self.transitions[f"go_on_{lane}"] = _timed(f"Writing_{lane}", f"To_Write_{lane + 1}", _lasting("gap"))
        guard = " and ".join(text for text in (f"S == {lane}" if self.lanes > 1 else "", room) if text)
        ends = [into, "Answering"] if self.is_answered else into
        self.transitions[f"write_last_{lane}"] = _at_once(writing, ends, guard=guard)
        if not parts:
            return
        self.places |= {"Cable": 1, waiting: 0}
        begun = [f"Begun_{part}_{lane}" for part in range(1, parts)]
        turned = [] if self.cables.is_paced else [f"Turned_{part}_{lane}" for part in range(1, parts)]
        for part in range(1, parts + 1):
            on_cable = f"On_Cable_{part}_{lane}" if parts > 1 else f"On_Cable_{lane}"
            before = waiting if part == 1 else begun[part - 2]
            after = arrived if part == parts else (turned or begun)[part - 1]
            self.places |= {on_cable: 0, **({after: 0} if part < parts else {})}
            is_first = f"{' + '.join(begun + turned)} == 0" if part == 1 < parts else ""
            take = _at_once([before, "Cable"], on_cable, guard=is_first)
            # First parts go first, then answers, then the other parts; without pacing those that were there before.
            take["immediate"]["priority"] = (
                parts + 2 if part == 1 else (parts if self.cables.is_paced else 2 * parts + 3) - part + 1
            )
            name = f"{part}_{lane}" if parts > 1 else f"{lane}"
            self.transitions[f"take_{name}"] = take
            size = self.left(part) if part == parts else f"min({self.left(part)}, {self.quantum})"
            delay = _lasting(f"{size} * 8 / 1000 / out_mbps")
            self.transitions[f"pass_{name}"] = _timed(on_cable, [after, "Cable"], delay)
            if part < parts and turned:
                self.places[begun[part - 1]] = 0
                self.transitions[f"rejoin_{name}"] = _at_once(after, begun[part - 1], guard=self.is_round_over)
            if part < parts:  # nothing is left of a small copy
                gone = _at_once(after, arrived, guard=f"{self.left(part + 1)} <= 0")
                gone["immediate"]["priority"] = parts + 4
                self.transitions[f"gone_{name}"] = gone
            if part == 1 and self.cables.burst_bytes:
                self.put_burst(lane, take, after, size)

    @property
    def is_round_over(self) -> str:
        """Whether no first part is waiting before those copies that have begun, and no answer."""
        parts = range(1, self.parts)
        waiting = [
            f"(Waiting_{lane} > 0 and {' + '.join(f'Begun_{p}_{lane} + Turned_{p}_{lane}' for p in parts)} == 0)"
            for lane in range(1, self.lanes + 1)
        ]
        if self.is_answered:
            waiting.append("Answering > 0")
        return f"not ({' or '.join(waiting)})"

    def put_block(self, lane: int, writing: str, room: str) -> None:
        """A writer that finds the buffer full sleeps until the kernel wakes it."""
        blocked = f"Blocked_{lane}"
        self.places[blocked] = 0
        self.transitions[f"block_{lane}"] = _at_once(writing, blocked, guard=f"not ({room})")
        wakes = f"{self.bytes_held(lane)} <= max({_WAKES_AT:.4g} * buffer - out_bytes, 0)"
        self.transitions[f"wake_{lane}"] = _at_once(blocked, writing, guard=wakes)

    def left(self, part: int) -> str:
        """Bytes of a copy that a part and those after it have to carry."""
        return "out_bytes" if part == 1 else f"(out_bytes - {part - 1} * {self.quantum})"

    def put_burst(self, lane: int, take: dict[str, Any], after: str, size: str) -> None:
        """After a pause the cable's bucket is full: the first copy leaves sooner by what it holds."""
        on_cable = f"On_Cable_Fresh_{lane}"
        self.places |= {"Full_Bucket": 1, "Empty_Bucket": 0, on_cable: 0}
        first = {**take["immediate"], "priority": take["immediate"]["priority"] + 1}
        node = {**take, "in": [*take["in"], "Full_Bucket"], "out": on_cable, "immediate": first}
        self.transitions[f"take_fresh_{lane}"] = node
        delay = _lasting(f"({size} - burst) * 8 / 1000 / out_mbps")
        self.transitions[f"pass_fresh_{lane}"] = _timed(on_cable, [after, "Cable", "Empty_Bucket"], delay)
        refill = _timed("Empty_Bucket", "Full_Bucket", _lasting("burst * 8 / 1000 / out_mbps"))
        self.transitions["refill"] = {**refill, "guard": "Cable == 1"}

    def put_lag(self, lane: int) -> str:
        """The place that a copy reaches when it has left the cable, and what the reading process adds."""
        end = "Arrived" if len(self.suffixes) > 1 else "On_the_Way"
        self.places.setdefault(end, 0)
        if lane == 1 or not self.lag_ms:
            return end
        self.places[f"Read_Later_{lane}"] = 0
        self.transitions[f"lag_{lane}"] = _timed(f"Read_Later_{lane}", end, _lasting(f"{lane - 1} * lag"))
        return f"Read_Later_{lane}"

    def bytes_held(self, lane: int) -> str:
        """What the kernel holds for a subscriber."""
        whole = [f"Waiting_{lane}", f"On_Cable_{lane}" if self.parts == 1 else f"On_Cable_1_{lane}"]
        whole += [f"On_Cable_Fresh_{lane}"] if self.cables.burst_bytes else []
        terms = [f"({' + '.join(whole)}) * out_bytes"]
        begun = ("Begun",) if self.cables.is_paced else ("Begun", "Turned")
        for part in range(2, self.parts + 1):
            places = [f"{state}_{part - 1}_{lane}" for state in begun] + [f"On_Cable_{part}_{lane}"]
            terms.append(f"({' + '.join(places)}) * max({self.left(part)}, 0)")
        return " + ".join(terms)

    def put_arrivals(self) -> None:
        """What is left of the way to a subscriber, by kind."""
        self.places |= {"Subscriber": 0}
        rows = self.rows
        # The later a copy is sent, the longer the cable is busy for it, and the more of what happens there delays it.
        ways = self.freed.deliver[rows, : self.lanes]
        ways = ways - np.arange(ways.shape[1]) * self.lag_ms
        for kind, suffix in enumerate(self.suffixes):
            chosen = _known(ways[self.kinds[rows] == kind])
            # Behind a full cable nothing but turns is to be seen, and those are in the net.
            rest: Distribution = Deterministic(value=0.0)
            if not self.hides_rest:
                rest = rest_of("deliver", chosen if len(chosen) >= _FEW else _known(ways))
            on_the_way = f"On_the_Way{suffix}"
            if suffix:
                self.places[on_the_way] = 0
                take = _at_once(["Arrived", f"Copies{suffix}"], on_the_way)
                take["immediate"]["weight"] = f"Copies{suffix}"
                self.transitions[f"copy{suffix}"] = take
            self.transitions[f"deliver{suffix}"] = _timed(on_the_way, "Subscriber", rest)

    def put_answer(self) -> None:
        """The answer leaves on the cable that the copies leave on."""
        self.places |= {"Answering": 0, "Answered": 0}
        if self.cables.out_mbps:
            self.places["On_Cable_Answer"] = 0
            take = _at_once(["Answering", "Cable"], "On_Cable_Answer")
            take["immediate"]["priority"] = self.parts + 1
            self.transitions["take_answer"] = take
            delay = _lasting(f"{_ANSWER_BYTES} * 8 / 1000 / out_mbps")
            self.transitions["pass_answer"] = _timed("On_Cable_Answer", ["Answered", "Cable"], delay)
        else:
            self.transitions["answer"] = _at_once("Answering", "Answered")
        self.transitions["next"] = _timed("Answered", "Window", f"deterministic({_short(self.freed.answer_ms)})")


def _known_buffer(samples: RunSamples) -> int:
    """Bytes on the wire that the kernel holds for a subscriber where the file says so; 0 where not.

    Linux takes twice the size, and looks before each piece: a copy's last one may go beyond.
    """
    settings = (samples.manifest.get("settings") or {}).get(_broker(samples)) or {}
    asked = size_bytes(str(settings.get("send_buffer", "0B")))
    if not asked or samples.freed is None:
        return 0
    copy = samples.freed.cables.out_bytes
    return round(2 * asked * WIRE_SHARE + copy % QUANTUM_BYTES)


def _kinds(samples: RunSamples, freed: Freed, most: int) -> NDArray[np.int64]:
    """The kind of each message, by how long its hops took apart from any waiting for cables."""
    ways = freed.deliver[:, 0]
    ways = np.where(np.isnan(ways), np.nanmedian(ways), ways)
    first = np.maximum(ways, 0.0) + (freed.cables.out_ms or float(np.median(np.maximum(ways, 0.0))) / 10)
    published = np.where(np.isnan(freed.publish), np.nanmedian(freed.publish), freed.publish)
    columns: list[FloatArray] = [np.maximum(published, 0.0) + freed.cables.in_ms, samples.messages["broker"], first]
    if freed.is_idle.mean() < 0.5:  # what is left of the way out is then mostly other messages
        columns.pop()
    return message_classes(np.stack(columns, axis=1), most=most)


def kind_suffixes(kinds: NDArray[np.int64]) -> list[str]:
    """For names of places and transitions: nothing where there is one kind."""
    count = int(kinds.max()) + 1
    return [""] if count == 1 else [f"_{kind + 1}" for kind in range(count)]


def _mode(samples: RunSamples) -> str:
    """How an Event Handler serves; empty for other brokers."""
    return str(((samples.manifest.get("settings") or {}).get(_broker(samples)) or {}).get("mode", ""))


def _broker(samples: RunSamples) -> str:
    return str((samples.manifest.get("workload") or {}).get("broker", "broker"))


def _known(values: FloatArray) -> FloatArray:
    known = values[~np.isnan(values)]
    if not len(known):
        raise ModelError("the run has no message whose way is known from end to end")
    return known


def _at_once(before: str | list[str], after: Any, *, guard: str = "", weight: float = 1.0) -> dict[str, Any]:
    node: dict[str, Any] = {"in": before, "out": after, "immediate": {"weight": _short(weight)}}
    return node | ({"guard": guard} if guard else {})


def _timed(before: str, after: Any, delay: Distribution | str) -> dict[str, Any]:
    return {"in": before, "out": after, "delay": str(delay), "server": "infinite"}


def _lasting(expression: str) -> str:
    return f"deterministic(max({expression}, 0))"


def _short(value: float) -> float:
    return float(f"{value:.6g}")
