"""Running nodes brought to a bundle: the converge playbook beside the floor and beside plain Ansible tasks, in one run.

The floor is the least there is to do: one archive and one script per node over SSH, all nodes at the same time. Plain
tasks are played twice: as Ansible is without a word of configuration, and with toolkit's settings (pipelining, a fork
per node, no facts).
Run: PYTHONPATH=. .venv/bin/python tests/bench/bench_provisioning.py [--nodes 8] [--repeat 1] [--without-plain]
"""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path

import yaml

from toolkit import paths, ssh
from toolkit.contract.bundle import Bundle, BundleFile, Container
from toolkit.contract.settings import node_root
from toolkit.providers.base import NodeImage, Request
from toolkit.providers.container import ContainerProvider
from toolkit.provisioning.ansible import Ansible
from toolkit.provisioning.images import Builder
from toolkit.provisioning.inventory import make_inventory, write_bundles, write_inventory, write_ssh_config
from toolkit.provisioning.observe import Observed, observe
from toolkit.provisioning.render import ImageReference
from toolkit.spec.testbed import Architecture, Link, Node, ProviderSettings, Testbed
from toolkit.state import Host

NAME = f"bench{os.getpid()}"
ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()]
SERVICES = ("clock", "client")
WAIT = ("timeit", "-n1", "-r1", "import time; time.sleep(3600)")


@dataclass(frozen=True, kw_only=True)
class Bench:
    hosts: dict[str, Host]
    image: ImageReference
    directory: Path
    inventory: Path

    def bundle(self, node: str) -> Bundle:
        containers = tuple(
            Container(
                name=f"toolkit-{NAME}-{service}",
                service=service,
                role=service,
                image=self.image.reference,
                content=self.image.content,
                command=WAIT,
                environment={"TOOLKIT_NODE": node},
                mounts=((f"etc/{service}.conf", "/etc/service.conf", "ro"),),
                files=(f"etc/{service}.conf",),
            )
            for service in SERVICES
        )
        files = tuple(BundleFile(path=f"etc/{service}.conf", content=f"node = {node}\n" * 50) for service in SERVICES)
        return Bundle(testbed=NAME, node=node, root=node_root(NAME), files=files, containers=containers)

    def converge(self) -> None:
        run = Ansible(directory=self.directory).run("deploy.yml", self.inventory, lambda _: None)
        assert not run.failed, run.failed

    def floor(self) -> None:
        """Does what the bundle says and compares nothing, as a script of somebody in a hurry would."""

        def send(host: Host) -> None:
            bundle = self.bundle(host.node)
            archive = io.BytesIO()
            with tarfile.open(fileobj=archive, mode="w:gz") as tar:
                for file in bundle.files:
                    entry = tarfile.TarInfo(file.path)
                    entry.size = len(file.content)
                    tar.addfile(entry, io.BytesIO(file.content.encode()))
            starts = "\n".join(
                f"docker inspect -f '{{{{.State.Running}}}}' {c.name} 2>/dev/null | grep -q true || "
                f"docker run -d --name {c.name} --network host --restart unless-stopped "
                f"--label org.toolkit.testbed={NAME} -e TOOLKIT_NODE={host.node} "
                f"-v {bundle.root}/{c.mounts[0][0]}:/etc/service.conf:ro {c.image} "
                f"timeit -n1 -r1 '{WAIT[-1]}' >/dev/null"
                for c in bundle.containers
            )
            script = f"set -e; mkdir -p {bundle.root}; tar -C {bundle.root} -xzf -\n{starts}"
            ssh.run(host, script, stdin=archive.getvalue(), timeout_s=120)

        ssh.disconnect()  # as a new process would find it
        failed = [error for error in ssh.on_every(self.hosts, send).values() if error is not None]
        assert not failed, failed

    def tuned(self) -> None:
        """Plain tasks, with toolkit's settings."""
        run = Ansible(directory=self.directory).run(str(self._plain_playbook()), self.inventory, lambda _: None)
        assert not run.failed, run.failed

    def plain(self) -> None:
        """Plain tasks, without any settings."""
        settings = self.directory / "none.cfg"
        settings.write_text("[defaults]\n")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("ANSIBLE_", "PYTHON"))}
        subprocess.run(
            [
                Path(sys.executable).with_name("ansible-playbook"),
                "-i",
                self.inventory,
                self._plain_playbook(facts=True),
            ],
            env={**kept, "ANSIBLE_CONFIG": str(settings), "ANSIBLE_HOME": str(self.directory), "LC_ALL": "C.UTF-8"},
            stdout=subprocess.DEVNULL,
            check=True,
        )

    def _plain_playbook(self, *, facts: bool = False) -> Path:
        """Eight tasks: two folders, two files, two containers looked at and started."""
        root = node_root(NAME)
        tasks: list[dict[str, object]] = [
            {"name": f"Make {path}", "ansible.builtin.file": {"path": path, "state": "directory", "mode": "0755"}}
            for path in (root, f"{root}/etc")
        ]
        for service in SERVICES:
            file = f"{root}/etc/{service}.conf"
            name = f"toolkit-{NAME}-{service}"
            tasks += [
                {
                    "name": f"Write {file}",
                    "ansible.builtin.copy": {"dest": file, "content": "node = {{ inventory_hostname }}\n" * 50},
                },
                {
                    "name": f"Look at {name}",
                    "ansible.builtin.command": f"docker ps -q --filter name={name}",
                    "register": "seen",
                    "changed_when": False,
                },
                {
                    "name": f"Start {name}",
                    "ansible.builtin.command": {
                        "argv": [
                            *("docker", "run", "-d", "--network", "host", "--restart", "unless-stopped"),
                            *("--name", name),
                            "--label",
                            f"org.toolkit.testbed={NAME}",
                            "-v",
                            f"{file}:/etc/service.conf:ro",
                            self.image.reference,
                            *WAIT,
                        ]
                    },
                    "when": "seen.stdout | length == 0",
                },
            ]
        file = self.directory / "plain.yml"
        file.write_text(yaml.safe_dump([{"hosts": "nodes", "gather_facts": facts, "tasks": tasks}]))
        return file

    def clear(self) -> None:
        run = Ansible(directory=self.directory).run("teardown.yml", self.inventory, lambda _: None)
        assert not run.failed, run.failed

    def look(self) -> None:
        seen = observe(self.hosts, NAME)
        assert all(isinstance(what, Observed) for what in seen.values()), seen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=8)
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--without-plain", action="store_true")
    options = parser.parse_args()
    names = [f"n{number}" for number in range(1, options.nodes + 1)]
    nodes = [
        Node(
            name=name,
            kind="vm",
            provider="container",
            architecture=Architecture(ARCHITECTURE),
            cpus=None,
            memory_bytes=512 << 20,
            link=Link(),
        )
        for name in names
    ]
    provider = ContainerProvider(ProviderSettings(name="container", type="container"))
    with tempfile.TemporaryDirectory(prefix="toolkit-bench-") as folder:
        directory = Path(folder)
        images = Builder(lambda _: None).build([("node", ARCHITECTURE), ("clock", ARCHITECTURE)])
        image = images["clock", ARCHITECTURE]
        held = (NodeImage(reference=image.reference, content=image.content),)
        request = Request(
            testbed=NAME,
            subnet=IPv4Network("10.84.9.0/24"),
            nodes=nodes,
            images=dict.fromkeys(names, held),
            directory=directory,
            node_image=images["node", ARCHITECTURE].reference,
        )
        try:
            got = provider.acquire(request, lambda _: None)
            assert not got.failed, got.failed
            _measure(_prepare(got.hosts, image, directory, nodes), options)
        finally:
            ssh.disconnect()
            ssh.close_shared(directory / "ssh_config", last=True)
            provider.release(NAME, None, directory, lambda _: None)


