"""Make the machines match the file; done twice, the second time changes nothing."""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from toolkit import paths, ssh
from toolkit.contract.bundle import Bundle
from toolkit.controller.gates import check_gates
from toolkit.controller.teardown import look, refuse_what_others_hold, remove_nodes, teardown
from toolkit.errors import DeployIncompleteError, ToolkitError, UnreachableError
from toolkit.events import Emit, Event, counted, ignore
from toolkit.plan import Plan, Running, make_plan, node_hash, plan_nodes, plan_services
from toolkit.providers import provider_for
from toolkit.providers.base import NodeImage, Request, Resource
from toolkit.providers.links import forecast
from toolkit.provisioning.ansible import Ansible
from toolkit.provisioning.broker_access import access_secrets, file_secrets, made_variables
from toolkit.provisioning.cloud_secrets import cloud_file_secrets, cloud_secrets
from toolkit.provisioning.images import Builder
from toolkit.provisioning.inventory import SSH_CONFIG, make_inventory, write_bundles, write_inventory, write_ssh_config
from toolkit.provisioning.local_clouds import made_secrets
from toolkit.provisioning.observe import Observed, observe
from toolkit.provisioning.registry import registry_in_use
from toolkit.provisioning.render import (
    GRAFANA_PORT,
    PROMETHEUS_PORT,
    ImageReference,
    Images,
    images_of,
    render_bundles,
)
from toolkit.provisioning.watching import console_link, console_node, console_secrets
from toolkit.spec.load import Asked
from toolkit.spec.secrets import read_secrets
from toolkit.spec.testbed import ProviderSettings, Testbed, operator_architecture
from toolkit.state import Deployment, Host, SshAccess, load_deployment, locked, save_deployment

MACHINE_IMAGES = {"container": "node", "vm": "vm"}
"""Type of provider -> the image that its machines are made of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a deploy came to."""

    deployment: Deployment
    changed: bool
    urls: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    console: str | None = field(default=None, repr=False)
    """The link into the console on the monitor's node, with its token: for a terminal, not for logs."""

    @property
    def in_short(self) -> str:
        """In a line."""
        what = "is up" if self.changed else "is up already; nothing changed"
        nodes = counted(len(self.deployment.hosts), "node")
        return f"testbed {self.deployment.name} {what}: {nodes}, {self.seconds:.1f} s"


def deploy(asked: Asked, emit: Emit) -> Outcome:
    """The whole story; whatever it raises, the state is saved and the same call goes on from there."""
    testbed = asked.load()  # what was asked for
    with locked(testbed.name):
        return converge(testbed, asked, emit)


def converge(testbed: Testbed, asked: Asked, emit: Emit) -> Outcome:
    """The story itself, for those who hold the testbed's lock."""
    started = time.monotonic()
    values = check_beforehand(testbed)
    deployment = _begin(testbed, asked)  # what exists
    machines = plan_nodes(testbed, deployment)
    expected = {node.name: _expected_host(testbed, node.name) for node in testbed.nodes}
    images = build_images(testbed, expected, emit)
    if leaving := machines.nodes("remove", "replace"):
        deployment = remove_nodes(deployment, leaving, emit)
    deployment = provide_grafana(testbed, deployment, emit)
    deployment, changed = acquire(testbed, deployment, images, emit)  # machines with addresses
    deployment = note_limits(testbed, deployment, emit)
    seen = preflight(testbed, deployment, emit)
    if _wanted_images(testbed, deployment.hosts) - images.keys():  # machines of another architecture than thought
        build_images(testbed, deployment.hosts, emit)
    bundles = bundles_of(testbed, deployment)
    services = plan_services(bundles, running(seen))
    touched = services.touched | _with_secrets(testbed, deployment)
    if touched:
        deployment, converged = provision(testbed, deployment, bundles, touched, seen, emit, values=values)
        changed = changed or converged
    _raise_failures(deployment)
    check_gates(testbed, deployment.hosts, bundles, emit, seen=None if touched else seen)
    deployment = save_deployment(
        dataclasses.replace(
            deployment, stage="deployed", deployed_at=time.time(), failed={}, providers=_providers_of(testbed)
        )
    )
    return Outcome(
        deployment=deployment,
        changed=changed or bool(machines) or bool(services),
        urls=urls(testbed, deployment),
        console=watching_link(testbed, deployment),
        seconds=time.monotonic() - started,
    )


