"""XMPP publish/subscribe (XEP-0060) on a raw socket: QoS 0 awaits no answer, QoS 1 awaits the result of each publish.

At QoS 1 subscribers acknowledge what they take (XEP-0198), and one whose connection was lost goes on with its session:
what it had not acknowledged comes again. There is no QoS 2. Topics are nodes that keep no items.

Options of an order: `xmpp_domain` (localhost), `xmpp_service` (pubsub.<domain>), `max_inflight`, `tls` and what belongs
to it (TLS from the first byte, XEP-0368). Who logs in: `toolkit.node.drivers.login`.
"""

from __future__ import annotations

import binascii
import collections
import contextlib
import threading
import time
from collections.abc import Sequence
from typing import Any

from toolkit.contract.orders import RunOrder
from toolkit.errors import WorkloadError
from toolkit.node.drivers import sasl
from toolkit.node.drivers import xmpp_stanzas as stanzas
from toolkit.node.drivers.base import Driver, Key, Message, PublishingConnection, SubscribingConnection
from toolkit.node.drivers.ends import SubscribingEnd, WindowedPublisher
from toolkit.node.drivers.login import read_login
from toolkit.node.drivers.wire import Wire
from toolkit.node.drivers.xmpp_stanzas import ACKS, BIND, CLIENT, SASL, STREAMS, Element, StreamError

_USUAL_WINDOW = 256
_ASKED_AT_ONCE = 200
_USUAL_LOGIN = "toolkit", "toolkit"
"""Of a broker that everybody in the testbed may use: publishing needs a name, XMPP knows no other way."""
_CLOSE_WITHIN_S = 10.0


class _Session:
    """A stream that the server has authenticated and given an address."""

    def __init__(
        self, order: RunOrder, *, resource: str, timeout_s: float, resumes: tuple[str, int] | None = None
    ) -> None:
        """Raises OSError when the server is not there (yet), WorkloadError when it will never take this client.

        `resumes`: (session, stanzas taken) to go on with; `resumed` says whether the server did.
        """
        options = order.options
        self.domain = str(options.get("xmpp_domain", "localhost"))
        self.service = str(options.get("xmpp_service", f"pubsub.{self.domain}"))
        self.wire = Wire(order.broker, options=options, timeout_s=timeout_s)
        self.reader = stanzas.StanzaReader()
        self._waiting: collections.deque[Element] = collections.deque()
        self.resumed = False
        self.jid = ""
        try:
            self.wire.blocking(timeout_s)
            started_ns = time.monotonic_ns()
            login = read_login(options, usual=_USUAL_LOGIN) or _USUAL_LOGIN
            mechanism = self._log_in(self._begin(), login, tls=bool(options.get("tls")))
            features = self._begin()
            if features.find(f"{BIND} bind") is None:
                raise WorkloadError(f"{order.broker} offers no address to {resource}")  # noqa: TRY301
            if resumes:
                self.wire.send(stanzas.resume(*resumes))
                self.resumed = self.next().name == f"{ACKS} resumed"
            if not self.resumed:
                self.wire.send(stanzas.bind(resource))
                jid = self.answer().find(f"{BIND} bind", f"{BIND} jid")
                self.jid = jid.text if jid else ""
            self.facts: dict[str, Any] = {
                "sasl": mechanism,
                "session_ms": (time.monotonic_ns() - started_ns) / 1e6,
            }
        except BaseException:
            self.wire.close()
            raise

    def _begin(self) -> Element:
        """A new stream on the same connection; its features."""
        self.reader = stanzas.StanzaReader()
        self.wire.send(stanzas.opening(self.domain))
        features = self.next()
        if features.name != f"{STREAMS} features":
            raise StreamError(f"{self.wire.address} sent {features.name} instead of its features")
        return features

    def _log_in(self, features: Element, login: tuple[str, str], *, tls: bool) -> str:
        offered = features.find(f"{SASL} mechanisms")
        if offered is None:
            raise WorkloadError(f"{self.wire.address} lets nobody log in; does it want TLS? (options: tls: true)")
        exchange = sasl.Exchange(sasl.choose({child.text for child in offered.children}, tls=tls), *login)
        self.wire.send(stanzas.auth(exchange.mechanism, exchange.first))
        while True:
            said = self.next()
            data = binascii.a2b_base64(said.text)
            if said.name == f"{SASL} challenge":
                self.wire.send(stanzas.response(exchange.answer(data)))
            elif said.name == f"{SASL} success":
                exchange.finish(data)
                return exchange.mechanism
            else:
                raise WorkloadError(f"{self.wire.address} refuses user {login[0]!r}: {_condition(said)}")

    def next(self) -> Element:
        """The next element, blocking."""
        while not self._waiting:
            self._waiting += self.reader.take(self.wire.read()[0])
        element = self._waiting.popleft()
        self.ended_by(element)
        return element

    def early(self) -> list[Element]:
        """What came before anybody waited for it."""
        found, self._waiting = list(self._waiting), collections.deque()
        return found

    def answer(self) -> Element:
        """The next result, blocking; raises WorkloadError for an error."""
        found = self.next()
        if found.attributes.get("type") == "error":
            raise WorkloadError(f"{self.wire.address} refuses: {found.why()}")
        return found

    def ended_by(self, element: Element) -> None:
        """Raises StreamError where the server says why it ends the stream."""
        if element.name == f"{STREAMS} error":
            raise StreamError(f"{self.wire.address} ends the stream: {element.why()}")

    def ask(self, questions: Sequence[bytes]) -> list[Element]:
        """Ask all, some at a time, then wait for all answers; other elements that come meanwhile are kept."""
        answers: list[Element] = []
        kept: list[Element] = []
        for first in range(0, len(questions), _ASKED_AT_ONCE):
            some = questions[first : first + _ASKED_AT_ONCE]
            self.wire.send(b"".join(some))
            while len(answers) < first + len(some):
                element = self.next()
                (answers if element.name == f"{CLIENT} iq" else kept).append(element)
        self._waiting.extendleft(reversed(kept))
        return answers

    def make_nodes(self, topics: Sequence[str]) -> None:
        """See that every topic has its node; whoever comes first makes it."""
        asked = [stanzas.create(number, self.service, topic) for number, topic in enumerate(topics)]
        for answer in self.ask(asked):
            if answer.attributes.get("type") == "error" and "conflict" not in answer.why():
                raise WorkloadError(f"{self.wire.address} makes no node at {self.service}: {answer.why()}")

    def close(self, *, last: bytes = b"") -> None:
        """End the stream, and close once the server has read everything and ended it too.

        A connection closed over unread answers is reset, and the server then forgets what it had not read either.
        """

        def wait() -> None:
            try:
                self.wire.blocking(_CLOSE_WITHIN_S)
                self.wire.send(last + stanzas.END)
                self.wire.flush()
                while True:
                    self.wire.read()
            except OSError:
                self.wire.close()

        threading.Thread(target=wait, name="xmpp-close", daemon=True).start()


