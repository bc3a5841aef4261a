"""Back to nothing: remove what deploy made, then look, without the saved state, that nothing is left."""

from __future__ import annotations

import dataclasses
import shlex
import shutil
import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from toolkit import engine, paths, ssh
from toolkit.contract.bundle import Bundle
from toolkit.contract.settings import node_root
from toolkit.errors import ResidueError, UsageError
from toolkit.events import Emit, Event, counted, ignore
from toolkit.providers import engine_store, provider_for, vm_disks
from toolkit.providers.base import Provider, Resource
from toolkit.providers.vm import kernels_in_use
from toolkit.provisioning.ansible import Ansible
from toolkit.provisioning.images import Builder, remove_images, unused_images
from toolkit.provisioning.inventory import SSH_CONFIG, make_inventory, write_bundles, write_inventory, write_ssh_config
from toolkit.provisioning.registry import registry_parts, remove_registry
from toolkit.spec.names import did_you_mean
from toolkit.spec.nodes import VIRTUAL
from toolkit.spec.testbed import ProviderSettings, Testbed, operator_architecture
from toolkit.state import (
    Deployment,
    Host,
    deployed_names,
    held_elsewhere,
    load_deployment,
    locked,
    names_on_machine,
    remove_lock,
    save_deployment,
)

T = TypeVar("T")

