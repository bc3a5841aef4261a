"""Nets in other tools' formats: PNML (ISO/IEC 15909-2, with PIPE's dialect) both ways, ORIS XPN in.

Written PNML is the plain place/transition core that any tool opens; what the core cannot say stands in a
`toolspecific` element, from which the very same net is read back.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

from toolkit.errors import ModelError
from toolkit.model.distributions import Exponential
from toolkit.model.expressions import Expression, parse_delay, parse_expression
from toolkit.model.net import Immediate, Latency, Measure, Net, Timed, Transition

_SPACE = "http://www.pnml.org/version-2009/grammar/pnml"
_TYPE = "http://www.pnml.org/version-2009/grammar/ptnet"
_OTHER_KINDS = {"highlevelnet", "symmetricnet", "pt-hlpng"}
"""Whose tokens have colours."""
_TOOL = "toolkit"
_MOST_BYTES = 50_000_000


def pnml_text(net: Net) -> str:
    """A net as PNML."""
    root = ET.Element("pnml", xmlns=_SPACE)
    element = ET.SubElement(root, "net", id="net", type=_TYPE)
    _text(element, "name", net.name)
    about = ET.SubElement(element, "toolspecific", tool=_TOOL, version="1")
    ET.SubElement(about, "unit").text = net.unit
    for name, measure in net.measures.items():
        quantiles = ",".join(repr(q) for q in measure.quantiles)
        ET.SubElement(about, "measure", name=name, kind=measure.kind, quantiles=quantiles).text = str(
            measure.expression
        )
    if net.latency is not None:
        way = {"from": " ".join(net.latency.start), "to": net.latency.end}
        if net.latency.copies is not None:
            way["copies"] = str(net.latency.copies)
        ET.SubElement(about, "latency", way)
    page = ET.SubElement(element, "page", id="page")
    for place, tokens in net.places.items():
        node = ET.SubElement(page, "place", id=f"p_{place}")
        _text(node, "name", place)
        if tokens:
            _text(node, "initialMarking", str(tokens))
    count = 0
    for transition in net.transitions:
        node = ET.SubElement(page, "transition", id=f"t_{transition.name}")
        _text(node, "name", transition.name)
        node.append(_timing_element(transition))
        ends = [(f"p_{p}", f"t_{transition.name}", n) for p, n in transition.inputs.items()]
        ends += [(f"t_{transition.name}", f"p_{p}", n) for p, n in transition.outputs.items()]
        for source, target, times in ends:
            count += 1
            arc = ET.SubElement(page, "arc", id=f"a_{count}", source=source, target=target)
            if times > 1:
                _text(arc, "inscription", str(times))
    ET.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _timing_element(transition: Transition) -> ET.Element:
    own = ET.Element("toolspecific", tool=_TOOL, version="1")
    timing = transition.timing
    if isinstance(timing, Immediate):
        ET.SubElement(own, "immediate", priority=str(timing.priority), weight=str(timing.weight))
    else:
        delay = f"exponential({timing.delay})" if isinstance(timing.delay, Expression) else str(timing.delay)
        ET.SubElement(own, "timed", delay=delay, servers="infinite" if timing.servers is None else str(timing.servers))
    if transition.guard is not None:
        ET.SubElement(own, "guard").text = str(transition.guard)
    for place, times in transition.inhibitors.items():
        ET.SubElement(own, "inhibitor", place=place, multiplicity=str(times))
    return own


def _text(parent: ET.Element, tag: str, text: str) -> None:
    ET.SubElement(ET.SubElement(parent, tag), "text").text = text


def _parse(file: Path) -> ET.Element:
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"{file}: cannot be read: {error}") from error
    if "<!DOCTYPE" in text or "<!ENTITY" in text or len(text) > _MOST_BYTES:
        raise ModelError(f"{file}: document types and entities are not read, nor files over 50 MB")
    try:
        root = ET.fromstring(text)  # noqa: S314 - entities, the danger of it, were refused above
    except ET.ParseError as error:
        raise ModelError(f"{file}:{error.position[0]}:{error.position[1] + 1}: not XML: {error}") from error
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
    return root


def _value(element: ET.Element, tag: str, default: str) -> str:
    """The text in `<tag><text>` or PIPE's `<tag><value>`."""
    found = element.find(tag)
    if found is None:
        return default
    for inner in ("text", "value"):
        node = found.find(inner)
        if node is not None and node.text and node.text.strip():
            return node.text.strip()
    return (found.text or "").strip() or default


def _number(text: str, what: str) -> float:
    # PIPE writes `Default,3`: the colour before the number.
    try:
        return float(text.rpartition(",")[2])
    except ValueError:
        raise ModelError(f"{what}: {text!r} is not a number") from None


