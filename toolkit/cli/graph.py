"""`toolkit graph`: the testbed drawn."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

import typer

from toolkit.cli.target import JsonOption, ProviderOption, TestbedArgument, testbed_file
from toolkit.spec.load import load_testbed
from toolkit.spec.testbed import Testbed


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("graph")(graph)


def graph(
    testbed: TestbedArgument = None,
    provider: ProviderOption = None,
    form: Annotated[Literal["mermaid", "dot"], typer.Option("--format", help="mermaid or dot")] = "mermaid",
    json_output: JsonOption = False,
) -> None:
    """Draw nodes, services, and which start before which. Example: toolkit graph --format dot | dot -Tsvg > lab.svg"""
    asked = load_testbed(testbed_file(testbed), provider=provider)
    if json_output:
        typer.echo(json.dumps(_document(asked)))
        return
    typer.echo(_mermaid(asked) if form == "mermaid" else _dot(asked))


def _identifier(*parts: str) -> str:
    return "_".join(parts).replace("-", "_")


def _title(testbed: Testbed) -> str:
    """Arrows between services would else be taken for messages."""
    return f"{testbed.name}: arrows lead to what starts later"


def _edges(testbed: Testbed) -> list[tuple[str, str, str, str]]:
    """(service, node, service it comes after, node) for every pair of placed services."""
    by_name = {service.name: service for service in testbed.services}
    return [
        (before, before_node, service.name, node)
        for service in testbed.services
        for before in service.after
        if before in by_name
        for node in service.nodes
        for before_node in by_name[before].nodes
    ]


def _document(testbed: Testbed) -> dict[str, Any]:
    placed = {node.name: [s.name for s in testbed.services if node.name in s.nodes] for node in testbed.nodes}
    return {
        "testbed": testbed.name,
        "nodes": [{"node": node.name, "kind": node.kind, "services": placed[node.name]} for node in testbed.nodes],
        "starts_later": [
            {"service": later, "node": node, "after": before, "after_node": before_node}
            for before, before_node, later, node in _edges(testbed)
        ],
    }


def _mermaid(testbed: Testbed) -> str:
    lines = ["---", f'title: "{_title(testbed)}"', "---", "flowchart LR"]
    for node in testbed.nodes:
        lines.append(f'  subgraph {_identifier(node.name)}["{node.name} ({node.kind})"]')
        placed = [service for service in testbed.services if node.name in service.nodes]
        lines += [f'    {_identifier(node.name, s.name)}["{s.name}: {s.image.name}"]' for s in placed]
        lines += ["    " + _identifier(node.name, "idle") + '["-"]'] if not placed else []
        lines.append("  end")
    lines += [f"  {_identifier(bn, b)} --> {_identifier(n, s)}" for b, bn, s, n in _edges(testbed)]
    return "\n".join(lines)


def _dot(testbed: Testbed) -> str:
    lines = [f'digraph "{testbed.name}" {{', f'  rankdir=LR; node [shape=box]; label="{_title(testbed)}";']
    for node in testbed.nodes:
        lines.append(f'  subgraph "cluster_{node.name}" {{ label="{node.name} ({node.kind})";')
        placed = [service for service in testbed.services if node.name in service.nodes]
        lines += [f'    "{node.name}/{s.name}" [label="{s.name}: {s.image.name}"];' for s in placed]
        lines += [f'    "{node.name}/-" [label="-"];'] if not placed else []
        lines.append("  }")
    lines += [f'  "{bn}/{b}" -> "{n}/{s}";' for b, bn, s, n in _edges(testbed)]
    return "\n".join([*lines, "}"])
