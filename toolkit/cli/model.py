"""`toolkit model fit | show | solve | predict | validate | table`: what should happen, beside what did."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from toolkit.cli.target import JsonOption
from toolkit.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from toolkit.model.net import Net
    from toolkit.model.structure import Structure

app = typer.Typer(
    help="Fit, solve and check stochastic Petri nets of a testbed. Example: toolkit model predict latest",
    no_args_is_help=True,
)

NetArgument = Annotated[Path, typer.Argument(metavar="NET", help="A net: .yml, .pnml or .xpn.")]
RunArgument = Annotated[
    str,
    typer.Argument(
        metavar="RUN", help="A run: its folder, id or latest; several with commas between them count as one."
    ),
]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Set a parameter; again for another.")
]
TokensOption = Annotated[
    int | None, typer.Option(metavar="NUMBER", help="Tokens (messages, requests) at the start.", min=0)
]
AtOption = Annotated[str | None, typer.Option("--at", metavar="T,T", help="Times at which to look at the places.")]
MethodOption = Annotated[str, typer.Option(metavar="METHOD", help="auto, semi-markov, phases or simulation.")]
SeedOption = Annotated[int, typer.Option(metavar="NUMBER", help="The simulator's seed.", min=0)]
PrecisionOption = Annotated[
    float, typer.Option(metavar="SHARE", help="Relative half-width the simulator aims at.", min=1e-5, max=0.5)
]
SecondsOption = Annotated[float, typer.Option(metavar="SECONDS", help="Most seconds to simulate.", min=0.1)]


def _picture(file: Path | None) -> Path | None:
    if file is not None and file.suffix not in {".svg", ".pdf", ".png"}:
        raise UsageError(f"--plot {file}: a picture is a .svg, .pdf or .png file")
    return file


PlotOption = Annotated[
    Path | None,
    typer.Option("--plot", metavar="FILE", help="Draw into a .svg, .pdf or .png file.", callback=_picture),
]
_LONG = 90


def register(parent: typer.Typer) -> None:
    """Add the commands."""
    # Matrices are small here: threads of BLAS cost more than they give, 0.05 s of a processor for the start alone.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    parent.add_typer(app, name="model")


@app.command("solve")
def solve(
    net: NetArgument,
    tokens: TokensOption = None,
    set_: SetOption = None,
    at: AtOption = None,
    quantiles: Annotated[str | None, typer.Option(metavar="P,P", help="Probabilities of the quantiles.")] = None,
    method: MethodOption = "auto",
    seed: SeedOption = 1,
    precision: PrecisionOption = 0.005,
    seconds: SecondsOption = 10.0,
    horizon: Annotated[
        float | None, typer.Option(metavar="MS", help="End of time for a net that never completes.")
    ] = None,
    plot: PlotOption = None,
    json_output: JsonOption = False,
) -> None:
    """Times, quantiles and place probabilities of a net. Example: toolkit model solve event-handler.yml --tokens 4"""
    from toolkit.model.analyse import Effort, solve

    loaded = _net(net, set_, tokens)
    effort = Effort(seed=seed, precision=precision, most_seconds=seconds)
    if horizon is not None:
        effort = Effort(seed=seed, precision=precision, most_seconds=seconds, horizon=horizon)
    solution = solve(
        loaded, method=method, at=_numbers(at, "--at"), quantiles=_numbers(quantiles, "--quantiles"), effort=effort
    )
    if plot is not None:
        from toolkit.model.draw import plot_solution

        plot_solution(solution, plot)
    document = solution.document()
    typer.echo(json.dumps(document) if json_output else "\n".join(_solution_lines(document)))


@app.command("show")
def show(
    source: Annotated[
        str, typer.Argument(metavar="NET|RUN", help="A net, .yml, .pnml or .xpn, or a run to build it from.")
    ],
    tokens: TokensOption = None,
    set_: SetOption = None,
    plot: PlotOption = None,
    write: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the net as .yml or .pnml.")] = None,
    json_output: JsonOption = False,
) -> None:
    """Parts and parameters of a net, and what its shape tells. Drawn or converted on request.

    Example: toolkit model show latest --set threads=4
    """
    from toolkit.model.netfile import net_document
    from toolkit.model.structure import analyse_structure, check

    loaded, aliases = _net_or_run(source, set_, tokens)
    if plot is not None:
        from toolkit.model.draw import net_svg

        if plot.suffix != ".svg":
            raise UsageError(f"--plot {plot}: a net is drawn as .svg")
        plot.write_text(net_svg(loaded), encoding="utf-8")
    if write is not None:
        _write_net(loaded, write)
    # Two messages show the shape of a run's net; its sixty have more markings than anybody waits for.
    looked_at = loaded if Path(source).is_file() else loaded.with_messages(2)
    found = analyse_structure(looked_at)
    notes = check(looked_at)
    if json_output:
        document = net_document(loaded) | {
            "params": dict(loaded.params),
            "aliases": aliases,
            "structure": _structure_document(found),
            "notes": notes,
        }
        typer.echo(json.dumps(document))
        return
    typer.echo("\n".join(_net_lines(loaded, aliases, found, notes)))


def _structure_document(found: Structure) -> dict[str, Any]:
    return {
        "place_invariants": found.place_invariants,
        "transition_invariants": found.transition_invariants,
        "markings": found.markings,
        "complete": found.is_complete,
        "bounds": found.bounds,
        "unbounded": list(found.unbounded),
        "dead_transitions": list(found.dead_transitions),
        "deadlocks": list(found.deadlocks),
    }


def _net_lines(net: Net, aliases: Mapping[str, str], found: Structure, notes: Iterable[str]) -> Iterator[str]:
    from toolkit.model.netfile import net_document

    yield f"net {net.name}, times in {net.unit}"
    for name, value in net.params.items():
        also = ", ".join(alias for alias, meant in aliases.items() if meant == name)
        yield f"  parameter {name}: {value:g}{f' (also {also})' if also else ''}"
    for place, count in net.places.items():
        yield f"  place {place}: {count} at the start, at most {found.bounds[place]} seen"
    for name, node in net_document(net)["transitions"].items():
        what = str(node.get("delay") or "immediate")
        what = what if len(what) <= _LONG else f"{what[:_LONG]}..."
        guard = f"  if {node['guard']}" if "guard" in node else ""
        guard += "".join(f"  unless {place} >= {count}" for place, count in node.get("inhibit", {}).items())
        arcs = f"{_arcs(node.get('in'))} -> {_arcs(node.get('out'))}"
        yield f"  {name}: {arcs}  {what}  {node.get('server', '')}".rstrip() + guard
    if found.place_invariants is None:
        yield "  what is constant is not told: too many combinations of its transitions"
    for weights in found.place_invariants or ():
        yield "  constant: " + " + ".join(p if w == 1 else f"{w} {p}" for p, w in weights.items())
    yield f"  {found.markings} markings{'' if found.is_complete else ' or more'}"
    for note in notes:
        yield f"  note: {note}"


@app.command("fit")
def fit(
    run: RunArgument,
    hop: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Only this hop (or step); again for another.")
    ] = None,
    families: Annotated[str | None, typer.Option(metavar="F,F", help="Only these families.")] = None,
    resolution: Annotated[float, typer.Option(metavar="MS", help="Step of clocks that were rounded.", min=0)] = 0.0,
    rounds: Annotated[
        int, typer.Option("--bootstrap", metavar="NUMBER", help="Rounds for intervals and p-values.", min=0)
    ] = 0,
    round_shapes: Annotated[
        bool, typer.Option(help="Also show each gamma with its shape rounded to an Erlang.")
    ] = False,
    plot: Annotated[
        Path | None, typer.Option("--plots", metavar="FOLDER", help="Draw density, CDF and Q-Q plots.")
    ] = None,
    json_output: JsonOption = False,
) -> None:
    """Fit distributions to every hop of a run, best first. A .csv or .txt of numbers works too.

    Example: toolkit model fit latest --bootstrap 200
    """
    from toolkit.model.curves import fit_curves
    from toolkit.model.families import FAMILIES
    from toolkit.model.fit import compromise, fit

    chosen = [f.strip() for f in families.split(",")] if families else list(FAMILIES)
    documents: dict[str, Any] = {}
    curves: dict[str, Any] = {}
    for name, values in _delays(run, hop).items():
        report = fit(values, name=name, families=chosen, resolution=resolution)
        document = report.document()
        curves[name] = fit_curves(report)
        if rounds and report.best.family != "deterministic":
            from toolkit.model.bootstrap import bootstrap

            document["bootstrap"] = bootstrap(
                report.values, report.best, rounds=rounds, resolution=resolution
            ).document()
        if round_shapes and (rounded := compromise(report, resolution=resolution)) is not None:
            document["rounded"] = rounded.document()
        if plot is not None:
            from toolkit.model.draw import plot_fit

            plot.mkdir(parents=True, exist_ok=True)
            plot_fit(report, plot / f"fit-{name}.svg")
        documents[name] = document
    folder = _run_folder(run.split(",")[0])
    if folder is not None:
        _save(folder, "fits.json", {"hops": documents, "curves": curves})
    if json_output:
        typer.echo(json.dumps({"hops": documents}))
        return
    for name, document in documents.items():
        typer.echo("\n".join(_fit_lines(name, document)))


def _fit_lines(name: str, document: Mapping[str, Any]) -> Iterator[str]:
    yield f"{name}: n {document['n']}, mean {document['mean']:.4g} ms, sd {document['sd']:.4g} ms"
    compared = [document["rounded"]] if "rounded" in document else []
    for found in document["fits"][:6] + compared:
        ad = "inf" if found["ad"] is None else f"{found['ad']:.4g}"
        yield (
            f"  {found['family']:<20} AIC {found['aic']:>12.1f}  BIC {found['bic']:>12.1f}  "
            f"KS {found['ks']:.4f}  AD {ad:<8}  {found['distribution'][:70]}"
        )
    for outlier in document["outliers"]:
        yield (
            f"  outlier {outlier['value']:.4g}: without it the gamma shape is {outlier['shape_without']:.4g}, "
            f"not {outlier['shape_with']:.4g}"
        )
    for note in document["notes"]:
        yield f"  note: {note}"
    if "bootstrap" in document:
        found = document["bootstrap"]
        yield f"  bootstrap: KS p {found['ks_p']:.3f}, AD p {found['ad_p']:.3f}; 95 % of {found['rounds']} rounds:"
        yield from (f"    {name} {low:.4g} to {high:.4g}" for name, (low, high) in found["confidence"].items())


@app.command("predict")
def predict(
    source: Annotated[str, typer.Argument(metavar="NET|RUN", help="A net file, or a run to build the net from.")],
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE[,VALUE]", help="Set a parameter; several values make a sweep."),
    ] = None,
    tokens: TokensOption = None,
    capacity: Annotated[
        float | None, typer.Option(metavar="MS", help="Find the highest rate at which p99 stays below this.")
    ] = None,
    seed: SeedOption = 1,
    seconds: Annotated[float, typer.Option(metavar="SECONDS", help="Most seconds for each point.", min=0.1)] = 5.0,
    write: Annotated[Path | None, typer.Option(metavar="FILE", help="Also write the net as .yml or .pnml.")] = None,
    plot: PlotOption = None,
    json_output: JsonOption = False,
) -> None:
    """What if: the latency of a message under other settings. From a net, or from a run's own.

    Example: toolkit model predict latest --set threads=4,8,16,32 --set rate=500
    """
    from toolkit.model.predict import capacity as find_capacity
    from toolkit.model.predict import sweep

    grid = _grid(set_)
    document, origin = _document(
        source,
        subscribers=int(max([*grid.get("S", ()), *grid.get("subscribers", ()), 0])),
        at_a_rate="rate" in grid or capacity is not None,
    )
    if write is not None:
        from toolkit.model.netfile import read_net

        _write_net(read_net(document, _one_each(grid), tokens=tokens, file=origin), write)
    points = sweep(document, grid, tokens=tokens, seed=seed, most_seconds=seconds, file=origin)
    result: dict[str, Any] = {"source": origin, "points": [point.document() for point in points]}
    if capacity is not None:
        fixed = _one_each({name: values for name, values in grid.items() if name != "rate"})
        result["capacity"] = find_capacity(document, fixed, bound_ms=capacity, seed=seed, file=origin).document()
    if plot is not None:
        from toolkit.model.draw import plot_sweep

        plot_sweep(points, plot)
    folder = _run_folder(source.split(",")[0])
    if folder is not None:
        _save(folder, "predictions.json", result)
    if json_output:
        typer.echo(json.dumps(result))
        return
    for point in points:
        named = ", ".join(f"{k}={v:g}" for k, v in point.settings.items()) or "as it is"
        q = point.latency.quantiles
        typer.echo(f"{named}: mean {point.latency.mean:.4g} ms, p50 {q[0.5]:.4g}, p99 {q[0.99]:.4g} ({point.method})")
    if "capacity" in result:
        found = result["capacity"]
        typer.echo(f"capacity: {found['rate']:.4g} messages/s with p99 {found['p99']:.4g} ms (bound {capacity:g} ms)")


@app.command("validate")
def validate(
    run: RunArgument,
    against: Annotated[
        list[str] | None, typer.Option("--on", metavar="RUN", help="Judge on this other run; again for more.")
    ] = None,
    net: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Judge this net instead of the one built from RUN.")
    ] = None,
    set_: SetOption = None,
    seed: SeedOption = 1,
    plot: PlotOption = None,
    json_output: JsonOption = False,
) -> None:
    """Predicted against measured latency. Of RUN, and of other runs that the model was not fitted on.

    Example: toolkit model validate RUN --on OTHER
    """
    from toolkit.model.curves import distribution_curve, transient
    from toolkit.model.validate import validate

    settings = _one_each(_grid(set_))
    document = None
    if net is not None:
        document, _ = _document(str(net))
    fitted = _read_run(run)
    results = [
        validate(fitted, judged, document=document, settings=settings, seed=seed)
        for judged in [*_alike(run), *(_read_run(other) for other in against or [])]
    ]
    output = {"fitted_on": fitted.name, "runs": [r.document() for r in results]}
    curves = {
        r.run: {"measured": distribution_curve(r.measured), "predicted": distribution_curve(r.predicted)}
        for r in results
    }
    followed = transient(results[0].net.with_messages(1), float(results[0].figure("p99").predicted), seed=seed)
    if plot is not None:
        from toolkit.model.draw import plot_validation

        plot_validation(results, plot)
    _save(fitted.folder, "validation.json", output | {"curves": curves, "transient": followed})
    for name in against or []:  # a run that was judged shows the model as well
        judged = _read_run(name)
        own = [document for document in output["runs"] if document["run"] == judged.name]
        shown = {"fitted_on": fitted.name, "runs": own, "curves": {judged.name: curves[judged.name]}}
        _save(judged.folder, "validation.json", shown | {"transient": followed})
    if json_output:
        typer.echo(json.dumps(output))
        return
    for result in results:
        typer.echo("\n".join(result.lines()))


@app.command("table")
def table(
    runs: Annotated[
        list[str] | None,
        typer.Option(
            "--run", metavar="NET=RUN", help="A run to compare a net's figures with, as event_handler=latest."
        ),
    ] = None,
    nets: Annotated[
        list[Path] | None, typer.Argument(metavar="[NET]...", help="Default: the three shipped nets.")
    ] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="A Markdown table.")] = False,
    json_output: JsonOption = False,
) -> None:
    """Published, exact, predicted and measured figures side by side. Example: toolkit model table"""
    from toolkit.model.table import make_table, table_text

    pairs = dict(_pair(text) for text in runs or [])
    rows = make_table(nets or _shipped(), {name: _read_run(run) for name, run in pairs.items()})
    typer.echo(json.dumps({"rows": rows}) if json_output else table_text(rows, markdown=markdown))


def _net(file: Path, set_: list[str] | None, tokens: int | None) -> Any:
    from toolkit.model.netfile import load_net

    settings = _one_each(_grid(set_))
    if file.suffix in {".pnml", ".xpn", ".xml"}:
        from toolkit.model.pnml import load_pnml, load_xpn

        if settings:
            raise UsageError(f"--set: {file} has no parameters; convert it: toolkit model show {file} --write net.yml")
        net = load_xpn(file) if file.suffix == ".xpn" else load_pnml(file)
        return net if tokens is None else net.with_tokens(tokens)
    return load_net(file, settings, tokens=tokens)


def _net_or_run(source: str, set_: list[str] | None, tokens: int | None) -> tuple[Any, dict[str, str]]:
    """A net from a file, or the one that a run makes, and the other names of its parameters."""
    from toolkit.model.netfile import load_document, read_net

    file = Path(source)
    if file.suffix in {".pnml", ".xpn", ".xml"}:
        return _net(file, set_, tokens), {}
    if file.suffix in {".yml", ".yaml"} or file.is_file():
        document = load_document(file)
        loaded = _net(file, set_, tokens)
    else:
        grid = _grid(set_)
        subscribers = int(max([*grid.get("S", ()), *grid.get("subscribers", ()), 0]))
        document, _ = _document(source, subscribers=subscribers, at_a_rate="rate" in grid)
        loaded = read_net(document, _one_each(grid), tokens=tokens, file=source)
    return loaded, {str(alias): str(name) for alias, name in (document.get("aliases") or {}).items()}


def _arcs(given: Any) -> str:
    """Places of an arc inscription for people."""
    if not isinstance(given, dict):
        return str(given or "-")
    return " + ".join(place if count == 1 else f"{count} {place}" for place, count in given.items())


def _write_net(net: Any, file: Path) -> None:
    if file.suffix not in {".yml", ".yaml", ".pnml"}:
        raise UsageError(f"--write {file}: a net is written as .yml or .pnml")
    if file.suffix == ".pnml":
        from toolkit.model.pnml import pnml_text

        file.write_text(pnml_text(net), encoding="utf-8")
        return
    from toolkit.model.netfile import dump_net

    file.write_text(dump_net(net), encoding="utf-8")


def _pair(text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not separator or not name or not value:
        raise UsageError(f"{text!r} is not of the form NAME=VALUE")
    return name, value


def _grid(set_: list[str] | None) -> dict[str, list[float]]:
    grid = {}
    for text in set_ or []:
        name, value = _pair(text)
        try:
            grid[name] = [float(part) for part in value.split(",")]
        except ValueError:
            raise UsageError(f"--set {text}: {value!r} is not a number") from None
    return grid


def _one_each(grid: Mapping[str, list[float]]) -> dict[str, float]:
    """The settings of one net; several values of a parameter are several nets."""
    for name, values in grid.items():
        if len(values) > 1:
            raise UsageError(
                f"--set {name}={','.join(f'{v:g}' for v in values)}: one value is expected here; "
                "toolkit model predict sweeps over several"
            )
    return {name: values[0] for name, values in grid.items()}


def _numbers(text: str | None, option: str) -> list[float] | None:
    if text is None:
        return None
    try:
        return [float(part) for part in text.replace(";", ",").split(",") if part.strip()]
    except ValueError:
        raise UsageError(f"{option} {text}: numbers separated by commas are expected") from None


def _shipped() -> list[Path]:
    from toolkit import paths

    return [paths.MODELS / f"{name}.yml" for name in ("intracloud", "intercloud", "event-handler")]


def _run_folder(run: str) -> Path | None:
    """The folder a run's name stands for; None if a file is meant."""
    path = Path(run)
    if path.is_file():
        return None
    if path.is_dir():
        return path
    from toolkit.measure.store import find_run

    return find_run(run).path


