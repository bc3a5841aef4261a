"""Testbed and hosts become an Ansible inventory: one for deploy, and a dynamic one for playbooks of people's own."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from toolkit import paths, ssh
from toolkit.contract.bundle import Bundle
from toolkit.spec.testbed import Testbed
from toolkit.state import Deployment, Host

SSH_CONFIG = "ssh_config"
"""In the testbed's folder; OpenSSH and Ansible enter hosts with it."""


def write_bundles(bundles: Mapping[str, Bundle], directory: Path) -> dict[str, Path]:
    """Write each node's bundle, with its digest, where the converge task reads it; returns node -> file."""
    directory.mkdir(parents=True, exist_ok=True)
    files = {node: directory / f"{node}.json" for node in bundles}
    for node, bundle in bundles.items():
        document = json.dumps({**bundle.document(), "digest": bundle.digest()}, sort_keys=True)
        if not files[node].is_file() or files[node].read_text() != document:
            files[node].write_text(document)
    return files


def make_inventory(
    testbed: Testbed,
    hosts: Mapping[str, Host],
    *,
    directory: Path,
    bundle_files: Mapping[str, Path],
    registry_port: int | None = None,
    bare: Collection[str] = (),
    clocks: Collection[str] = (),
) -> dict[str, Any]:
    """The inventory of a deploy or a teardown, in the words of Ansible's YAML inventories.

    `directory` is the testbed's folder, with the ssh_config. `registry_port` is a registry on this machine's loopback;
    nodes then reach it under the same port of their own loopback, through their SSH connection. `bare` nodes get an
    engine first; on `clocks` nodes other time daemons are stopped.
    """
    hostvars = _hostvars(hosts, testbed, directory)
    for node, variables in hostvars.items():
        if node in bundle_files:
            variables["node_bundle_file"] = str(bundle_files[node])
        variables["node_platform"] = f"linux/{hosts[node].architecture}"
        if registry_port is not None:
            variables["node_registry"] = f"127.0.0.1:{registry_port}"
            variables["ansible_ssh_extra_args"] = f"-R 127.0.0.1:{registry_port}:127.0.0.1:{registry_port}"
    groups = _groups(hosts, testbed)
    groups["bare"] = sorted(set(bare) & set(hosts))
    groups["clocks"] = sorted(set(clocks) & set(hosts))
    children = {name: {"hosts": dict.fromkeys(nodes, None)} for name, nodes in sorted(groups.items())}
    return {"all": {"hosts": hostvars, "children": children, "vars": {"toolkit_testbed": testbed.name}}}


def write_inventory(inventory: Mapping[str, Any], file: Path) -> Path:
    """Write it as JSON, which Ansible's YAML reader takes; returns `file`."""
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_name(file.name + ".new")
    draft.write_text(json.dumps(inventory, indent=1))
    draft.replace(file)
    return file


def dynamic_inventory(deployment: Deployment, testbed: Testbed) -> dict[str, Any]:
    """What an inventory script answers to --list; `_meta.hostvars[HOST]` is the answer to --host."""
    hosts = deployment.hosts
    directory = paths.testbed_dir(deployment.name)
    groups = {name: {"hosts": nodes} for name, nodes in sorted(_groups(hosts, testbed).items())}
    return {
        "_meta": {"hostvars": _hostvars(hosts, testbed, directory)},
        "all": {"children": ["ungrouped", *groups], "vars": {"toolkit_testbed": deployment.name}},
        **groups,
    }


def _hostvars(hosts: Mapping[str, Host], testbed: Testbed, directory: Path) -> dict[str, dict[str, Any]]:
    kinds = {node.name: node.kind for node in testbed.nodes}
    services: dict[str, list[str]] = {}
    for service in testbed.services:
        for node in service.nodes:
            services.setdefault(node, []).append(service.name)
    return {
        node: {
            "ansible_host": node,  # a name in the ssh_config, which knows the address, the user, the key and the jump
            "ansible_ssh_args": f"-F {_quoted(directory / SSH_CONFIG)}",
            "ansible_become": host.ssh.become,
            "ansible_python_interpreter": _python(host),
            "toolkit_address": host.address,
            "toolkit_architecture": host.architecture,
            "toolkit_kind": kinds.get(node, ""),
            "toolkit_provider": host.provider,
            "toolkit_services": services.get(node, []),
        }
        for node, host in hosts.items()
    }


def _python(host: Host) -> str:
    """Known beforehand, since letting Ansible look for it costs another round trip per node."""
    python = str(host.facts.get("python") or "")
    return python if python.startswith("/") else "/usr/bin/python3"


def _groups(hosts: Mapping[str, Host], testbed: Testbed) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {"nodes": list(hosts)}

    def add(kind: str, name: str | None, node: str) -> None:
        if name and node in hosts:
            members = groups.setdefault(f"{kind}_{re.sub(r'[^A-Za-z0-9_]', '_', name)}", [])
            if node not in members:
                members.append(node)

    for node in testbed.nodes:
        add("kind", node.kind, node.name)
        add("group", node.group, node.name)
    for name, host in hosts.items():
        add("provider", host.provider, name)
    for service in testbed.services:
        for name in service.nodes:
            add("role", service.role, name)
            add("service", service.name, name)
    return groups


def _quoted(path: Path) -> str:
    return f'"{path}"' if " " in str(path) else str(path)


def write_ssh_config(hosts: Mapping[str, Host], directory: Path) -> Path:
    """The testbed's ssh_config; what the inventories here point to."""
    return ssh.ssh_config(hosts, directory / SSH_CONFIG)