def redeploy(asked: Asked, emit: Emit) -> Outcome:
    """Teardown and deploy; everything is resolved, checked and built before anything is destroyed."""
    testbed = asked.load()
    check_beforehand(testbed)
    build_images(testbed, {node.name: _expected_host(testbed, node.name) for node in testbed.nodes}, emit)
    with locked(testbed.name):
        if load_deployment(testbed.name) is not None:
            teardown(testbed.name, emit=emit)
        return converge(testbed, asked, emit)


@dataclass(frozen=True, slots=True)
class Variation:
    """A deployed testbed with other values of some places, for those who hold its lock."""

    deployed: Asked
    emit: Emit

    def check(self, overrides: Mapping[str, str]) -> Testbed:
        """What the testbed is with them."""
        return self._asked(overrides).load()

    def apply(self, overrides: Mapping[str, str]) -> tuple[Testbed, Deployment]:
        """Deploy it so; only nodes that differ are touched."""
        asked = self._asked(overrides)
        testbed = asked.load()
        return testbed, converge(testbed, asked, self.emit).deployment

    def _asked(self, overrides: Mapping[str, str]) -> Asked:
        return dataclasses.replace(self.deployed, varied=overrides)


def plan_deploy(asked: Asked) -> Plan:
    """What deploy would do, and what keeps it from that; looks at what is there and writes nothing."""
    testbed = asked.load()
    deployment = load_deployment(testbed.name)
    held = dict(deployment.hosts) if deployment else {}
    hosts = {node.name: held.get(node.name) or _expected_host(testbed, node.name) for node in testbed.nodes}
    seen = observe(held, testbed.name) if held else {}
    bundles = _bundles(testbed, hosts, deployment.notes if deployment else {})
    unseen = {node: str(what) for node, what in seen.items() if isinstance(what, ToolkitError)}
    plan = make_plan(testbed, deployment, bundles, running(seen), unseen)
    made = plan.nodes("create", "replace")
    if not made:
        return plan
    plan = dataclasses.replace(plan, notes=tuple(_forecasts(testbed, made)))
    try:
        refuse_what_others_hold(testbed.name)
        return dataclasses.replace(plan, obstacles=tuple(obstacles(testbed)))
    except ToolkitError as error:
        return dataclasses.replace(plan, obstacles=(str(error),))


def _forecasts(testbed: Testbed, made: frozenset[str]) -> Iterator[str]:
    for name, settings in testbed.providers.items():
        if said := forecast(settings, [node for node in testbed.nodes_from(name) if node.name in made]):
            yield f"provider {name}: {said}"


def plan_redeploy(asked: Asked) -> tuple[tuple[Resource, ...], Plan]:
    """What redeploy would remove, and make; the checks that come before are done, and nothing is touched."""
    testbed = asked.load()
    check_beforehand(testbed)
    hosts = {node.name: _expected_host(testbed, node.name) for node in testbed.nodes}
    return look(testbed.name).left, make_plan(testbed, None, _bundles(testbed, hosts, {}), {})


def bundles_of(testbed: Testbed, deployment: Deployment) -> dict[str, Bundle]:
    """What the nodes of a deployment are to look like, from the file as it is now."""
    return _bundles(testbed, deployment.hosts, deployment.notes)


# -- steps ------------------------------------------------------------------------------------------------------------


def check_beforehand(testbed: Testbed) -> dict[str, str]:
    """Everything that can be told before anything is touched; returns the values of the secrets in use.

    Raises UnreachableError with a line for each thing that keeps a provider from its machines, UsageError where another
    workspace has a testbed of this name, and what reading manifests and secrets raises.
    """
    refuse_what_others_hold(testbed.name)
    if wrong := obstacles(testbed):
        raise UnreachableError("\n".join(wrong))
    names = {secret for service in testbed.services for secret in service.secrets.values()}
    names |= file_secrets(testbed) | cloud_file_secrets(testbed)
    return read_secrets(testbed.secrets, names) if names else {}