def _condition(failure: Element) -> str:
    return failure.children[0].name.rpartition(" ")[2] if failure.children else "no reason given"


class XmppPublisher(WindowedPublisher):
    """Publishes items; a stanza's id is the number of the message."""

    def __init__(self, order: RunOrder, *, connection: int, fill: bytes, timeout_s: float) -> None:
        resource = f"tk-pub-{order.streams[connection * len(order.topics)]:x}"
        self._session = _Session(order, resource=resource, timeout_s=timeout_s)
        wire = self._session.wire
        try:
            self._session.make_nodes(order.topics)
        except BaseException:
            wire.close()
            raise
        wire.blocking(None)
        super().__init__(
            wire,
            self._session.facts,
            window=int(order.options.get("max_inflight", _USUAL_WINDOW)) if order.qos else 0,
            message_bytes=order.payload_bytes * 4 // 3 + 300,
        )
        self.facts["granted_qos"] = order.qos
        self._fill = fill
        self._frames = [stanzas.publish_frame(self._session.service, topic) for topic in order.topics]
        self._last = 0

    def _send(self, topic: int, header: bytes) -> None:
        before, between, after = self._frames[topic]
        self._last += 1
        encoded = binascii.b2a_base64(header + self._fill, newline=False)
        self._wire.send(b"%b%d%b%b%b" % (before, self._last, between, encoded, after))

    def _offer(self, topic: int, header: bytes, key: Key) -> None:
        self._in_flight[self._last + 1] = key
        self._send(topic, header)

    def answers(self) -> tuple[int, list[Key], list[Key]]:
        """A result accepts, an error rejects; at QoS 0 they are read and forgotten."""
        data, at_ns = self._wire.read()
        accepted: list[Key] = []
        rejected: list[Key] = []
        for stanza in self._session.reader.take(data) if data else ():
            self._session.ended_by(stanza)
            error = stanza.attributes.get("type") == "error"
            if error:
                self.facts["last_rejection"] = stanza.why()
                self.facts["rejections"] = self.facts.get("rejections", 0) + 1
            number = stanza.attributes.get("id", "")[1:]
            if number.isdigit() and (key := self._in_flight.pop(int(number), None)) is not None:
                (rejected if error else accepted).append(key)
        self._offer_waiting()
        return at_ns, accepted, rejected

    def close(self) -> None:
        """End the stream and close."""
        self._session.close()


