"""Which services `tools/setup.sh` starts of those that come with the packages it installs."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[3] / "tools" / "setup.sh"
FUNCTIONS = SCRIPT.read_text().partition("\nstarted=")[0]
"""All of it but its last lines, which call the functions."""
STAND_INS = """
exec 3>&1
as_root() { cat >/dev/null; echo "$*" >&3; }
service() {
  echo "service $*" >&3
  [ "$1" != is-active ] || case " $* " in *" $RUNNING "*) ;; *) return 3 ;; esac
}
"""


@pytest.mark.parametrize(
    ("running", "packages", "services"),
    [
        ("systemd-timesyncd", "chrony", ["start chrony"]),  # whose place it takes
        ("ntpsec", "chrony mosquitto", ["disable mosquitto", "start chrony"]),
        ("nothing", "chrony prometheus", ["disable prometheus", "disable chrony"]),
        ("systemd-timesyncd", "mosquitto", ["disable mosquitto"]),
        ("systemd-timesyncd", "qemu-utils", []),
    ],
)
def test_a_clock_that_was_kept_is_kept_and_nothing_else_runs(running: str, packages: str, services: list[str]) -> None:
    ran = subprocess.run(
        ["bash", "-c", f"{FUNCTIONS}\n{STAND_INS}\ninstall_packages '{packages}'", str(SCRIPT)],
        capture_output=True,
        text=True,
        check=True,
        stdin=subprocess.DEVNULL,
        env={"PATH": "/usr/bin:/bin", "RUNNING": running},
    )
    said = ran.stdout.splitlines()
    installed = said.index(
        f"env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends {packages}"
    )
    assert said.index("service is-active systemd-timesyncd ntpsec") < installed
    after = [line.removeprefix("service ") for line in said[installed:] if line.startswith("service ")]
    assert after == services
