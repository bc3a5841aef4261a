"""Play an experiment on a deployed testbed: the lock, the way to its processes, and back to the file's settings."""

from __future__ import annotations

from toolkit import ssh
from toolkit.controller.asked import as_deployed
from toolkit.controller.control import ssh_control
from toolkit.controller.deploy import Variation
from toolkit.controller.experiment import Outcome, run_experiment
from toolkit.errors import UsageError
from toolkit.events import Emit
from toolkit.measure.collect import SshCollector
from toolkit.measure.resources import Watch, ask_prometheus, watch_prometheus
from toolkit.provisioning.render import PROMETHEUS_PORT
from toolkit.spec.experiment import Experiment, plain_experiment
from toolkit.spec.names import did_you_mean
from toolkit.spec.testbed import Testbed
from toolkit.state import Deployment, locked


def find_experiment(testbed: Testbed, name: str) -> Experiment:
    """The experiment of this name, or the workload of this name by itself; raises UsageError where there is none."""
    there = {**testbed.workloads, **testbed.experiments}
    if name not in there:
        raise UsageError(f"there is no workload or experiment {name!r}{did_you_mean(name, there)}")
    return testbed.experiments.get(name) or plain_experiment(testbed.workloads[name])


def play_experiment(
    testbed: Testbed, deployment: Deployment, experiment: Experiment, *, emit: Emit, resume: bool = False
) -> Outcome:
    """Every point of it, with the testbed's lock held; raises UsageError where the testbed is not deployed whole."""
    check_whole(deployment)
    with locked(testbed.name):
        return run_experiment(
            testbed,
            deployment,
            experiment,
            control=lambda there: ssh_control(there.hosts),
            collector=lambda there: SshCollector(testbed.name, there.hosts),
            watch=lambda there: monitor_of(testbed, there),
            emit=emit,
            redeploy=Variation(as_deployed(deployment), emit),
            resume=resume,
        )


def monitor_of(testbed: Testbed, deployment: Deployment) -> Watch | None:
    """What tells the resources that nodes spend: the testbed's own monitor, if it has one."""
    nodes = [node for service in testbed.service_of_role("monitor") for node in service.nodes]
    if not nodes or nodes[0] not in deployment.hosts:
        return None
    host = deployment.hosts[nodes[0]]
    return watch_prometheus(ask_prometheus(lambda: ssh.forwarded(host, PROMETHEUS_PORT)))


def check_whole(deployment: Deployment) -> None:
    """Raises UsageError where a deploy has not come to its end."""
    if deployment.stage != "deployed":
        raise UsageError(f"testbed {deployment.name} is not deployed whole; first: toolkit deploy {deployment.file}")