def obstacles(testbed: Testbed) -> list[str]:
    """What keeps providers from their machines, in a line for each; raises where an engine or manifest is not there."""
    return [
        f"provider {name}: {problem}"
        for name, settings in testbed.providers.items()
        for problem in provider_for(settings).check(testbed.name, testbed.subnet, testbed.nodes_from(name))
    ]


def build_images(testbed: Testbed, hosts: Mapping[str, Host], emit: Emit) -> Images:
    """Every image the testbed needs on these hosts, built where its content has changed."""
    wanted = _wanted_images(testbed, hosts)
    with _step(emit, "images", counted(len(wanted), "image")) as say:
        built = _builder(testbed, emit).build(wanted)
        say(f"{len(built)} images are there")
    return built


def provide_grafana(testbed: Testbed, deployment: Deployment, emit: Emit) -> Deployment:
    """Grafana's image, if it can be had; if not, that is noted once and said, and the rest goes on without it."""
    wanted = grafana_image(testbed)
    notes = {key: note for key, note in deployment.notes.items() if key != "grafana"}
    if wanted is not None:
        builder = _builder(testbed, emit)
        if wanted[0] in deployment.notes.get("grafana", "") and not builder.references({wanted})[wanted].content:
            return deployment  # asked before, and nobody has brought it here since
        try:
            builder.build({wanted})
        except UnreachableError as error:
            notes["grafana"] = (
                f"no Grafana: {error}. The same dashboards: toolkit dashboards export; the figures: Prometheus"
            )
            emit(Event(stage="images", message=notes["grafana"], level="warning"))
    return save_deployment(dataclasses.replace(deployment, notes=notes))


def acquire(testbed: Testbed, deployment: Deployment, images: Images, emit: Emit) -> tuple[Deployment, bool]:
    """Machines for every node, each provider asked for its own; those that fail are noted and the rest go on.

    Also tells whether a machine was made, or only started.
    """
    changes: list[Event] = []

    def told(event: Event) -> None:
        if event.changed:
            changes.append(event)
        emit(event)

    hosts: dict[str, Host] = {}
    failed: dict[str, str] = {}
    directory = paths.testbed_dir(testbed.name)
    with _step(emit, "acquire", counted(len(testbed.nodes), "node")) as say:
        for settings in testbed.providers.values():
            got = provider_for(settings).acquire(_request(testbed, settings, images), told)
            hosts |= got.hosts
            failed |= got.failed
        say(f"{len(hosts)} of {len(testbed.nodes)} nodes are there")
    asked = {n.name: node_hash(n, testbed.providers[n.provider]) for n in testbed.nodes if n.name in hosts}
    # A machine that stays and cannot be entered now still holds what was put on it: teardown has to know of it.
    held = {node: h for node, h in deployment.hosts.items() if node in failed and h.type not in MACHINE_IMAGES}
    asked |= {node: deployment.node_hashes[node] for node in held if node in deployment.node_hashes}
    write_ssh_config(held | hosts, directory)
    deployment = save_deployment(
        dataclasses.replace(deployment, hosts=held | hosts, node_hashes=asked, failed=failed, stage="acquired")
    )
    if not hosts:
        raise UnreachableError("\n".join(_named(node, why) for node, why in failed.items()))
    return deployment, bool(changes)


def _request(testbed: Testbed, settings: ProviderSettings, images: Images) -> Request:
    """What a provider is asked for."""
    wanted = images_of(testbed)
    nodes = testbed.nodes_from(settings.name)
    machine = MACHINE_IMAGES.get(settings.type)
    return Request(
        testbed=testbed.name,
        subnet=testbed.subnet,
        nodes=nodes,
        images={
            node.name: tuple(
                NodeImage(reference=ref.reference, content=ref.content)
                for (image, _), ref in sorted(images.items())
                if image in wanted[node.name]
            )
            for node in nodes
        },
        directory=paths.testbed_dir(testbed.name),
        node_image=images[machine, str(operator_architecture())].reference if machine else "",
    )