def _read_run(run: str) -> Any:
    from toolkit.model.samples import read_runs

    folders = [_run_folder(name) for name in run.split(",")]
    if None in folders:
        raise UsageError(f"{run} is a file; a run is a folder (toolkit results lists them)")
    return read_runs([folder for folder in folders if folder is not None])


def _alike(run: str) -> list[Any]:
    """The runs that were named, those with the same settings as one."""
    from toolkit.model.broker import run_settings
    from toolkit.model.samples import pool

    groups: dict[str, list[Any]] = {}
    for name in run.split(","):
        read = _read_run(name)
        settings = run_settings(read) | {"rate": 0.0, "C": 0.0} if read.messages else {}
        groups.setdefault(str(settings), []).append(read)
    return [pool(group) for group in groups.values()]


def _delays(run: str, only: list[str] | None) -> dict[str, Any]:
    if Path(run).is_file():
        text = Path(run).read_text(encoding="utf-8").replace(",", " ").split()
        try:
            return {Path(run).stem: [float(word) for word in text]}
        except ValueError as error:
            raise UsageError(f"{run}: {error}; a sample file holds numbers only") from None
    samples = _read_run(run)
    # A hop that all deliveries of a message share has one value for each message.
    publish = {"publish": samples.messages["publish"]} if samples.messages else {}
    found = {**samples.hops, **samples.steps, **publish, "end_to_end": samples.end_to_end}
    unknown = set(only or []) - set(found)
    if unknown:
        raise UsageError(f"--hop {', '.join(sorted(unknown))}: the run has {', '.join(found)}")
    return {name: values for name, values in found.items() if not only or name in only}


