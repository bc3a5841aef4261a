"""The page of nodes and clocks: whether the machines and their clocks are fit for a measurement."""

from __future__ import annotations

from toolkit.contract import metrics as m
from toolkit.provisioning.dashboards.panels import (
    ANY,
    BYTES_PER_SECOND,
    CELSIUS,
    COUNT,
    GREEN,
    RATIO,
    RED,
    SECONDS,
    TESTBED,
    YELLOW,
    Page,
    Panel,
    Query,
    Row,
    Variable,
)

NODE = f'{TESTBED}, node=~"$node"'
_YES_NO = {"1": ("yes", GREEN), "0": ("no", RED)}
_NO_PI = "no Raspberry Pi firmware on these nodes"


def _by_node(expr: str) -> tuple[Query, ...]:
    return (Query(expr=expr, legend="{{node}}"),)


def _machine(
    title: str, description: str, unit: str, expr: str, empty: str = "no data yet", *, width: int = 8
) -> Panel:
    return Panel(
        title=title, description=description, unit=unit, queries=_by_node(expr), empty=empty, width=width, slow=True
    )


PAGE = Page(
    name="nodes",
    title="toolkit: nodes and clocks",
    description="Whether machines and clocks are fit for a measurement.",
    variables=(Variable(name="node", label="Node", query=f"label_values(up{{{ANY}}}, node)"),),
    by_process=True,
    rows=(
        Row(
            title="Up or not",
            panels=(
                Panel(
                    title="Targets",
                    description="Every process that is scraped, and whether it answers.",
                    unit=COUNT,
                    kind="state-timeline",
                    width=24,
                    height=12,
                    words={"1": ("up", GREEN), "0": ("down", RED)},
                    slow=True,
                    queries=(Query(expr=f"up{{{NODE}}}", legend="{{node}} {{service}}"),),
                ),
            ),
        ),
        Row(
            title="Clocks",
            panels=(
                Panel(
                    title="Clock offset",
                    description="Its clock minus the reference, as chrony sees it; 0 where nodes share one clock.",
                    unit=SECONDS,
                    queries=_by_node(f"max by (node) ({m.CLOCK_OFFSET.name}{{{NODE}}})"),
                ),
                Panel(
                    title="Clock bound",
                    description="|offset| + root dispersion + root delay / 2: the clock is right within this.",
                    unit=SECONDS,
                    logarithmic=True,
                    queries=_by_node(f"max by (node) ({m.CLOCK_BOUND.name}{{{NODE}}})"),
                ),
                Panel(
                    title="Frequency error",
                    description="How much too fast each clock would run by itself; it moves with temperature.",
                    unit=RATIO,
                    queries=_by_node(f"max by (node) ({m.CLOCK_FREQUENCY_ERROR.name}{{{NODE}}})"),
                ),
                Panel(
                    title="Synchronised",
                    description="Whether each clock follows its server.",
                    unit=COUNT,
                    kind="state-timeline",
                    words=_YES_NO,
                    queries=_by_node(f"max by (node) ({m.CLOCK_SYNCHRONISED.name}{{{NODE}}})"),
                ),
                Panel(
                    title="Clock steps",
                    description="Jumps of the clock in the last minutes; a run across one is invalid.",
                    unit=COUNT,
                    thresholds=((None, GREEN), (1, RED)),
                    queries=_by_node(f"sum by (node) (increase({m.CLOCK_STEPS.name}{{{NODE}}}[$__rate_interval]))"),
                ),
                Panel(
                    title="Path to the server",
                    description="Root delay: the round trip to the reference.",
                    unit=SECONDS,
                    queries=_by_node(f"max by (node) ({m.CLOCK_ROOT_DELAY.name}{{{NODE}}})"),
                ),
            ),
        ),
        Row(
            title="Machines",
            panels=(
                _machine(
                    "Processor in use", "Share of all cores that is not idle. A virtual node shows its host's cores.",
                    RATIO,
                    f'1 - avg by (node) (rate(node_cpu_seconds_total{{{NODE}, mode="idle"}}[$__rate_interval]))',
                ),
                _machine(
                    "Waiting for a processor", "Share of time in which some task had to wait (pressure stall).", RATIO,
                    f"max by (node) (rate(node_pressure_cpu_waiting_seconds_total{{{NODE}}}[$__rate_interval]))",
                    "this kernel does not tell",
                ),
                _machine(
                    "Memory in use", "Share that is neither free nor quickly freed.", RATIO,
                    f"1 - max by (node) (node_memory_MemAvailable_bytes{{{NODE}}}) "
                    f"/ max by (node) (node_memory_MemTotal_bytes{{{NODE}}})",
                ),
                _machine(
                    "Network in", "Bytes received each second, all cables.", BYTES_PER_SECOND,
                    f"sum by (node) (rate(node_network_receive_bytes_total{{{NODE}}}[$__rate_interval]))",
                ),
                _machine(
                    "Network out", "Bytes sent each second, all cables.", BYTES_PER_SECOND,
                    f"sum by (node) (rate(node_network_transmit_bytes_total{{{NODE}}}[$__rate_interval]))",
                ),
                _machine(
                    "Disk in use", "The file system that holds images and data.", RATIO,
                    f"1 - max by (node) (node_filesystem_avail_bytes{{{NODE}}}) "
                    f"/ max by (node) (node_filesystem_size_bytes{{{NODE}}})",
                ),
                _machine(
                    "Load", "Tasks that run or want to, over one minute.", COUNT,
                    f"max by (node) (node_load1{{{NODE}}})", width=12,
                ),
                _machine(
                    "Temperature", "Hottest sensor; a Raspberry Pi slows down at 80 degrees.", CELSIUS,
                    f"max by (node) (node_thermal_zone_temp{{{NODE}}})", "no sensors on these nodes",
                    width=12,
                ),
                Panel(
                    title="Slowed down by its firmware",
                    description="Throttled or capped now, by heat or a weak supply (Raspberry Pi).",
                    unit=COUNT,
                    kind="state-timeline",
                    words={"0": ("full speed", GREEN), "1": ("slowed down", RED)},
                    queries=_by_node(
                        f'max by (node) ({m.BOARD_THROTTLED.name}{{{NODE}, since="now"}} '
                        f'or {m.BOARD_FREQUENCY_CAPPED.name}{{{NODE}, since="now"}})'
                    ),
                    empty=_NO_PI,
                ),
                Panel(
                    title="Under-voltage",
                    description="Now: the supply is too weak. The firmware also remembers since boot.",
                    unit=COUNT,
                    kind="state-timeline",
                    words={"0": ("well fed", GREEN), "1": ("too low", RED)},
                    queries=_by_node(f'max by (node) ({m.BOARD_UNDER_VOLTAGE.name}{{{NODE}, since="now"}})'),
                    empty=_NO_PI,
                ),
                Panel(
                    title="Too hot",
                    description="The firmware's soft temperature limit holds now (Raspberry Pi 3 B+).",
                    unit=COUNT,
                    kind="state-timeline",
                    words={"0": ("cool", GREEN), "1": ("limited", YELLOW)},
                    queries=_by_node(f'max by (node) ({m.BOARD_SOFT_TEMPERATURE_LIMIT.name}{{{NODE}, since="now"}})'),
                    empty=_NO_PI,
                ),
            ),
        ),
    ),
)  # fmt: skip