def note_limits(testbed: Testbed, deployment: Deployment, emit: Emit) -> Deployment:
    """Machines whose kernel limits no memory although a service there is limited: noted, said, and the rest goes on."""
    limited = {node for service in testbed.services if service.memory_bytes for node in service.nodes}
    without = [n for n in sorted(limited & deployment.hosts.keys()) if _limits_no_memory(deployment.hosts[n])]
    notes = {key: note for key, note in deployment.notes.items() if key != "memory"}
    if without:
        notes["memory"] = (
            f"no limits of memory on {', '.join(without)}: the kernel there has its memory cgroup switched off; "
            "docs/nodes.md says how a Raspberry Pi gets it"
        )
        if notes["memory"] != deployment.notes.get("memory"):
            emit(Event(stage="preflight", message=notes["memory"], level="warning"))
    return deployment if notes == deployment.notes else save_deployment(dataclasses.replace(deployment, notes=notes))


def _limits_no_memory(host: Host) -> bool:
    return host.facts.get("memory_limits") is False


def preflight(testbed: Testbed, deployment: Deployment, emit: Emit) -> dict[str, Observed | ToolkitError]:
    """What every machine is and runs, all at the same time; raises UnreachableError where none of them answers."""
    with _step(emit, "preflight", counted(len(deployment.hosts), "node")) as say:
        seen = observe(deployment.hosts, testbed.name)
        silent = {node: str(error) for node, error in seen.items() if isinstance(error, UnreachableError)}
        say(f"{len(seen) - len(silent)} of {len(seen)} nodes answer")
    if len(silent) == len(seen):
        raise UnreachableError("\n".join(silent.values()))
    return seen


def provision(
    testbed: Testbed,
    deployment: Deployment,
    bundles: Mapping[str, Bundle],
    nodes: Collection[str],
    seen: Mapping[str, Observed | ToolkitError],
    emit: Emit,
    *,
    values: Mapping[str, str],
) -> tuple[Deployment, bool]:
    """Bring these nodes to their bundles, the others are not touched; also tells whether anything was changed.

    `values`: of the secrets that the file names.
    """
    directory = paths.testbed_dir(testbed.name)
    touched = tuple(sorted(nodes))
    lacking = [node for node in touched if not _holds_images(seen.get(node), bundles[node], deployment.hosts[node])]
    use = registry_in_use() if lacking else contextlib.nullcontext()
    with _step(emit, "provision", counted(len(touched), "node")) as say, use:
        registry = _builder(testbed, emit).registry(_references(bundles, lacking)) if lacking else None
        inventory = make_inventory(
            testbed,
            deployment.hosts,
            directory=directory,
            bundle_files=write_bundles(bundles, directory / "bundles"),
            registry_port=registry,
            bare=[n for n in touched if not deployment.hosts[n].facts.get("has_engine")],
            clocks=[n for n in touched if not deployment.hosts[n].facts.get("shared_clock")],
        )
        try:
            run = Ansible(directory=directory).run(
                "deploy.yml",
                write_inventory(inventory, directory / "inventory.json"),
                emit,
                secrets=_secrets(testbed, deployment.hosts, bundles, values),
                limit=touched,
            )
        finally:
            if registry:  # the connections carry the nodes' way to it, and would stay for a while
                ssh.close_shared(directory / SSH_CONFIG)
        say(f"{len(touched) - len(run.failed)} of {len(touched)} nodes are as the file says")
    noted = tuple({"node": node, **change} for node, outcome in run.outcomes.items() for change in outcome.noted)
    brought = [node for node in touched if node not in run.failed]
    hashes = {**deployment.hashes, **{node: bundles[node].digest() for node in brought}}
    images = {**deployment.images, **{node: bundles[node].images() for node in brought}}
    saved = save_deployment(
        dataclasses.replace(
            deployment,
            stage="provisioned",
            hashes={node: digest for node, digest in hashes.items() if node in deployment.hosts},
            images={node: held for node, held in images.items() if node in deployment.hosts},
            failed={**deployment.failed, **{n: f"{why} (log: {run.log})" for n, why in run.failed.items()}},
            changes=deployment.changes + noted,
        )
    )
    return saved, run.changed