def _prepare(hosts: dict[str, Host], image: ImageReference, directory: Path, nodes: list[Node]) -> Bench:
    bench = Bench(hosts=hosts, image=image, directory=directory, inventory=directory / "inventory.json")
    write_ssh_config(hosts, directory)
    files = write_bundles({name: bench.bundle(name) for name in hosts}, directory / "bundles")
    testbed = Testbed(name=NAME, file=paths.PLAYBOOKS, nodes=tuple(nodes))
    write_inventory(make_inventory(testbed, hosts, directory=directory, bundle_files=files), bench.inventory)
    return bench


def _measure(bench: Bench, options: argparse.Namespace) -> None:
    plain = {} if options.without_plain else {"tuned": bench.tuned, "plain": bench.plain}
    ways: dict[str, Callable[[], None]] = {"floor": bench.floor, "converge": bench.converge, **plain}
    seconds: dict[str, list[float]] = {}
    for _ in range(options.repeat):
        for way, act in ways.items():
            ssh.close_shared(bench.directory / "ssh_config", last=True)
            write_ssh_config(bench.hosts, bench.directory)
            for occasion in ("new", "same"):
                seconds.setdefault(f"{way}_{occasion}", []).append(_timed(act))
            seconds.setdefault(f"clear_after_{way}", []).append(_timed(bench.clear))
        ssh.disconnect()
        seconds.setdefault("observe_first", []).append(_timed(bench.look))
        seconds.setdefault("observe_again", []).append(_timed(bench.look))
    middle = {name: round(statistics.median(values), 2) for name, values in seconds.items()}
    ratios = {"converge/floor": middle["converge_new"] / middle["floor_new"]}
    ratios |= {f"{way}/converge": middle[f"{way}_new"] / middle["converge_new"] for way in plain}
    print(
        json.dumps(
            {
                "nodes": options.nodes,
                "repeat": options.repeat,
                "load_at_end": os.getloadavg()[0],
                "seconds": middle,
                "ratios": {name: round(value, 2) for name, value in ratios.items()},
            },
            indent=1,
        )
    )


def _timed(act: Callable[[], None]) -> float:
    start = time.monotonic()
    act()
    return time.monotonic() - start


if __name__ == "__main__":
    main()
