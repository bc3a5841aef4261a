"""`toolkit doctor`: what this machine and the nodes lack, before anything is tried."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import asdict, dataclass
from typing import Annotated

import typer

from toolkit.cli.target import DEFAULT_FILE, JsonOption, TestbedArgument, loaded
from toolkit.errors import ToolkitError, UnreachableError
from toolkit.state import deployed_names

MIN_FREE_BYTES = 4 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing looked at."""

    where: str
    what: str
    well: bool
    found: str
    advice: str = ""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("doctor")(doctor)


def doctor(
    testbed: TestbedArgument = None,
    local: Annotated[bool, typer.Option("--local", help="Only this machine, not the nodes.")] = False,
    json_output: JsonOption = False,
) -> None:
    """Look what this machine and the nodes lack. Exit code 4 if something is missing.

    Example: toolkit doctor
    """
    findings = _this_machine()
    if not local and (testbed or DEFAULT_FILE.is_file() or deployed_names()):
        findings += _nodes(testbed)
    if json_output:
        typer.echo(json.dumps([asdict(finding) for finding in findings]))
    else:
        for finding in findings:
            advice = f"; try: {finding.advice}" if finding.advice and not finding.well else ""
            typer.echo(f"{'ok  ' if finding.well else 'LACK'} {finding.where}: {finding.what}: {finding.found}{advice}")
    lacking = [f for f in findings if not f.well]
    if lacking:
        raise UnreachableError(f"{len(lacking)} of {len(findings)} things are not as they should be")


def _this_machine() -> list[Finding]:
    here = "this machine"
    version = ".".join(map(str, sys.version_info[:3]))
    findings = [Finding(where=here, what="Python", well=sys.version_info >= (3, 11), found=version)]
    for program, advice in (
        ("ssh", "sudo apt-get install openssh-client"),
        ("mmdebstrap", "sudo apt-get install mmdebstrap (needed where no container registry can be reached)"),
        ("ansible-playbook", "make setup"),
    ):
        place = shutil.which(program) or shutil.which(program, path=str(_beside()))
        findings.append(
            Finding(where=here, what=program, well=place is not None, found=place or "not found", advice=advice)
        )
    findings.append(_engine(here))
    free = shutil.disk_usage("/").free
    findings.append(
        Finding(
            where=here,
            what="disk",
            well=free >= MIN_FREE_BYTES,
            found=f"{free / 2**30:.1f} GiB free",
            advice="toolkit gc, docker system df",
        )
    )
    findings.append(_netem(here))
    return findings


def _beside() -> str:
    from pathlib import Path

    return str(Path(sys.executable).parent)


def _engine(where: str) -> Finding:
    from toolkit import engine

    try:
        version = engine.connect(timeout_s=10).version()
    except ToolkitError as error:
        return Finding(where=where, what="Docker engine", well=False, found=str(error))
    return Finding(
        where=where, what="Docker engine", well=True, found=f"{version['Version']} (API {version['ApiVersion']})"
    )


def _netem(where: str) -> Finding:
    modules = (
        subprocess.run(["modinfo", "sch_netem"], capture_output=True, check=False, text=True)
        if shutil.which("modinfo")
        else None
    )
    there = modules is not None and modules.returncode == 0
    found = "there" if there else "not seen: delay, jitter and loss of links cannot be imposed here; rates can"
    return Finding(where=where, what="netem", well=True, found=found)


def _nodes(testbed: str | None) -> list[Finding]:
    from toolkit.provisioning.observe import observe

    try:
        asked, deployment = loaded(testbed)
    except ToolkitError as error:
        return [Finding(where="testbed", what="deployment", well=True, found=str(error))]
    findings = []
    for node, seen in observe(deployment.hosts, asked.name).items():
        if isinstance(seen, ToolkitError):
            findings.append(Finding(where=node, what="reach", well=False, found=str(seen)))
            continue
        free = seen.disk["/"]["free_bytes"]
        well = seen.engine_version is not None and free > MIN_FREE_BYTES // 8
        engine = seen.engine_version or seen.engine_error
        found = f"Python {seen.python}, engine {engine}, {free / 2**30:.1f} GiB free, load {seen.load:.1f}"
        findings.append(Finding(where=node, what="node", well=well, found=found, advice=f"toolkit deploy {asked.name}"))
    return findings