def _document(source: str, *, subscribers: int = 0, at_a_rate: bool = False) -> tuple[Any, str]:
    """A net document from a file, or built from a run."""
    path = Path(source)
    if path.is_file():
        from toolkit.model.netfile import load_document

        return load_document(path), str(path)
    from toolkit.model.build import net_from_run

    return net_from_run(_read_run(source), subscribers=subscribers, at_a_rate=at_a_rate), source


def _save(folder: Path, name: str, document: dict[str, Any]) -> None:
    """Put a result beside the run's other results; a folder that cannot be written is no error."""
    target = folder / "model"
    try:
        target.mkdir(exist_ok=True)
        (target / name).write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        typer.echo(f"not saved to {target / name}: {error.strerror}", err=True)


def _solution_lines(document: dict[str, Any]) -> list[str]:
    unit = document["unit"]
    lines = [f"{document['net']}: {document['measure'] or 'no first-passage measure'}"]
    if document["mean"] is not None:
        lines.append(f"  mean {document['mean']:.6g} {unit}, sd {document['sd']:.6g} {unit}")
        found = (f"p{float(p) * 100:g} {v:.6g}" for p, v in document["quantiles"].items() if v is not None)
        lines.append(f"  {', '.join(found)}")
    if document["probability"] is not None and document["probability"] < 1:
        lines.append(f"  completes with probability {document['probability']:.6g}")
    lines.append(f"  time {' '.join(f'{t:>10.5g}' for t in document['at'])}")
    width = max(len(name) for name in document["places"])
    lines += [f"  {n:<{width}} {' '.join(f'{v:>8.6f}' for v in values)}" for n, values in document["places"].items()]
    for name, value in (document.get("steady") or {}).get("tokens", {}).items():
        lines.append(f"  {name}: {value:.6g} tokens in the long run")
    if "latency" in document:
        q = document["latency"]["quantiles"]
        tail = ", ".join(f"p{float(p) * 100:g} {v:.5g}" for p, v in q.items() if v is not None)
        lines.append(f"  latency of a message: mean {document['latency']['mean']:.6g}, {tail}")
    lines.append(
        f"  by {document['method']} ({document['reason']}), error at most {document['error_bound']:.2g}, "
        f"{document['seconds']:.2f} s"
    )
    return lines
