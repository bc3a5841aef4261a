"""XMPP streams (RFC 6120) and publish/subscribe (XEP-0060) on the wire: values in, bytes out, and back."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator
from dataclasses import dataclass, field
from xml.parsers import expat
from xml.sax.saxutils import escape, quoteattr

CLIENT, STREAMS, SASL = "jabber:client", "http://etherx.jabber.org/streams", "urn:ietf:params:xml:ns:xmpp-sasl"
BIND, ACKS = "urn:ietf:params:xml:ns:xmpp-bind", "urn:xmpp:sm:3"
PUBSUB, EVENT = "http://jabber.org/protocol/pubsub", "http://jabber.org/protocol/pubsub#event"
DATA = "urn:toolkit:data"
"""Namespace of the one element that an item carries: the payload as base64, so that any byte may be in it."""
_ERRORS = " urn:ietf:params:xml:ns:xmpp-"
"""In the names of elements that say what is wrong."""
STANZAS = frozenset({f"{CLIENT} message", f"{CLIENT} iq", f"{CLIENT} presence"})
"""What XEP-0198 counts."""
END = b"</stream:stream>"
_NODE_FORM = "".join(
    f"<field var='{name}'><value>{value}</value></field>"
    for name, value in {
        "FORM_TYPE": f"{PUBSUB}#node_config",
        "pubsub#persist_items": 0,
        "pubsub#max_items": 1,
        "pubsub#send_last_published_item": "never",
        "pubsub#access_model": "open",
        "pubsub#publish_model": "open",
        "pubsub#notification_type": "normal",
    }.items()
)
"""A node that keeps nothing and that everybody may publish to."""


class StreamError(ConnectionError):
    """The other side does not speak XMPP as we know it, or ended the stream."""


@dataclass(slots=True)
class Element:
    """One element; `name` is `namespace name`."""

    name: str
    attributes: dict[str, str]
    children: list[Element] = field(default_factory=list)
    text: str = ""

    def find(self, *path: str) -> Element | None:
        """The first element down this path of names; None where there is none."""
        found: Element | None = self
        for name in path:
            found = next((child for child in found.children if child.name == name), None) if found else None
        return found

    def why(self) -> str:
        """The condition that an error names, and its text."""
        words = [
            child.text if child.name.endswith(" text") else child.name.rpartition(" ")[2]
            for child in self.walk()
            if _ERRORS[1:] in child.name
        ]
        return ": ".join(word for word in words if word) or "no reason given"

    def walk(self) -> Iterator[Element]:
        """Every element below this one."""
        for child in self.children:
            yield child
            yield from child.walk()


class StanzaReader:
    """Cuts a stream into the elements right below its root, whatever way the network cut it."""

    def __init__(self) -> None:
        parser = expat.ParserCreate("UTF-8", " ")
        parser.buffer_text = True
        parser.StartElementHandler = self._begin
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._characters
        parser.StartDoctypeDeclHandler = self._forbidden
        self._parser = parser
        self._open: list[Element] = []
        self._ready: list[Element] = []
        self._ended = False
        self.root: Element | None = None
        """The stream's own element, once it has come."""

    def take(self, data: bytes) -> list[Element]:
        """Elements that `data` completes; raises StreamError for what is no stream, and at its end."""
        try:
            self._parser.Parse(data, False)
        except expat.ExpatError as error:
            raise StreamError(f"not an XMPP stream: {error}") from error
        ready, self._ready = self._ready, []
        if self._ended and not ready:
            raise StreamError("the server ended the stream")
        return ready

    def _begin(self, name: str, attributes: dict[str, str]) -> None:
        element = Element(name, attributes)
        if self.root is None:
            if name != f"{STREAMS} stream":
                raise StreamError(f"not an XMPP stream: it begins with {name!r}")
            self.root = element
            return
        if self._open:
            self._open[-1].children.append(element)
        self._open.append(element)

    def _end(self, _: str) -> None:
        if not self._open:
            self._ended = True
            return
        element = self._open.pop()
        if not self._open:
            self._ready.append(element)

    def _characters(self, text: str) -> None:
        if self._open:
            self._open[-1].text += text

    def _forbidden(self, *_: object) -> None:
        raise StreamError("a stream with a document type, which XMPP forbids")


