"""Machines of other Debian releases: are they prepared, does everything run there, and are they left as they were?

.venv/bin/python tests/bench/bench_systems.py --suite trixie

Two containers of the release stand for machines that exist: one as it would come from its installer, without an engine,
the other with the release's own. Both are entered over SSH and deployed to like any others. The first time a release's
base system is made from Debian's packages, and each bare machine fetches its engine: minutes, all in all.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.integration.lab import Lab, docker  # noqa: E402
from tests.subnets import free_subnet  # noqa: E402
from toolkit.providers import provider_for  # noqa: E402
from toolkit.providers.base import Request  # noqa: E402
from toolkit.providers.keys import IDENTITY  # noqa: E402
from toolkit.spec.testbed import Link, Node, ProviderSettings  # noqa: E402

RACK = "test-systems"
SUBNET = free_subnet()
ADDRESSES = {"bare": str(SUBNET[11]), "ready": str(SUBNET[12])}
TESTBED = """\
name: test-on-systems
provider: rack
providers: {{rack: {{type: ssh, user: toolkit, identity_file: {key}, trust_on_first_use: true}}}}
network: {{subnet: {subnet}}}
nodes:
  bare: {{kind: host, address: {bare}}}
  ready: {{kind: host, address: {ready}}}
services: {{broker: {{on: bare}}, publisher: {{on: ready}}, subscriber: {{on: ready}}}}
workloads: {{few: {{messages: 200, asserts: {{lost: "== 0"}}}}}}
"""
PACKAGES = "dpkg-query -Wf '${Package}\\n' | sort"
STRIP = (
    "apt-get -qq -y purge docker.io containerd runc iptables python3-apt; apt-get -qq -y autoremove; groupdel docker"
)


def node_image(suite: str, folder: Path) -> str:
    """A machine's image of that release, as images/node/ makes it of toolkit's own."""
    image = f"{RACK}-node:{suite}"
    if docker("images", "-q", image):
        return image
    archive = folder / f"{suite}.tar"
    options = ["--variant=minbase", '--aptopt=Acquire::Languages "none"']
    subprocess.run(["mmdebstrap", *options, suite, str(archive)], check=True, capture_output=True)
    base = f"{RACK}-base:{suite}"
    docker("import", str(archive), base)
    docker(
        "build", "-q", "-f", str(ROOT / "images/node/Dockerfile"), "--build-arg", f"BASE={base}", "-t", image, str(ROOT)
    )
    return image


def inside(machine: str, script: str) -> str:
    return docker("exec", f"toolkit-{RACK}-{machine}", "sh", "-c", f"{{ {script}; }} 2>/dev/null || true")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--suite", default="trixie", help="a Debian release")
    suite = options.parse_args().suite
    provider = provider_for(ProviderSettings(name="rack", type="container"))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        nodes = [
            Node(
                name=machine, kind="pi3", provider="rack", architecture=None, cpus=1.0, memory_bytes=1 << 30,
                link=Link(), address=address,
            )
            for machine, address in ADDRESSES.items()
        ]  # fmt: skip
        request = Request(
            testbed=RACK, subnet=SUBNET, nodes=nodes, images={}, directory=folder, node_image=node_image(suite, folder)
        )
        try:
            provider.acquire(request, lambda _: None)
            if any(inside(machine, "systemd-detect-virt --container").strip() in {"", "none"} for machine in ADDRESSES):
                sys.exit(f"{suite} does not see that it is in a container, and would set this machine's clock")
            play(Lab(folder=folder, name="test-on-systems"), folder / IDENTITY)
        finally:
            provider.release(RACK, None, folder, lambda _: None)


def play(lab: Lab, key: Path) -> None:
    """Deploy, again, run and teardown, and a line for each machine."""
    inside("bare", STRIP)
    before = {machine: inside(machine, PACKAGES) for machine in ADDRESSES}
    lab.file.write_text(TESTBED.format(key=shlex.quote(str(key)), subnet=SUBNET, **ADDRESSES))
    try:
        lab.run("deploy", within_s=900)
        seen = {
            machine: inside(machine, ". /etc/os-release; echo $PRETTY_NAME; python3 -V; dockerd -v | cut -d , -f 1")
            for machine in ADDRESSES
        }
        again = lab.run("deploy", "--json").document["changed"]
        hop = lab.run("run", "few", "--json").document["hops"]["end_to_end"]
    finally:
        lab.run("teardown", within_s=600)
    for machine in ADDRESSES:
        kept = "packages as before" if inside(machine, PACKAGES) == before[machine] else "other packages than before"
        print(f"{machine:<6} {', '.join(seen[machine].splitlines())}; afterwards {kept}")
    print(f"again: {'changed' if again else 'nothing changed'}; {hop['count']} events delivered, {hop['lost']} lost")


if __name__ == "__main__":
    main()
