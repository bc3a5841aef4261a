"""Cables as servers: what they take of measured hops, copies of a message in the simulator, and the nets they make."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from toolkit.model.broker import BUFFER_BYTES, buffer_bytes, run_settings
from toolkit.model.build import net_from_run
from toolkit.model.cables import QUANTUM_BYTES, SHRINKING, Cables, cables_of, departures, freed
from toolkit.model.curves import transient
from toolkit.model.net import NetBuilder
from toolkit.model.netfile import net_document, read_net
from toolkit.model.pnml import load_pnml, pnml_text
from toolkit.model.predict import latencies, messages_of
from toolkit.model.samples import read_run
from toolkit.model.simulate import simulate, why_not_followed
from toolkit.model.structure import analyse_structure
from toolkit.model.validate import validate

duckdb = pytest.importorskip("duckdb")
MBIT = 1_000_000


@pytest.fixture(autouse=True)
def _few(monkeypatch):
    monkeypatch.setattr("toolkit.model.delays.FAMILIES", ("gamma", "lognormal"))
    monkeypatch.setattr("toolkit.model.predict._LATENCIES", 20_000)


def manifest(*, payload=16_384, subscribers=2, nodes=1, arrivals="closed", rate_mbps=100, mode="enhanced", **settings):
    link = {"rate_bps": rate_mbps * MBIT}
    places = [f"sub-{n % nodes}" for n in range(subscribers)]
    return {
        "workload": {
            "payload_bytes": payload, "broker": "broker", "connections": 1, "arrivals": {"kind": arrivals},
        },
        "services": [{"name": "broker", "nodes": ["eh"]}],
        "settings": {"broker": {"mode": mode, "thread_pool_size": 8, **settings}},
        "nodes": {
            "eh": {"link": link, "provider": "container"},
            "pub": {"link": {"rate_bps": 1000 * MBIT}, "provider": "container"},
            **{place: {"link": link, "provider": "container"} for place in places},
        },
        "streams": [{"process": "pub/publisher-0"}],
        "subscribers": [{"process": f"{place}/subscriber-0"} for place in places],
        "orders": {"eh/broker-0": {"role": "broker", "protocol": "sse"}},
    }  # fmt: skip


def make_run(folder, *, subscribers, seed=1, n=500, payload=16_384, period_ms=60.0):
    """One message at a time; 0.02 ms are between sendings, and copies leave as they do on a cable."""
    folder.mkdir()
    document = manifest(payload=payload, subscribers=subscribers)
    cables = replace(cables_of(document), quantum_bytes=QUANTUM_BYTES * subscribers**SHRINKING)
    rng = np.random.Generator(np.random.Philox(seed))
    columns = {
        name: [] for name in ("stream", "seq", "subscriber", "t0_ns", "t1_ns", "t2_ns", "t3_ns", "t4_ns", "late")
    }
    for seq in range(n):
        sent = seq * period_ms
        received = sent + rng.gamma(3, 0.05) + cables.in_ms
        first = received + rng.gamma(4, 0.1)
        out = first + 0.02 * np.arange(subscribers)[None, :]
        left = departures(out, cables.part_ms(subscribers), cables.burst_ms)[0]
        for rank in range(subscribers):
            arrived = left[rank] + rng.gamma(2, 0.1)
            instants = (sent, sent, received, first + rank * 0.02, arrived)
            row = (0, seq, rank, *(10**18 + int(t * 1e6) for t in instants), False)
            for name, value in zip(columns, row, strict=True):
                columns[name].append(value)
    with duckdb.connect() as connection:
        connection.register("given", {name: np.asarray(values) for name, values in columns.items()})
        connection.execute(f"COPY given TO '{folder / 'samples.parquet'}' (FORMAT parquet)")
    (folder / "manifest.json").write_text(json.dumps(document))
    return folder


def test_bytes_on_the_wire_follow_from_the_payload_and_the_protocol():
    cables = cables_of(manifest(payload=65_536))
    # Base64, the request around it, and 66 bytes for each of 61 frames.
    assert cables.in_bytes == 4 * 21_846 + 330 + 61 * 66
    assert cables.in_ms == pytest.approx(7.34, abs=0.01)
    assert cables.out_ms == pytest.approx(7.32, abs=0.01)
    assert cables_of(manifest() | {"nodes": {}}) != cables
    assert cables_of({}) == Cables()


def test_the_busiest_cable_is_the_one_that_counts():
    assert cables_of(manifest(subscribers=4, nodes=4)).out_mbps == 100
    slow = manifest(subscribers=4, nodes=2)
    slow["nodes"]["sub-0"]["link"] = {"rate_bps": 10 * MBIT}
    # Half of all copies go over the slow cable: as a server for all of them it does 20 Mbit/s.
    assert cables_of(slow).out_mbps == 20
    on_the_broker = manifest(subscribers=2)
    on_the_broker["subscribers"] = [{"process": "eh/subscriber-0"}]
    assert cables_of(on_the_broker).out_mbps == 0


def test_copies_leave_one_after_the_other_and_large_ones_take_turns():
    sent = np.array([[0.0, 0.1, 0.2], [10.0, 10.0, np.nan]])
    assert departures(sent, [2.0]).tolist()[0] == [2.0, 4.0, 6.0]
    assert departures(sent, [2.0])[1, :2].tolist() == [12.0, 14.0]
    assert departures(sent, [1.5, 0.5]).tolist()[0] == [5.0, 5.5, 6.0]
    # A full bucket lets 0.5 ms through at once; it takes a pause of as long to fill again.
    assert departures(sent[:, :2], [2.0], 0.5)[0].tolist() == [1.5, 3.5]
    assert departures(np.array([[0.0], [2.0], [3.7]]), [2.0], 0.5)[:, 0].tolist() == [1.5, 3.5, 5.5]
    # A connection keeps its order: the second message waits for the first to have left it.
    assert departures(np.array([[0.0], [0.5]]), [1.0, 1.0])[:, 0].tolist() == [2.0, 4.0]


def test_what_is_left_of_a_hop_is_what_was_added_to_the_cable():
    rng = np.random.Generator(np.random.Philox(3))
    n, cables = 4000, Cables(in_bytes=12_500, in_mbps=100, out_bytes=12_500, out_mbps=100)
    sent = np.cumsum(rng.exponential(2.2, n))
    queue = departures(sent[:, None], [1.0])[:, 0]
    rest = rng.gamma(4, 0.05, (n, 2))
    received = queue + rest[:, 0]
    out = np.sort(received + 0.1)[:, None]
    arrived = departures(out, [1.0]) + rest[:, 1:]
    found = freed(cables, sent=sent, received=received, out=out, arrived=arrived, answered=np.full(n, np.nan))
    assert found.cables == cables
    assert np.abs(found.publish - rest[:, 0]).max() < 1e-9
    assert np.abs(found.deliver - rest[:, 1:]).max() < 1e-9
    # A message that has to wait is one that comes while the one before leaves.
    waited = departures(out, [1.0])[:, 0] - out[:, 0] > 1 + 1e-9
    assert (found.is_idle == ~waited).all()


def test_a_cable_that_is_faster_than_computed_is_taken_as_it_is():
    n = 200
    cables = Cables(in_bytes=12_500, in_mbps=100, out_bytes=12_500, out_mbps=100)
    sent = np.arange(n) * 20.0
    out = np.stack([sent + 1.0, sent + 1.1], axis=1)
    arrived = departures(out, [0.98])
    found = freed(cables, sent=sent, received=sent + 0.97, out=out, arrived=arrived, answered=np.full(n, np.nan))
    assert found.cables.in_ms == pytest.approx(0.97)
    assert found.cables.out_ms == pytest.approx(0.98, rel=0.005)
    assert np.abs(found.deliver).max() < 0.02


def copying(copies):
    """A message is copied twice and each copy takes its own time over one server."""
    builder = NetBuilder("copying").place("Start", 30).place("A").place("B").place("Done")
    for place in ("Fork", "Rest"):
        builder.place(place)
    builder.timed("go", "Start", "Fork", "exponential(0.01)", servers=1)
    builder.immediate("first", "Fork", ["A", "Rest"]).immediate("second", "Rest", "B")
    builder.timed("a", "A", "Done", "deterministic(1)", servers=None)
    builder.timed("b", "B", "Done", "deterministic(3)", servers=None)
    return builder.measure("done", first_passage="Done == 60").latency("go", "Done", copies=copies).build()


def test_copies_are_followed_to_their_own_arrivals():
    net = copying(2)
    outcome = simulate(net, least=64, most=64)
    assert outcome.latency.shape == (64, 60)
    own = outcome.latency.reshape(64, 30, 2)
    # Of each message one copy arrives 1 ms after the fork and the other 2 ms later.
    assert np.diff(own, axis=2).ravel() == pytest.approx(2.0, abs=1e-2)
    assert messages_of(net) == (30, 2)
    assert latencies(net).shape[1] == 30
    assert why_not_followed(copying(None)) == "transition b does not move exactly one token"


def test_copies_survive_both_formats(tmp_path):
    net = copying(2)
    assert read_net(net_document(net)).latency == net.latency
    file = tmp_path / "net.pnml"
    file.write_text(pnml_text(net))
    assert load_pnml(file).latency == net.latency


def test_a_run_with_few_subscribers_on_a_cable_tells_of_many(tmp_path):
    fitted = read_run(make_run(tmp_path / "f", subscribers=2))
    document = net_from_run(fitted, subscribers=7)
    assert document["params"]["out_mbps"] == pytest.approx(100, rel=0.01)
    assert document["params"]["N"] == 1
    for subscribers in (1, 7):
        result = validate(fitted, read_run(make_run(tmp_path / f"j{subscribers}", subscribers=subscribers, seed=9)))
        assert result.is_good, result.lines()
    faster = latencies(read_net(document, {"S": 7, "link_mbps": 1000})).mean()
    assert faster < latencies(read_net(document, {"S": 7})).mean() - 3 * fitted.freed.cables.out_ms


def test_fewer_subscribers_have_the_way_of_the_first_copies(tmp_path):
    samples = read_run(make_run(tmp_path / "six", subscribers=6))
    assert samples.freed is not None
    samples.freed.deliver[:, 3:] += 5.0
    means = []
    for subscribers in (2, 6):
        net = read_net(net_from_run(samples, subscribers=subscribers), {"S": subscribers})
        means.append(simulate(net, least=2048, most=2048).latency.mean())
    first = read_run(make_run(tmp_path / "two", subscribers=2, seed=2)).end_to_end.mean()
    assert means[0] == pytest.approx(first, rel=0.02)
    assert means[1] == pytest.approx(samples.end_to_end.mean() + 2.5, rel=0.02)


def test_the_net_of_large_copies_has_one_cable_and_answers_on_it(tmp_path):
    samples = read_run(make_run(tmp_path / "f", subscribers=2, payload=65_536, n=60))
    document = net_from_run(samples)
    net = read_net(document, {"N": 2})
    cable = {place for place in net.places if place.startswith(("Cable", "On_Cable"))}
    assert "On_Cable_Answer" in cable
    assert dict.fromkeys(cable, 1) in [dict(i) for i in analyse_structure(net).place_invariants or ()]
    assert why_not_followed(net) is None
    followed = transient(net.with_messages(1), 40.0)
    shares = np.sum([values for stage, values in followed["places"].items()], axis=0)
    assert "Cable" not in followed["places"]
    assert shares[[0, -1]] == pytest.approx(1, abs=0.02)
    assert shares.max() <= 1.02


def test_small_copies_leave_whole_also_in_a_net_that_has_turns(tmp_path):
    samples = read_run(make_run(tmp_path / "f", subscribers=3, n=100))
    whole = latencies(read_net(net_from_run(samples))).mean()
    turns = replace(samples.freed.cables, quantum_bytes=52_000.0)
    document = net_from_run(replace(samples, freed=replace(samples.freed, cables=turns)), subscribers=4)
    assert "pass_2_1" in document["transitions"]
    apart = {"N": 1, "S": 3, "quantum": 52_000}
    assert latencies(read_net(document, apart)).mean() == pytest.approx(whole, rel=0.01)


def test_a_full_cable_makes_a_blocking_broker_wait(tmp_path, monkeypatch):
    monkeypatch.setattr("toolkit.model.predict._LEAST_REPLICATIONS", 32)
    monkeypatch.setattr("toolkit.model.predict._LATENCIES", 1)
    samples = read_run(make_run(tmp_path / "f", subscribers=2, payload=65_536, n=100))
    # An answer that leaves early makes the publisher faster than the cable: what the kernel holds decides the latency.
    cables = replace(samples.freed.cables, quantum_bytes=25_000 * 2**SHRINKING)
    document = net_from_run(replace(samples, freed=replace(samples.freed, cables=cables)))
    assert {"pass_4_2"} == {name for name in document["transitions"] if name in {"pass_4_2", "pass_5_2"}}
    nets = [read_net(document, {"N": 30, "buffer": held}) for held in (100_000, 300_000)]
    small, large = (latencies(net).mean() for net in nets)
    assert large > small + 2 * cables.out_ms


def test_a_writer_that_found_the_buffer_full_sleeps_until_a_third_of_it_is_free(tmp_path):
    samples = read_run(make_run(tmp_path / "f", subscribers=2, payload=65_536, n=100))
    document = net_from_run(samples)
    assert document["params"]["buffer"] == BUFFER_BYTES
    net = read_net(document)
    guards = {t.name: t.guard for t in net.transitions}
    copy = net.params["out_bytes"]
    for held, enabled in ((0, {"wake_1"}), (1, {"wake_1"}), (2, set()), (3, {"block_1"})):
        marking = dict.fromkeys(net.places, 0) | {"Waiting_1": held}
        assert {name for name in ("wake_1", "block_1") if guards[name](marking)} == enabled, (held, copy)
    # What waits there still holds its thread.
    assert "Blocked_1" in guards["assign"].names


def test_connections_without_pacing_leave_as_they_came():
    assert not cables_of(manifest(congestion="reno")).is_paced
    assert cables_of(manifest(congestion="kernel")).is_paced
    # The second parts of the first message are in the queue before the second message.
    sent = np.array([[0.0, 0.1], [3.5, 3.6]])
    assert departures(sent, [1.5, 0.5]).tolist() == [[3.5, 5.5], [7.5, 8.0]]
    assert departures(sent, [1.5, 0.5], is_paced=False).tolist() == [[3.5, 4.0], [7.5, 8.0]]
    assert departures(sent[:1], [1.5, 0.5], busy_until=2.0).tolist() == [[5.5, 6.0]]


def closed_loop(cables, *, copies, n, rest_ms, upload_ms):
    """Messages that follow the answer to the last; an answer leaves behind the first parts of all copies."""
    out = np.full((n, copies), np.nan)
    answered = np.full(n, np.nan)
    first = 0.0
    for row in range(n):
        out[row] = first + 0.01 * np.arange(copies)
        left = departures(out[: row + 1], cables.part_ms(copies), is_paced=False)
        before = max(np.nanmax(left[:row]) - first, 0.0) if row else 0.0
        answered[row] = first + before + copies * cables.part_ms(copies)[0]
        first = answered[row] + upload_ms
    return out, answered, left + rest_ms


def test_a_cable_that_is_never_idle_is_followed_from_what_each_answer_waited_for():
    known = Cables(out_bytes=90_000, out_mbps=100, is_paced=False)
    out, answered, arrived = closed_loop(known, copies=6, n=60, rest_ms=0.3, upload_ms=8.0)
    sent = out[:, 0] - 8.0
    found = freed(known, sent=sent, received=out[:, 0] - 0.5, out=out, arrived=arrived, answered=answered)
    assert not found.is_idle[1:].any()
    assert np.abs(found.deliver[1:] - 0.3).max() < 0.05
    # Two subscribers leave pauses, and the way is seen from the instants alone.
    out, answered, arrived = closed_loop(known, copies=2, n=60, rest_ms=0.3, upload_ms=8.0)
    found = freed(known, sent=out[:, 0] - 8.0, received=out[:, 0] - 0.5, out=out, arrived=arrived, answered=answered)
    assert found.is_idle.all()
    assert np.abs(found.deliver - 0.3).max() < 1e-9


def test_what_the_kernel_holds_is_known_where_the_file_says_it(tmp_path):
    folder = make_run(tmp_path / "f", subscribers=2, payload=65_536, n=60)
    document = json.loads((folder / "manifest.json").read_text())
    document["settings"]["broker"] |= {"send_buffer": "128K", "congestion": "reno"}
    (folder / "manifest.json").write_text(json.dumps(document))
    samples = read_run(folder)
    params = net_from_run(samples, subscribers=4)["params"]
    # Twice the size with the headers of its frames, and the last piece of a copy, which may go beyond.
    last = samples.freed.cables.out_bytes - QUANTUM_BYTES
    assert params["buffer"] == pytest.approx(262_144 * 1514 / 1448 + last, abs=1)
    assert params["quantum"] == QUANTUM_BYTES
    assert run_settings(samples)["buffer"] == params["buffer"]
    document["settings"]["broker"]["send_buffer"] = "0B"
    (folder / "manifest.json").write_text(json.dumps(document))
    assert "buffer" not in run_settings(read_run(folder))
    assert net_from_run(read_run(folder), subscribers=4)["params"]["buffer"] == BUFFER_BYTES


def test_copies_that_have_begun_go_before_the_next_message_where_nothing_is_paced(tmp_path, monkeypatch):
    monkeypatch.setattr("toolkit.model.predict._LEAST_REPLICATIONS", 32)
    monkeypatch.setattr("toolkit.model.predict._LATENCIES", 1)
    folder = make_run(tmp_path / "f", subscribers=2, payload=65_536, n=100)
    document = json.loads((folder / "manifest.json").read_text())
    document["settings"]["broker"] |= {"send_buffer": "64K", "congestion": "reno"}
    (folder / "manifest.json").write_text(json.dumps(document))
    samples = read_run(folder)
    net = read_net(net_from_run(samples, subscribers=6), {"S": 6})
    cables, own = samples.freed.cables, samples.freed
    upload_ms = cables.in_ms + samples.messages["broker"].mean() + own.publish.mean() + own.answer_ms
    out, _, arrived = closed_loop(cables, copies=6, n=60, rest_ms=0.2, upload_ms=upload_ms)
    expected = (arrived - out[:, :1]).mean() + upload_ms - own.answer_ms
    assert latencies(net).mean() == pytest.approx(expected, rel=0.03)


def test_a_full_cable_hides_what_is_left_of_the_way_and_the_report_says_so(tmp_path):
    full = read_run(make_run(tmp_path / "full", subscribers=2, payload=65_536, n=150, period_ms=15.2))
    other = read_run(make_run(tmp_path / "other", subscribers=1, payload=65_536, n=150, seed=2))
    assert full.is_cable_full
    assert not other.is_cable_full
    rests = {
        run.name: {
            node["delay"] for name, node in net_from_run(run)["transitions"].items() if name.startswith("deliver")
        }
        for run in (full, other)
    }
    assert rests[full.name] == {"deterministic(0)"}
    assert "deterministic(0)" not in rests[other.name]
    slower = replace(other, end_to_end=other.end_to_end * 1.2)
    told = validate(full, slower).explanations
    assert any("cannot be seen behind the full cable" in text for text in told)


def test_a_miss_is_told_with_what_the_kernel_held_in_the_judged_run(tmp_path, monkeypatch):
    monkeypatch.setattr("toolkit.model.predict._LEAST_REPLICATIONS", 16)
    monkeypatch.setattr("toolkit.model.predict._LATENCIES", 1)
    fitted = read_run(make_run(tmp_path / "f", subscribers=2, payload=65_536, n=100))
    judged = read_run(make_run(tmp_path / "j", subscribers=2, payload=65_536, n=100, period_ms=15.2))
    judged = replace(judged, end_to_end=judged.end_to_end * 1.5, freed=replace(judged.freed, held_copies=2.0))
    told = " ".join(validate(fitted, judged).explanations)
    seen = f"{buffer_bytes(judged) / 1000:.0f} kB here"
    assert f"300 kB are supposed, since the fit's broker never waited, {seen}" in told
    assert "With what was seen here the same net is off by mean" in told


def test_an_event_loop_is_one_thread_on_one_core(tmp_path):
    folder = make_run(tmp_path / "f", subscribers=2, n=60)
    document = json.loads((folder / "manifest.json").read_text())
    assert run_settings(read_run(folder))["K"] == 8
    document["settings"]["broker"]["mode"] = "direct"
    (folder / "manifest.json").write_text(json.dumps(document))
    assert run_settings(read_run(folder)) == {"K": 1, "C": 1, "S": 2, "W": 1}