KEPT = ("runs", "experiments")
"""What stays in a testbed's folder: the results."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Removal:
    """What a teardown removed, and what it saw afterwards."""

    removed: tuple[Resource, ...] = ()
    left: tuple[Resource, ...] = ()
    seconds: float = 0.0


def teardown(name: str, *, emit: Emit) -> Removal:
    """Remove everything of a testbed and prove it; raises ResidueError with a list of what is still there."""
    started = time.monotonic()
    with locked(name):
        deployment = load_deployment(name)
        refuse_what_others_hold(name)
        removed: list[Resource] = []
        left: list[Resource] = []
        if deployment is not None:
            save_deployment(dataclasses.replace(deployment, stage="teardown"))
            done, left = _clear_hosts(deployment, tuple(deployment.hosts), emit)
            removed += done
            ssh.disconnect()
            ssh.close_shared(paths.testbed_dir(name) / SSH_CONFIG, last=True)
        providers = _providers(deployment)
        for provider in providers:
            removed += provider.release(name, None, paths.testbed_dir(name), emit)
        left += [resource for provider in providers for resource in provider.resources(name)]
        emit(
            Event(
                stage="proof",
                message=f"left: {counted(len(left), 'thing')}" if left else "looked: nothing is left",
                state="failed" if left else "done",
                level="error" if left else "info",
                duration_s=time.monotonic() - started,
            )
        )
        if left:
            advice = ["run teardown again, or remove these by hand", *_gone_for_good(name, left)]
            if any(resource.held_by for resource in left):
                advice[0] = "remove what uses them, then run teardown again"
            raise ResidueError("\n".join([f"testbed {name}: teardown left", *map(_as_left, left), *advice]))
        _forget(name)
    remove_lock(name)
    _remove_if_empty(paths.testbed_dir(name))
    if not deployed_names():
        removed += [Resource(kind="registry", name=gone) for gone in remove_registry(keep_images=True)]
    return Removal(removed=tuple(removed), seconds=time.monotonic() - started)


def refuse_what_others_hold(name: str) -> None:
    """Raises UsageError where machines of this name on this machine belong to a testbed of another workspace."""
    home = held_elsewhere(name)
    if home is not None and any(provider.resources(name) for provider in _providers(None)):
        raise UsageError(
            f"a testbed named {name} is up already, from the workspace {home}; give this one another name (`name:` in "
            f"its file), or remove that one: TOOLKIT_HOME={shlex.quote(str(home))} toolkit teardown {name}"
        )


def forget(name: str, nodes: Collection[str]) -> list[Resource]:
    """Take nodes out of the state whose machines are gone for good; returns what deploy made there and nobody undid."""
    with locked(name):
        deployment = load_deployment(name)
        known = deployment.hosts if deployment else {}
        for node in nodes:
            if node not in known:
                raise UsageError(f"testbed {name} holds no machine for node {node!r}{did_you_mean(node, known)}")
        assert deployment is not None  # noqa: S101 - it knows the nodes
        left = [
            Resource(kind="containers, images, files below", name=node_root(name), node=node)
            for node in nodes
            if _is_kept(deployment.hosts[node])
        ]
        _without(deployment, nodes)
    return left


def look(name: str) -> Removal:
    """What a teardown would remove; nothing is touched."""
    deployment = load_deployment(name)
    found = [resource for provider in _providers(deployment) for resource in provider.resources(name)]
    if deployment:
        found += [
            Resource(kind="files and containers below", name=node_root(name), node=host.node)
            for host in deployment.hosts.values()
            if _is_kept(host)
        ]
    return Removal(left=tuple(found))


def remove_nodes(deployment: Deployment, nodes: Collection[str], emit: Emit) -> Deployment:
    """Take single nodes out of a deployment: those no longer asked for, or asked for as other machines."""
    present = tuple(node for node in nodes if node in deployment.hosts)
    _, left = _clear_hosts(deployment, present, emit)
    if left:
        listed = [f"node {r.node}: {r.kind} {r.name} is left" for r in left]
        raise ResidueError("\n".join([*listed, *_gone_for_good(deployment.name, left)]))
    directory = paths.testbed_dir(deployment.name)
    for provider in _providers(deployment):
        mine = [n for n in nodes if n not in deployment.hosts or deployment.hosts[n].provider == provider.settings.name]
        if mine:
            provider.release(deployment.name, mine, directory, emit)
    return _without(deployment, nodes)


def collect_garbage(*, everything: bool = False, dry_run: bool = False) -> list[Resource]:
    """Remove what carries our label and belongs to no testbed of any workspace here; `everything`: caches too.

    Disks of virtual machines that no testbed of any workspace uses go, too, but for the one that a next one would use.
    """
    known = names_on_machine() | set(deployed_names())
    found: list[Resource] = []
    for provider in _providers(None):
        for name in sorted(provider.testbeds() - known):
            found += provider.resources(name)
            if not dry_run:
                provider.release(name, None, paths.testbed_dir(name), ignore)
    clear_disks = vm_disks.unused_disks if dry_run else vm_disks.remove_unused_disks
    found += clear_disks(kernels_in_use(), () if everything else _next_disks())
    return found + (_clear_caches(dry_run=dry_run) if everything else [])


def _next_disks() -> frozenset[str]:
    """Contents of the disk that virtual machines would be made of now."""
    references = Builder(ignore).references({("vm", str(operator_architecture()))})
    return frozenset(vm_disks.content_of(reference.reference) for reference in references.values())


def _clear_caches(*, dry_run: bool) -> list[Resource]:
    """What can be made again: the registry with its images, engine stores, built images."""
    api = engine.connect().api
    registry = registry_parts() if dry_run else remove_registry()
    stores = engine_store.unused_stores(api) if dry_run else engine_store.remove_unused_stores(api)
    images = unused_images() if dry_run else remove_images()
    return [
        *(Resource(kind="registry", name=name) for name in registry),
        *stores,
        *(Resource(kind="image", name=name) for name in images),
    ]


# -- parts ------------------------------------------------------------------------------------------------------------


def _is_kept(host: Host) -> bool:
    """Whether the machine stays when the testbed goes, so that it has to be cleared by itself."""
    return host.type not in VIRTUAL


def _clear_hosts(deployment: Deployment, nodes: Iterable[str], emit: Emit) -> tuple[list[Resource], list[Resource]]:
    """Take the testbed off machines that stay; returns what was removed and what is left there."""
    hosts = {node: deployment.hosts[node] for node in nodes if _is_kept(deployment.hosts[node])}
    if not hosts:
        return [], []
    directory = paths.testbed_dir(deployment.name)
    write_ssh_config(deployment.hosts, directory)
    empty = {node: Bundle(testbed=deployment.name, node=node, root=node_root(deployment.name)) for node in hosts}
    nothing = Testbed(name=deployment.name, file=Path(deployment.file))
    inventory = make_inventory(
        nothing, hosts, directory=directory, bundle_files=write_bundles(empty, directory / "bundles")
    )
    run = Ansible(directory=directory).run(
        "teardown.yml", write_inventory(inventory, directory / "inventory.json"), emit, stage="teardown"
    )
    removed = [
        Resource(kind=str(change["action"]), name=str(change["what"]), node=node)
        for node, outcome in run.outcomes.items()
        for change in outcome.changes
    ]
    left = [Resource(kind="on the node", name=what, node=node) for node, o in run.outcomes.items() for what in o.left]
    left += [Resource(kind=_NOT_CLEARED, name=why, node=node) for node, why in run.failed.items()]
    return removed, left


def _as_left(resource: Resource) -> str:
    where = f" on {resource.node}" if resource.node else ""
    return f"  {resource.kind} {resource.name}{where}" + (f": {resource.held_by}" if resource.held_by else "")


_NOT_CLEARED = "node not cleared:"


def _gone_for_good(name: str, left: Iterable[Resource]) -> list[str]:
    """What to do about machines that will never answer again."""
    nodes = sorted({resource.node for resource in left if resource.kind == _NOT_CLEARED})
    forget = " ".join(f"--forget {node}" for node in nodes)
    return [f"where a machine is gone for good: toolkit teardown {name} {forget}"] if nodes else []


def _without(deployment: Deployment, nodes: Collection[str]) -> Deployment:
    """The state without these nodes, saved."""

    def rest(values: Mapping[str, T]) -> dict[str, T]:
        return {node: value for node, value in values.items() if node not in nodes}

    return save_deployment(
        dataclasses.replace(
            deployment,
            hosts=rest(deployment.hosts),
            hashes=rest(deployment.hashes),
            images=rest(deployment.images),
            node_hashes=rest(deployment.node_hashes),
            failed=rest(deployment.failed),
        )
    )


def _providers(deployment: Deployment | None) -> list[Provider]:
    """The providers of a deployment; without a saved state those that can look for labels by themselves."""
    if deployment is not None and deployment.providers:
        return [provider_for(ProviderSettings(**settings)) for settings in deployment.providers.values()]
    return [
        provider_for(ProviderSettings(name=kind, type=kind))  # type: ignore[arg-type]
        for kind in sorted(VIRTUAL)
    ]


def _forget(name: str) -> None:
    """Remove keys, rendered files and state; results stay."""
    directory = paths.testbed_dir(name)
    for entry in directory.iterdir():
        if entry.name in {*KEPT, "lock"}:
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def _remove_if_empty(directory: Path) -> None:
    if directory.is_dir() and not any(directory.iterdir()):
        directory.rmdir()