def _named(node: str, why: str) -> str:
    """The reason with its node, which most reasons name themselves."""
    return why if why.startswith(f"node {node}") else f"node {node}: {why}"


def running(seen: Mapping[str, Observed | ToolkitError]) -> dict[str, Running]:
    """Of the nodes that could be seen, the part that a plan needs."""
    return {node: what.running for node, what in seen.items() if isinstance(what, Observed)}


def urls(testbed: Testbed, deployment: Deployment) -> dict[str, str]:
    """Where to look; addresses on the testbed's network."""
    found: dict[str, str] = {}
    for service in testbed.service_of_role("monitor"):
        for node in service.nodes:
            if node in deployment.hosts:
                address = deployment.hosts[node].address
                found["prometheus"] = f"http://{address}:{PROMETHEUS_PORT}"
                if "grafana" not in deployment.notes and testbed.monitoring.grafana_image:
                    found["grafana"] = f"http://{address}:{GRAFANA_PORT}/d/toolkit-kpis"
    return found


def watching_link(testbed: Testbed, deployment: Deployment) -> str | None:
    """The link into the console on the monitor's node; None where none is wanted."""
    return console_link(testbed, deployment.hosts, paths.testbed_dir(testbed.name))


# -- parts ------------------------------------------------------------------------------------------------------------


def _begin(testbed: Testbed, asked: Asked) -> Deployment:
    """The saved state, or a new one, in either case written before the first machine is touched."""
    before = load_deployment(testbed.name) or Deployment(name=testbed.name, file="", stage="acquired")
    directory = paths.testbed_dir(testbed.name)
    directory.mkdir(parents=True, exist_ok=True)
    if asked.file.resolve() != (directory / "testbed.yml").resolve():
        shutil.copyfile(asked.file, directory / "testbed.yml")
    return save_deployment(
        dataclasses.replace(
            before,
            file=str(asked.file.resolve()),
            provider=asked.provider or "",
            overrides=dict(asked.overrides),
            scale=asked.scale,
            providers=_providers_of(testbed, before),
            twin=testbed.twin,
        )
    )


def _providers_of(testbed: Testbed, before: Deployment | None = None) -> dict[str, Mapping[str, Any]]:
    """Settings of the file's providers, and until the deploy is through those that machines came from before."""
    now: dict[str, Mapping[str, Any]] = {n: dataclasses.asdict(settings) for n, settings in testbed.providers.items()}
    former = [s for s in (before.providers if before else {}).values() if s not in now.values()]
    return now | {f"{settings['name']}, former {number}": settings for number, settings in enumerate(former, 1)}


def _expected_host(testbed: Testbed, node: str) -> Host:
    """What a machine that is not there yet will be like, as far as its plan needs it."""
    asked = testbed.node(node)
    kind = testbed.providers[asked.provider].type
    virtual = kind == "container"
    return Host(
        node=node,
        provider=asked.provider,
        type=kind,
        address=asked.address or "0.0.0.0",  # noqa: S104 - not known before the machine is there
        ssh=SshAccess(address=asked.address or "", known_hosts=""),
        architecture=str(operator_architecture())
        if kind in MACHINE_IMAGES or asked.architecture is None
        else str(asked.architecture),
        facts={"shared_clock": virtual},
    )


def _wanted_images(testbed: Testbed, hosts: Mapping[str, Host]) -> set[tuple[str, str]]:
    """(image, architecture) of all that is to run, and the virtual nodes' own image where there are such nodes."""
    by_node = images_of(testbed)
    wanted = {
        (image, hosts[node].architecture) for node, images in by_node.items() if node in hosts for image in images
    }
    types = {testbed.providers[node.provider].type for node in testbed.nodes}
    return wanted | {(image, str(operator_architecture())) for kind, image in MACHINE_IMAGES.items() if kind in types}


