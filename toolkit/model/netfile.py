"""Nets as YAML: read with line numbers and parameters, written back."""

from __future__ import annotations

from collections.abc import Mapping
from io import StringIO
from pathlib import Path
from typing import Any

from toolkit.errors import ModelError, Problem
from toolkit.model.expressions import Expression, bind, parse_delay, parse_expression
from toolkit.model.net import MEASURES, Immediate, Latency, Measure, Net, Timed, Transition, nearest

_TOP = ["net", "unit", "about", "params", "aliases", "tokens", "places", "transitions", "measures", "latency", "thesis"]
_TRANSITION = ["in", "out", "delay", "server", "immediate", "guard", "inhibit"]


def load_net(file: Path, settings: Mapping[str, float] | None = None, *, tokens: int | None = None) -> Net:
    """The net in a file with its parameters set; ModelError names file, line and column of each thing wrong.

    `settings` are parameters (or their aliases) and numeric values; `tokens` sets the parameter that the file names
    under `tokens`, or the tokens of the only marked place.
    """
    return read_net(load_document(file), settings, tokens=tokens, file=str(file))


def load_document(file: Path) -> Any:
    """The YAML mapping in a file, its places in the file kept."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    if file.is_dir():
        raise ModelError(f"{file}: is a folder, no net; `toolkit model show RUN --write net.yml` makes one of a run")
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"{file}: cannot be read: {error}; try one of examples/models/") from error
    try:
        document = YAML(typ="rt").load(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        message = str(error.problem).splitlines()[0]
        raise ModelError([Problem(file=str(file), line=line, column=column, message=message)]) from error
    except YAMLError as error:
        raise ModelError(f"{file}: not YAML: {error}") from error
    if not isinstance(document, dict):
        raise ModelError(
            [Problem(file=str(file), line=1, column=1, message="a net file is a mapping with `net:` first")]
        )
    return document


def read_net(
    document: Any, settings: Mapping[str, float] | None = None, *, tokens: int | None = None, file: str = "net"
) -> Net:
    """The net that a document (from YAML, or made by a program) describes."""
    reader = _Reader(file)
    net = reader.net(document, settings or {}, tokens)
    if net is None or reader.problems:
        raise ModelError(reader.problems)
    return net


class _Reader:
    """Walks a document, resolving expressions and gathering every problem with its place in the file."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.problems: list[Problem] = []
        self.params: dict[str, float] = {}

    def problem(self, node: Any, key: Any, message: str) -> None:
        line, column = 1, 1
        marks = getattr(node, "lc", None)
        if marks is not None:
            try:
                line, column = (part + 1 for part in marks.key(key))
            except (KeyError, TypeError, AttributeError):
                line, column = (marks.line or 0) + 1, (marks.col or 0) + 1
        self.problems.append(Problem(file=self.file, line=line, column=column, message=message))

    def known(self, node: Any, keys: list[str], what: str) -> None:
        for key in node:
            if key not in keys:
                self.problem(node, key, f"{what}: unknown key {key!r}{nearest(str(key), keys)}")

    def mapping(self, node: Any, key: str) -> dict[Any, Any]:
        value = node.get(key)
        if value is None:
            return {}
        if not isinstance(value, dict):
            self.problem(node, key, f"`{key}` must be a mapping")
            return {}
        return value

    def whole(self, node: Any, key: Any, given: Any, what: str) -> int:
        value = self.number(node, key, given, what)
        if value != int(value):
            self.problem(node, key, f"{what}: {given} gives {value:g}, which is not whole")
        return int(value)

    def number(self, node: Any, key: Any, given: Any, what: str) -> float:
        try:
            if isinstance(given, bool) or given is None:
                raise ModelError(f"{given!r} is not a number")  # noqa: TRY301 - joins the other reasons below
            expression = bind(parse_expression(given), self.params)
            if expression.names:
                name = min(expression.names)
                raise ModelError(f"{name!r} is not a parameter{nearest(name, list(self.params))}")  # noqa: TRY301
            return float(expression({}))
        except (ModelError, ZeroDivisionError, OverflowError, TypeError) as error:
            self.problem(node, key, f"{what}: {error}")
            return 0.0

    def expression(self, node: Any, key: Any, given: Any, what: str) -> Expression | None:
        try:
            return bind(parse_expression(given), self.params)
        except ModelError as error:
            self.problem(node, key, f"{what}: {error}")
            return None

    def net(self, document: Any, settings: Mapping[str, float], tokens: int | None) -> Net | None:
        self.known(document, _TOP, "net file")
        self.read_params(document, settings, tokens)
        places = {
            str(name): self.whole(self.mapping(document, "places"), name, count or 0, f"place {name}")
            for name, count in self.mapping(document, "places").items()
        }
        transitions = self.mapping(document, "transitions")
        made = [self.transition(transitions, name) for name in transitions]
        measures = {name: self.measure(document["measures"], name) for name in self.mapping(document, "measures")}
        latency = self.latency(document)
        if self.problems:
            return None
        try:
            net = Net(
                name=str(document.get("net", "net")),
                unit=str(document.get("unit", "ms")),
                params=self.params,
                places=places,
                transitions=tuple(t for t in made if t is not None),
                measures={name: m for name, m in measures.items() if m is not None},
                latency=latency,
            )
            return net.with_tokens(tokens) if tokens is not None and not document.get("tokens") else net
        except ModelError as error:
            message = str(error)
            owner = next((name for name in transitions if f"transition {name}:" in message), None)
            self.problem(transitions if owner else document, owner or "net", message)
            return None

    def read_params(self, document: Any, settings: Mapping[str, float], tokens: int | None) -> None:
        params = self.mapping(document, "params")
        for name, given in params.items():
            self.params[str(name)] = self.number(params, name, given, f"parameter {name}")
        aliases = {str(a): str(p) for a, p in self.mapping(document, "aliases").items()}
        for alias, name in aliases.items():
            if name not in self.params:
                self.problem(document["aliases"], alias, f"alias {alias}: no parameter {name!r}")
        given_settings = dict(settings)
        if tokens is not None and (named := document.get("tokens")):
            given_settings[str(named)] = tokens
        for name, value in given_settings.items():
            target = aliases.get(name, name)
            if target not in self.params:
                known = [*self.params, *aliases]
                message = (
                    f"--set {name}: the net has no such parameter{nearest(name, known) if known else ' (it has none)'}"
                )
                self.problem(document, "params", message)
            else:
                self.params[target] = float(value)
        for name, value in self.params.items():
            self.params[name] = int(value) if float(value).is_integer() else value

    def arcs(self, node: Any, key: str, what: str) -> dict[str, int]:
        given = node.get(key)
        if given is None:
            return {}
        if isinstance(given, str):
            return {given: 1}
        if isinstance(given, dict):
            return {
                str(place): self.whole(given, place, count, f"{what}, arc of {place}") for place, count in given.items()
            }
        if isinstance(given, list) and all(isinstance(place, str) for place in given):
            return {place: given.count(place) for place in given}
        self.problem(node, key, f"{what}: `{key}` must be a place, a list of places or a mapping of place to count")
        return {}

    def transition(self, transitions: Any, name: str) -> Transition | None:
        node = transitions[name]
        what = f"transition {name}"
        if not isinstance(node, dict):
            self.problem(transitions, name, f"{what}: must be a mapping with in, out and delay or immediate")
            return None
        self.known(node, _TRANSITION, what)
        timing = self.timing(transitions, name, node)
        guard = self.expression(node, "guard", node["guard"], f"{what}, guard") if "guard" in node else None
        inputs, outputs = self.arcs(node, "in", what), self.arcs(node, "out", what)
        inhibitors = self.arcs(node, "inhibit", what)
        if timing is None:
            return None
        return Transition(
            name=str(name), inputs=inputs, outputs=outputs, inhibitors=inhibitors, guard=guard, timing=timing
        )

    def timing(self, transitions: Any, name: str, node: Any) -> Immediate | Timed | None:
        what = f"transition {name}"
        if ("delay" in node) == ("immediate" in node):
            self.problem(transitions, name, f"{what}: needs either `delay` or `immediate`")
            return None
        if "immediate" in node:
            if "server" in node:
                self.problem(node, "server", f"{what}: an immediate transition has no servers")
            given = node["immediate"] or {}
            if not isinstance(given, dict):
                self.problem(node, "immediate", f"{what}: `immediate` is a mapping of priority and weight, or {{}}")
                return None
            self.known(given, ["priority", "weight"], what)
            weight = self.expression(given, "weight", given.get("weight", 1), f"{what}, weight")
            if weight is not None and not weight.names and not float(weight({})) > 0:
                self.problem(given, "weight", f"{what}: the weight must be above 0, not {weight}")
            priority = self.whole(given, "priority", given.get("priority", 1), f"{what}, priority")
            return Immediate(priority=priority, weight=weight) if weight is not None else None
        server = node.get("server", "single")
        servers: int | None = None
        if server == "single":
            servers = 1
        elif server != "infinite":
            servers = self.whole(node, "server", server, f"{what}, server (single, infinite or a number)")
        try:
            return Timed(delay=parse_delay(str(node["delay"]), self.params), servers=servers)
        except ModelError as error:
            self.problem(node, "delay", f"{what}: {error}")
            return None

    def measure(self, measures: Any, name: str) -> Measure | None:
        node = measures[name]
        kinds = [kind for kind in MEASURES if isinstance(node, dict) and kind in node]
        if len(kinds) != 1:
            self.problem(measures, name, f"measure {name}: needs one of {', '.join(MEASURES)}")
            return None
        self.known(node, [*kinds, "quantiles"], f"measure {name}")
        expression = self.expression(node, kinds[0], node[kinds[0]], f"measure {name}")
        quantiles = tuple(float(q) for q in node.get("quantiles", ()))
        if any(not 0 < q < 1 for q in quantiles):
            self.problem(node, "quantiles", f"measure {name}: quantiles lie between 0 and 1")
        if expression is None:
            return None
        return Measure(kind=kinds[0], expression=expression, quantiles=quantiles)  # type: ignore[arg-type]

    def latency(self, document: Any) -> Latency | None:
        node = self.mapping(document, "latency")
        if not node:
            return None
        self.known(node, ["from", "to", "copies"], "latency")
        if {"from", "to"} - set(node):
            self.problem(document, "latency", "latency: needs `from` (a timed transition) and `to` (a place)")
            return None
        start = node["from"]
        names = tuple(str(name) for name in start) if isinstance(start, list) else (str(start),)
        copies = self.whole(node, "copies", node["copies"], "latency, copies") if "copies" in node else None
        return Latency(start=names, end=str(node["to"]), copies=copies)