def opening(domain: str) -> bytes:
    """What begins a stream."""
    return (
        f"<?xml version='1.0'?><stream:stream to={quoteattr(domain)} version='1.0' xml:lang='en' "
        f"xmlns='{CLIENT}' xmlns:stream='{STREAMS}'>"
    ).encode()


def auth(mechanism: str, first: bytes) -> bytes:
    """SASL begins."""
    return f"<auth xmlns='{SASL}' mechanism='{mechanism}'>{_base64(first)}</auth>".encode()


def response(answer: bytes) -> bytes:
    """SASL goes on."""
    return f"<response xmlns='{SASL}'>{_base64(answer)}</response>".encode()


def bind(resource: str) -> bytes:
    """Ask for a full address."""
    return (
        f"<iq type='set' id='bind'><bind xmlns='{BIND}'><resource>{escape(resource)}</resource></bind></iq>"
    ).encode()


def enable_acks() -> bytes:
    """Ask for acknowledged, resumable delivery (XEP-0198)."""
    return f"<enable xmlns='{ACKS}' resume='true'/>".encode()


def acknowledge(handled: int) -> bytes:
    """Say how many stanzas have been taken."""
    return f"<a xmlns='{ACKS}' h='{handled & 0xFFFFFFFF}'/>".encode()


def resume(session: str, handled: int) -> bytes:
    """Ask to go on with a session whose connection was lost."""
    return f"<resume xmlns='{ACKS}' previd={quoteattr(session)} h='{handled & 0xFFFFFFFF}'/>".encode()


def create(number: int, service: str, node: str) -> bytes:
    """Ask for a node; `number` comes back in the answer."""
    return (
        f"<iq type='set' id='c{number}' to={quoteattr(service)}><pubsub xmlns='{PUBSUB}'>"
        f"<create node={quoteattr(node)}/><configure><x xmlns='jabber:x:data' type='submit'>{_NODE_FORM}</x>"
        "</configure></pubsub></iq>"
    ).encode()


def subscribe(number: int, service: str, node: str, jid: str) -> bytes:
    """Ask for a node's items."""
    return (
        f"<iq type='set' id='s{number}' to={quoteattr(service)}><pubsub xmlns='{PUBSUB}'>"
        f"<subscribe node={quoteattr(node)} jid={quoteattr(jid)}/></pubsub></iq>"
    ).encode()


def unsubscribe(number: int, service: str, node: str, jid: str) -> bytes:
    """Ask for no more of a node's items."""
    return (
        f"<iq type='set' id='u{number}' to={quoteattr(service)}><pubsub xmlns='{PUBSUB}'>"
        f"<unsubscribe node={quoteattr(node)} jid={quoteattr(jid)}/></pubsub></iq>"
    ).encode()


def publish_frame(service: str, node: str) -> tuple[bytes, bytes, bytes]:
    """What stands around the number and the encoded payload of a publish."""
    before = b"<iq type='set' id='p"
    between = (
        f"' to={quoteattr(service)}><pubsub xmlns='{PUBSUB}'><publish node={quoteattr(node)}><item>"
        f"<data xmlns='{DATA}'>"
    ).encode()
    return before, between, b"</data></item></publish></pubsub></iq>"


def payloads(message: Element) -> list[bytes]:
    """The payloads of an event, in order; what is not ours gives b"", so that it is counted."""
    items = message.find(f"{EVENT} event", f"{EVENT} items")
    found: list[bytes] = []
    for item in items.children if items else ():
        if item.name != f"{EVENT} item":
            continue
        data = item.find(f"{DATA} data")
        try:
            found.append(binascii.a2b_base64(data.text, strict_mode=True) if data else b"")
        except (ValueError, binascii.Error):
            found.append(b"")
    return found


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode() or "="