def _bundles(testbed: Testbed, hosts: Mapping[str, Host], notes: Mapping[str, str]) -> dict[str, Bundle]:
    wanted = _wanted_images(testbed, hosts)
    grafana = None if "grafana" in notes else grafana_image(testbed)
    references = _builder(testbed, ignore).references(wanted | ({grafana} if grafana else set()))
    return render_bundles(testbed, hosts, references, grafana=references[grafana] if grafana else None)


def grafana_image(testbed: Testbed) -> tuple[str, str] | None:
    """(reference, architecture) of the Grafana asked for; None without a monitor, or where it is not wanted."""
    nodes = [node for service in testbed.service_of_role("monitor") for node in service.nodes]
    if not nodes or testbed.monitoring.grafana_image is None:
        return None
    return testbed.monitoring.grafana_image, _expected_host(testbed, nodes[0]).architecture


def _builder(testbed: Testbed, emit: Emit) -> Builder:
    return Builder(emit, {service.image for service in testbed.services})


def _holds_images(seen: Observed | ToolkitError | None, bundle: Bundle, host: Host) -> bool:
    held = set(host.facts.get("images", ()))
    if isinstance(seen, Observed):
        held |= {container.content for container in seen.containers.values()}
    return all(container.content in held for container in bundle.containers if container.content)


def _references(bundles: Mapping[str, Bundle], nodes: list[str]) -> list[ImageReference]:
    found = {c.image: c.content for node in nodes for c in bundles[node].containers}
    return [ImageReference(reference=reference, content=content) for reference, content in sorted(found.items())]


def _with_secrets(testbed: Testbed, deployment: Deployment) -> frozenset[str]:
    """Nodes that are always converged: a bundle does not tell that a secret has another value now."""
    having = [s for s in testbed.services if s.secrets or made_variables(testbed, s) or made_secrets(testbed, s)]
    shown = console_node(testbed, deployment.hosts)
    nodes = {node for s in having for node in s.nodes if node in deployment.hosts} | ({shown.node} if shown else set())
    return frozenset(nodes)


def _secrets(
    testbed: Testbed, hosts: Mapping[str, Host], bundles: Mapping[str, Bundle], values: Mapping[str, str]
) -> dict[str, dict[str, dict[str, str]]]:
    """Secrets by node, container and variable; those that are made are made here, on the way to the node."""
    wanted = {s.name: s.secrets for s in testbed.services if s.secrets}
    folder = paths.testbed_dir(testbed.name)
    made = cloud_secrets(testbed, folder, values.__getitem__)
    made |= console_secrets(testbed, hosts, folder)
    for name, more in access_secrets(testbed, hosts, folder, values.__getitem__).items():
        made[name] = made.get(name, {}) | more
    of_service = {
        name: {variable: values[secret] for variable, secret in wanted.get(name, {}).items()} | made.get(name, {})
        for name in wanted.keys() | made.keys()
    }
    return {
        node: {c.name: of_service[c.service] for c in bundle.containers if c.service in of_service}
        for node, bundle in bundles.items()
    }


def _raise_failures(deployment: Deployment) -> None:
    if deployment.failed:
        lines = [_named(node, why) for node, why in sorted(deployment.failed.items())]
        raise DeployIncompleteError(
            "\n".join([*lines, "deploy is incomplete; mend what is named above and run the same command again"])
        )


@contextlib.contextmanager
def _step(emit: Emit, stage: str, what: str) -> Iterator[Callable[[str], None]]:
    """Tell that a stage begins and how it ended, with its duration."""
    started = time.monotonic()
    emit(Event(stage=stage, message=what, state="started"))
    words = [what]
    try:
        yield words.append
    except BaseException:
        emit(Event(stage=stage, message=what, state="failed", level="error", duration_s=time.monotonic() - started))
        raise
    emit(Event(stage=stage, message=words[-1], state="done", duration_s=time.monotonic() - started))
