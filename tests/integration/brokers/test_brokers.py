"""Each broker of toolkit's own images, in the clear and guarded, through every protocol it speaks."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.brokers.servers import Server, docker, serve
from tests.unit.node.processes import ROOT, Bench, NodeProcess, of_point, play
from toolkit.contract.orders import Arrivals, RunOrder
from toolkit.contract.samples import Point
from toolkit.spec.services import spoken

Counters = Callable[[], int]

pytestmark = [pytest.mark.docker, pytest.mark.timeout(600)]

OPEN = Arrivals(kind="rate", rate_per_s=500)
SETTINGS = {
    "mosquitto": "queue_limit: 500, in_flight: 10",
    "rabbitmq": "queue_limit: 500, in_flight: 10",
    "activemq": "queue_limit: 500, in_flight: 10, protocols: [stomp, mqtt]",
}


@pytest.fixture(scope="module", params=["mosquitto", "rabbitmq", "activemq"])
def image(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def server(image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serve(tmp_path_factory.mktemp("open"), image, settings=SETTINGS[image]) as started:
        yield started


@pytest.fixture(scope="module")
def guarded(image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serve(tmp_path_factory.mktemp("guarded"), image, settings=SETTINGS[image], guarded=True) as started:
        yield started


@pytest.fixture
def counters(server: Server) -> Iterator[Counters | None]:
    """Messages that the broker says it has dropped, asked for where its hop probe would: in its own network."""
    if not server.setups[0].native:
        yield None
        return
    source = (
        "import sys, time; from toolkit.node.native_counters import NativeCounters as N\n"
        "n = N(sys.argv[1], int(sys.argv[2])); n.start(); time.sleep(2)\n"
        "for _ in sys.stdin: print(n.read(settled=True).get('dropped', 0), flush=True)"
    )
    pid = docker("inspect", "-f", "{{.State.Pid}}", server.containers[0]).strip()
    command = ["nsenter", "-t", pid, "-n", sys.executable, "-c", source, *server.setups[0].native.split(":")]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin
    assert process.stdout
    ask, answers = process.stdin, process.stdout

    def read() -> int:
        ask.write("\n")
        ask.flush()
        return int(answers.readline())

    yield read
    ask.close()
    process.wait(10)
    answers.close()


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    started = Bench(tmp_path)
    yield started
    started.close()


def pair(bench: Bench, server: Server) -> tuple[NodeProcess, NodeProcess]:
    return bench.publisher(**server.environment), bench.subscriber(**server.environment)


def deliver_all(
    bench: Bench,
    server: Server,
    protocol: str,
    qos: int,
    *,
    granted: int | None = None,
    arrivals: Arrivals = OPEN,
    drain_s: float = 0.3,
    **options: Any,
) -> None:
    publisher, subscriber = pair(bench, server)
    play(
        None, [publisher], [subscriber], run="all", protocol=protocol, broker=server.at(protocol), qos=qos,
        messages=300, topics=["a", "b"], payload_bytes=200, arrivals=arrivals, drain_s=drain_s,
        options=server.options(**options),
    )  # fmt: skip
    sent, received = publisher.info("all"), subscriber.info("all")
    assert sent.counts["sent"] == 600
    assert sent.counts["acked"] == (600 if qos else 0)
    assert received.counts["received"] == 600
    assert received.counts["duplicate"] == received.counts["reordered"] == received.counts["foreign"] == 0
    assert received.facts["granted_qos"] == (qos if granted is None else granted)


def test_every_protocol_in_the_clear_delivers_everything_at_every_qos(server: Server, bench: Bench) -> None:
    for protocol in spoken(server.service.image.name, server.service.settings):
        for qos in (0, 1):
            deliver_all(bench, server, protocol, qos)


def test_qos_2_is_granted_by_some_and_the_others_say_what_they_grant(server: Server, bench: Bench) -> None:
    """Nothing is lost or doubled in a quiet run either way; what is promised is told by the level that was granted."""
    granted = 1 if server.service.image.name == "rabbitmq" else 2
    closed = Arrivals(kind="closed")  # four packets a message: no open loop outruns it on a busy machine
    deliver_all(bench, server, "mqtt", 2, granted=granted, arrivals=closed, drain_s=2.0)
    [subscriber] = [process for process in bench.processes if process.settings.service == "subscriber"]
    assert f'qos="{granted}"' in subscriber.metrics().partition("toolkit_messages_received_total{")[2].partition("}")[0]


def test_subscribers_that_share_get_each_message_once_together(server: Server, bench: Bench) -> None:
    protocol = {"mosquitto": "mqtt", "rabbitmq": "amqp"}.get(server.service.image.name)
    if protocol is None:
        pytest.skip("ActiveMQ has no groups in the protocols that are spoken to it")
    publisher, subscribers = bench.publisher(), [bench.subscriber(number) for number in range(2)]
    play(
        None, [publisher], subscribers, run="share", protocol=protocol, broker=server.at(protocol), qos=1,
        messages=200, topics=["a", "b"], arrivals=OPEN, options=server.options(share=True),
    )  # fmt: skip
    counts = [subscriber.info("share").counts for subscriber in subscribers]
    assert sum(each["received"] for each in counts) == 400
    assert min(each["received"] for each in counts) > 0
    assert sum(each["duplicate"] for each in counts) == 0


def test_every_protocol_with_tls_and_password_delivers_everything(guarded: Server, bench: Bench) -> None:
    for protocol in spoken(guarded.service.image.name, guarded.service.settings):
        deliver_all(bench, guarded, protocol, 1)


def refusal(process: NodeProcess, protocol: str, broker: str, options: dict[str, Any]) -> str:
    """How a subscriber fails, which is to be soon."""
    process.order(
        RunOrder(run="no", testbed="t", role="subscriber", protocol=protocol, broker=broker, topics=["a"], qos=0,
                 options={"connect_timeout_s": 2.0, **options})
    )  # fmt: skip
    return process.wait_until_failed(within_s=8)


def test_who_has_no_right_to_enter_is_told_so_at_once(guarded: Server, bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "wrong").write_text("wrong")
    stranger = bench.subscriber(TOOLKIT_PASSWORD_BROKER_FILE=str(tmp_path / "wrong"))
    for protocol in spoken(guarded.service.image.name, guarded.service.settings):
        complaint = refusal(stranger, protocol, guarded.at(protocol), guarded.options())
        assert any(word in complaint for word in ("password", "refuse", "denied", "authoris")), complaint


def test_a_certificate_that_nobody_vouches_for_is_not_trusted(guarded: Server, bench: Bench, tmp_path: Path) -> None:
    from toolkit.provisioning.certificates import make_master

    (tmp_path / "other.crt").write_bytes(make_master().certificate_pem)
    _, subscriber = pair(bench, guarded)
    protocol = spoken(guarded.service.image.name, guarded.service.settings)[0]
    options = guarded.options(ca_file=str(tmp_path / "other.crt"))
    assert "CERTIFICATE_VERIFY_FAILED" in refusal(subscriber, protocol, guarded.at(protocol), options)


def test_a_broker_that_is_restarted_is_entered_again_and_the_counts_add_up(server: Server, bench: Bench) -> None:
    publisher, subscriber = pair(bench, server)
    protocol = spoken(server.service.image.name, server.service.settings)[0]

    def restart() -> None:
        publisher.wait_until_sent(200)
        server.restart()

    restarting = threading.Thread(target=restart)
    restarting.start()
    play(
        None, [publisher], [subscriber], run="again", protocol=protocol, broker=server.at(protocol), qos=1,
        duration_s=25.0 if server.service.image.name == "rabbitmq" else 12.0, arrivals=OPEN, options=server.options(),
        drain_s=1.0, within_s=120,
    )  # fmt: skip
    restarting.join()
    sent, received = publisher.info("again"), subscriber.info("again")
    assert sent.counts["reconnects"] >= 1
    assert received.counts["reconnects"] >= 1
    assert sent.counts["refused"] > 0
    assert sent.counts["acked"] + sent.facts["unanswered"] <= sent.counts["sent"]
    arrived = [stamp[4] for stamp in of_point(subscriber.stamps("again"), Point.RECEIVED)]
    assert max(arrived) > 0.9 * (sent.counts["sent"] + sent.counts["refused"]), "nothing came after the restart"
    assert received.counts["received"] <= sent.counts["sent"]


def test_what_a_broker_drops_at_qos_0_for_who_stands_still_is_its_own_count(
    server: Server, bench: Bench, counters: Counters | None
) -> None:
    """4 KiB messages for 3 s are more than sockets and the bounded queue hold, also where nothing is acknowledged."""
    image = server.service.image.name
    if image == "activemq" or not counters:
        pytest.skip("ActiveMQ takes 8 MB a second from one publisher only on a machine that does little else")
    publisher, subscriber = pair(bench, server)
    protocol = spoken(image, server.service.settings)[0]
    before = counters()

    def stand_still() -> None:
        publisher.wait_for("running")
        time.sleep(0.3)
        subscriber.process.send_signal(signal.SIGSTOP)
        time.sleep(3)
        subscriber.process.send_signal(signal.SIGCONT)

    standing = threading.Thread(target=stand_still)
    standing.start()
    play(
        None, [publisher], [subscriber], run="still", protocol=protocol, broker=server.at(protocol), qos=0,
        messages=7000, payload_bytes=4096, arrivals=Arrivals(kind="rate", rate_per_s=2000), drain_s=2.0,
        options=server.options(receive_buffer_bytes=1 << 16),
    )  # fmt: skip
    standing.join()
    sent, received = publisher.info("still").counts, subscriber.info("still").counts
    assert received["reconnects"] == received["duplicate"] == 0
    lost = sent["sent"] - received["received"]
    assert lost > 0
    waiting = 6999 - max(stamp[4] for stamp in of_point(subscriber.stamps("still"), Point.RECEIVED))
    assert lost - waiting <= counters() - before <= lost


def test_the_brokers_own_count_of_dropped_messages_is_ours(
    server: Server, bench: Bench, counters: Counters | None
) -> None:
    """A subscriber that takes 5 ms for each message loses some of a burst: what waits beyond the bound."""
    publisher, subscriber = pair(bench, server)
    protocol = spoken(server.service.image.name, server.service.settings)[0]
    before = counters() if counters else 0
    play(
        None, [publisher], [subscriber], run="slow", protocol=protocol, broker=server.at(protocol), qos=1,
        messages=2000, payload_bytes=1000, arrivals=OPEN, drain_s=2.0, options=server.options(consume_delay_s=0.005),
    )  # fmt: skip
    sent, received = publisher.info("slow").counts, subscriber.info("slow").counts
    assert received["reconnects"] == 0
    assert received["received"] < sent["sent"], "the broker was to lose some"
    lost = sent["sent"] - received["received"]
    # What is behind the last arrival may still be in a broker that stood still, on a machine that is very busy.
    waiting = 1999 - max(stamp[4] for stamp in of_point(subscriber.stamps("slow"), Point.RECEIVED))
    assert not counters or lost - waiting <= counters() - before <= lost