def _whole(text: str, what: str) -> int:
    number = _number(text, what)
    if not number.is_integer():
        raise ModelError(f"{what}: {text!r} is not a whole number")
    return int(number)


class _Names:
    """Identifiers of a file as names of ours, each kept apart from the others."""

    def __init__(self) -> None:
        self.known: dict[str, str] = {}

    def add(self, identifier: str, wish: str) -> str:
        name = re.sub(r"[^A-Za-z0-9_]+", "_", wish).strip("_") or "x"
        if name[0].isdigit():
            name = f"x{name}"
        base, number = name, 2
        while name in self.known.values():
            name, number = f"{base}_{number}", number + 1
        self.known[identifier] = name
        return name


def load_pnml(file: Path) -> Net:
    """A place/transition net; PIPE's rate, timed, infiniteServer, priority and inhibitor arcs are understood.

    A transition that says nothing of time is exponential with rate 1.
    """
    root = _parse(file)
    element = root.find("net")
    if element is None:
        raise ModelError(f"{file}: has no <net>")
    kind = element.get("type", "").rpartition("/")[2]
    if kind in _OTHER_KINDS:
        raise ModelError(f"{file}: is a net of type {kind}; place/transition nets are read")
    names = _Names()
    places: dict[str, int] = {}
    for node in element.iter("place"):
        identifier = node.get("id", "")
        name = names.add(identifier, _value(node, "name", identifier))
        places[name] = _whole(_value(node, "initialMarking", "0"), f"{file}: place {name}, initial marking")
    nodes = {names.add(n.get("id", ""), _value(n, "name", n.get("id", ""))): n for n in element.iter("transition")}
    arcs: dict[str, dict[str, dict[str, int]]] = {name: {"in": {}, "out": {}, "inhibit": {}} for name in nodes}
    for arc in element.iter("arc"):
        source, target = (names.known.get(arc.get(end, "")) for end in ("source", "target"))
        what = f"{file}: arc {arc.get('id')}"
        if source is None or target is None:
            raise ModelError(f"{what}: joins {arc.get('source')} and {arc.get('target')}, one of which does not exist")
        times = _whole(_value(arc, "inscription", "1"), what)
        style = arc.find("type")
        inhibits = style is not None and (style.get("value") or _value(arc, "type", "")) == "inhibitor"
        if source in places and target in nodes:
            side = arcs[target]["inhibit" if inhibits else "in"]
            side[source] = side.get(source, 0) + times
        elif source in nodes and target in places:
            arcs[source]["out"][target] = arcs[source]["out"].get(target, 0) + times
        else:
            raise ModelError(f"{what}: joins {source} and {target}; an arc joins a place and a transition")
    own = next((t for t in element.findall("toolspecific") if t.get("tool") == _TOOL), None)
    return Net(
        name=_value(element, "name", element.get("id", "net")),
        unit=(own.findtext("unit") if own is not None else None) or "ms",
        places=places,
        transitions=tuple(_transition(file, name, node, arcs[name]) for name, node in nodes.items()),
        measures=_measures(file, own),
        latency=_latency(file, own),
    )


def _measures(file: Path, own: ET.Element | None) -> dict[str, Measure]:
    found: dict[str, Measure] = {}
    for node in own.findall("measure") if own is not None else ():
        kind: Any = node.get("kind")
        given = (node.get("quantiles") or "").split(",")
        quantiles = tuple(_number(q, f"{file}: measure {node.get('name')}") for q in given if q)
        found[node.get("name", "measure")] = Measure(
            kind=kind, expression=parse_expression(node.text or ""), quantiles=quantiles
        )
    return found


def _latency(file: Path, own: ET.Element | None) -> Latency | None:
    node = own.find("latency") if own is not None else None
    if node is None:
        return None
    copies = node.get("copies")
    return Latency(
        start=tuple(node.get("from", "").split()),
        end=node.get("to", ""),
        copies=_whole(copies, f"{file}: latency, copies") if copies else None,
    )


def _transition(file: Path, name: str, node: ET.Element, arcs: dict[str, dict[str, int]]) -> Transition:
    own = next((t for t in node.findall("toolspecific") if t.get("tool") == _TOOL), None)
    what = f"{file}: transition {name}"
    guard = None
    timing: Immediate | Timed
    inhibit = dict(arcs["inhibit"])
    if own is not None:
        at_once, timed = own.find("immediate"), own.find("timed")
        if at_once is not None:
            weight = parse_expression(at_once.get("weight", "1"))
            timing = Immediate(priority=_whole(at_once.get("priority", "1"), what), weight=weight)
        elif timed is not None:
            servers = timed.get("servers", "1")
            delay = parse_delay(timed.get("delay", ""), {})
            timing = Timed(delay=delay, servers=None if servers == "infinite" else _whole(servers, what))
        else:
            raise ModelError(f"{what}: neither timed nor immediate")
        text = own.findtext("guard")
        guard = parse_expression(text) if text else None
        inhibit |= {i.get("place", ""): _whole(i.get("multiplicity", "1"), what) for i in own.findall("inhibitor")}
    else:
        rate = _number(_value(node, "rate", "1"), what)
        if node.find("timed") is not None and _value(node, "timed", "true") == "false":
            timing = Immediate(priority=_whole(_value(node, "priority", "1"), what), weight=parse_expression(rate))
        else:
            is_infinite = _value(node, "infiniteServer", "false") == "true"
            timing = Timed(delay=Exponential(rate=rate), servers=None if is_infinite else 1)
    return Transition(name=name, inputs=arcs["in"], outputs=arcs["out"], inhibitors=inhibit, guard=guard, timing=timing)