class XmppSubscriber(SubscribingEnd):
    """Subscribed to every topic of the order; at QoS 1 it acknowledges and can be resumed."""

    beat = b" "

    def __init__(self, order: RunOrder, *, resource: str, before: XmppSubscriber | None, timeout_s: float) -> None:
        resumes = before.resumable() if before else None
        self._session = _Session(order, resource=resource, timeout_s=timeout_s, resumes=resumes)
        super().__init__(self._session.wire, {**self._session.facts, "requested_qos": order.qos, "granted_qos": 0})
        self._topics = order.topics
        self._handled = 0
        self._id = ""
        """Of the session, where it can be resumed."""
        self.jid = self._session.jid
        try:
            if self._session.resumed and before is not None:
                self.jid, self._id, self._handled = before.jid, before._id, before._handled  # noqa: SLF001
                self.facts["resumed"] = before.facts.get("resumed", 0) + 1
            else:
                self._subscribe(order)
            if self._id:
                self.facts["granted_qos"] = 1
        except BaseException:
            self._wire.close()
            raise
        self._early = self._session.early()
        self._ended: Element | None = None
        self._wire.blocking(None)

    def _subscribe(self, order: RunOrder) -> None:
        started_ns = time.monotonic_ns()
        session = self._session
        if order.qos:
            self._wire.send(stanzas.enable_acks())
            enabled = session.next()
            if enabled.name == f"{ACKS} enabled" and enabled.attributes.get("resume") in ("true", "1"):
                self._id = enabled.attributes.get("id", "")
        session.make_nodes(order.topics)
        answers = session.ask(
            [stanzas.subscribe(n, session.service, topic, self.jid) for n, topic in enumerate(order.topics)]
        )
        self._handled = 2 * len(order.topics)
        for topic, answer in zip(order.topics, answers, strict=True):
            if answer.attributes.get("type") == "error":
                raise WorkloadError(f"{order.broker} refused the subscription to {topic}: {answer.why()}")
        self.facts["subscribed_ms"] = (time.monotonic_ns() - started_ns) / 1e6

    def resumable(self) -> tuple[str, int] | None:
        """(session, stanzas taken), where the server agreed to keep it."""
        return (self._id, self._handled) if self._id else None

    def read(self) -> int:
        """Read what is there; the instant right after the read, in ns."""
        if self._ended is not None:
            self._session.ended_by(self._ended)
        return super().read()

    def messages(self) -> list[Message]:
        """What the last `read` completed; acknowledged when the server asks.

        What was taken is handed over even where the connection has ended meanwhile, since a resumed session goes on
        behind it; the next `read` tells of the end.
        """
        arrived = self._session.reader.take(self._data)
        if self._early:
            arrived, self._early = self._early + arrived, []
        messages: list[Message] = []
        answers = b""
        for element in arrived:
            if element.name in stanzas.STANZAS:
                self._handled += 1
                messages += [(payload, 0) for payload in stanzas.payloads(element)]
            elif element.name == f"{ACKS} r":
                answers = stanzas.acknowledge(self._handled)
            elif element.name == f"{STREAMS} error":
                self._ended = element
        with contextlib.suppress(ConnectionError):
            if answers:
                self._wire.send(answers)
            elif self._wire.backlog():
                self._wire.flush()
        return messages

    def close(self) -> None:
        """Unsubscribe, end the stream and close."""
        service = self._session.service
        gone = [stanzas.unsubscribe(n, service, topic, self.jid) for n, topic in enumerate(self._topics)]
        self._session.close(last=b"".join(gone))


class XmppDriver:
    """Prosody and any other XMPP server with a publish/subscribe service."""

    name = "xmpp"

    def check(self, order: RunOrder) -> None:
        """Refuse what XMPP does not have."""
        if order.qos not in (0, 1):
            raise ValueError(
                f"XMPP publish/subscribe has QoS 0 and 1, not {order.qos}: nothing in XEP-0060 or XEP-0198 delivers "
                "exactly once"
            )
        for topic in order.topics:
            if not topic or not topic.isprintable():
                raise ValueError(f"{topic!r} cannot be the name of a node: empty, or with characters XML does not have")

    def answers(self, order: RunOrder) -> bool:
        """At QoS 0 nobody waits for the answers that come."""
        return order.qos > 0

    def open_publisher(
        self, order: RunOrder, *, connection: int, fill: bytes, timeout_s: float
    ) -> PublishingConnection:
        """One stream."""
        return XmppPublisher(order, connection=connection, fill=fill, timeout_s=timeout_s)

    def open_subscribers(
        self, order: RunOrder, *, identity: str, before: Sequence[SubscribingConnection], timeout_s: float
    ) -> list[SubscribingConnection]:
        """One stream for every topic."""
        lost = next((old for old in before if isinstance(old, XmppSubscriber)), None)
        return [XmppSubscriber(order, resource=f"tk-sub-{identity}", before=lost, timeout_s=timeout_s)]


DRIVER: Driver = XmppDriver()