def net_document(net: Net) -> dict[str, Any]:
    """The document that `read_net` reads back as the same net."""
    document: dict[str, Any] = {"net": net.name, "unit": net.unit, "places": dict(net.places), "transitions": {}}
    for transition in net.transitions:
        node: dict[str, Any] = {}
        for key, given in (("in", transition.inputs), ("out", transition.outputs), ("inhibit", transition.inhibitors)):
            if given:
                node[key] = next(iter(given)) if list(given.values()) == [1] and key != "inhibit" else dict(given)
        if transition.guard is not None:
            node["guard"] = str(transition.guard)
        timing = transition.timing
        if isinstance(timing, Immediate):
            node["immediate"] = {"priority": timing.priority, "weight": str(timing.weight)}
        else:
            delay = timing.delay
            node["delay"] = f"exponential({delay})" if isinstance(delay, Expression) else str(delay)
            node["server"] = {1: "single", None: "infinite"}.get(timing.servers, timing.servers)
        document["transitions"][transition.name] = node
    if net.measures:
        document["measures"] = {
            name: {m.kind: str(m.expression), **({"quantiles": list(m.quantiles)} if m.quantiles else {})}
            for name, m in net.measures.items()
        }
    if net.latency:
        start = net.latency.start
        document["latency"] = {"from": start[0] if len(start) == 1 else list(start), "to": net.latency.end}
        if net.latency.copies is not None:
            document["latency"]["copies"] = net.latency.copies
    return document


def dump_net(net: Net | Mapping[str, Any]) -> str:
    """A net, or a document of one, as YAML text."""
    from ruamel.yaml import YAML

    yaml = YAML()
    yaml.width = 120
    yaml.default_flow_style = None
    out = StringIO()
    yaml.dump(net_document(net) if isinstance(net, Net) else dict(net), out)
    return out.getvalue()