def load_xpn(file: Path) -> Net:  # noqa: C901 - one step after the other
    """An ORIS net: places, transitions, arcs (through joints as well), the stochastic features of its transitions."""
    root = _parse(file)
    names = _Names()
    places: dict[str, int] = {}
    transitions: dict[str, ET.Element] = {}
    joints: dict[str, str] = {}
    for node in root.iter("place"):
        name = names.add(node.get("uuid", ""), _property(node, "default.name") or str(node.get("uuid")))
        places[name] = _whole(_property(node, "default.marking", "marking") or "0", f"{file}: place {name}")
    for node in root.iter("transition"):
        name = names.add(node.get("uuid", ""), _property(node, "default.name") or str(node.get("uuid")))
        transitions[name] = node
    joint_ids = {node.get("uuid", "") for node in root.iter("joint")}
    edges = [(a, "arc") for a in root.iter("arc")] + [(a, "inhibit") for a in root.iter("inhibitor-arc")]
    for edge, _ in edges:
        if edge.get("from") in joint_ids:
            joints[edge.get("from", "")] = edge.get("to", "")
    arcs: dict[str, dict[str, dict[str, int]]] = {name: {"in": {}, "out": {}, "inhibit": {}} for name in transitions}
    for edge, kind in edges:
        source, target = edge.get("from", ""), edge.get("to", "")
        if source in joint_ids:
            continue
        for _ in range(len(joint_ids) + 1):
            target = joints.get(target, target)
        a, b = names.known.get(source), names.known.get(target)
        if a in places and b in transitions:
            arcs[b]["inhibit" if kind == "inhibit" else "in"][a] = 1
        elif a in transitions and b in places:
            arcs[a]["out"][b] = 1
        else:
            raise ModelError(f"{file}: an arc joins {source} and {target}, which are not a place and a transition")
    made = []
    for name, node in transitions.items():
        enabling = _property(node, "transition.enablingFunction", "expression")
        made.append(
            Transition(
                name=name,
                inputs=arcs[name]["in"],
                outputs=arcs[name]["out"],
                inhibitors=arcs[name]["inhibit"],
                guard=parse_expression(enabling.replace("&&", " and ").replace("||", " or ")) if enabling else None,
                timing=_oris_timing(file, name, node),
            )
        )
    return Net(name=re.sub(r"\W+", "_", file.stem), places=places, transitions=tuple(made))


def _property(node: ET.Element, identifier: str, key: str = "name") -> str | None:
    for prop in node.iter("property"):
        if prop.get("id") == identifier:
            return prop.get(key) or prop.get("value") or prop.get("property-data-type")
    return None


def _oris_timing(file: Path, name: str, node: ET.Element) -> Immediate | Timed:
    stochastic = next((p for p in node.iter("property") if p.get("id") == "transition.stochastic"), None)
    if stochastic is None:
        raise ModelError(f"{file}: transition {name} has no stochastic feature")
    # Attributes in ORIS' spelling, in lower case so that its versions do not matter.
    given = {key.lower(): value for key, value in stochastic.attrib.items()}
    kind = given.get("property-data-type", "").rpartition(".")[2].lower()
    rate = given.get("lambda", given.get("rate", "1"))
    try:
        if "imm" in kind:
            priority = int(float(given.get("priority", "0"))) + 1
            return Immediate(priority=priority, weight=parse_expression(given.get("weight", "1")))
        if "erlang" in kind:
            return Timed(delay=parse_delay(f"erlang({int(float(given['k']))}, {rate})", {}))
        if "exp" in kind:
            return Timed(delay=parse_delay(f"exponential({rate})", {}))
        if "uniform" in kind:
            return Timed(delay=parse_delay(f"uniform({given['eft']}, {given['lft']})", {}))
        if "deterministic" in kind:
            return Timed(delay=parse_delay(f"deterministic({given['value']})", {}))
    except KeyError as error:
        raise ModelError(f"{file}: transition {name}: {kind} lacks {error}") from error
    raise ModelError(f"{file}: transition {name}: timing {kind!r} is not known")
