"""Writes docs/metrics.md and docs/dashboards.md from the code; a test fails while they differ from it."""  # noqa: INP001

from __future__ import annotations

import sys
from pathlib import Path

from toolkit.contract import metrics
from toolkit.provisioning.dashboards import pages
from toolkit.provisioning.dashboards.panels import INSTANCES, JOBS
from toolkit.provisioning.monitoring import ALL_INSTANCES, PERCENTILES, QUANTILES, THROUGHPUT, AlertLimits, recorded

DOCS = Path(__file__).resolve().parents[1] / "docs"
METRICS_HEAD = """\
# Metrics

Everything a testbed exposes to Prometheus under the name `toolkit_…`. Processes, rules, dashboards and the console use
only these; node_exporter adds `node_…` and Prometheus itself `up`. Each target also carries the labels `testbed`,
`node`, `kind`, `service`, `role` and `instance` (node:port), put there by the scrape configuration.

Units are base units and stand in the name. Counters end in `_total`; they begin at 0 when their process starts, or,
with a label `run`, when the run does. Histograms are for watching: the figures of a run are made from every stamp, not
from buckets. A negative delay never enters a histogram; it is counted in `toolkit_hop_negative_total`. Upper bounds of
buckets, in seconds: {buckets}.

Histograms have classic buckets. Native ones need both sides: Prometheus 2.42 (Debian 12), started with
`--enable-feature=native-histograms`, takes them only in protobuf, for which it then asks first in the `Accept` header
of its scrapes (without the flag it asks for no protobuf at all); processes on nodes write the text format 0.0.4, which
cannot carry them, and Debian's Python client (0.16) has no protobuf either.

How many series there are does not depend on the number of clients: labels name runs (the hop exporter keeps the last
16), hops, QoS levels, places and causes, never topics, clients or messages.

| metric | type | labels | meaning |
|---|---|---|---|
"""
HOPS_HEAD = """
## Values of the label `hop`

In the order in which a message meets them.

| hop | from … to |
|---|---|
"""
RULES_HEAD = """
## Recording rules

| series | meaning |
|---|---|
"""
RULES_TAIL = """\
| `toolkit:messages_dropped:rate` | KPI: drops each second by `stage` and `reason`, of clients and of brokers |
| `toolkit:loss:ratio` | lost of expected deliveries, by `run` and `qos` |

## Alerts

Prometheus shows them at `/alerts`, and sends them to an Alertmanager where the testbed file names one
(`monitoring: {{alertmanager: "10.0.0.9:9093"}}`, as the monitor's node reaches it; toolkit runs none). Limits are in
`AlertLimits`, the clock's bound is `clock.max_root_distance` of the testbed file.

| alert | fires when |
|---|---|
| ClockBoundExceeded | a clock is known less well than the clock gate demands, for 10 s |
| ClockNotSynchronised | a clock follows nothing, for 15 s |
| ClockStepped | a clock jumped in the last minute |
| TargetDown | a process does not answer, for {hold:g} s |
| MessagesDropped | more than {drops:g} messages/s are dropped anywhere, for {hold:g} s |
| LatencyHigh | p99 from end to end is above {p99:g} s, for {hold:g} s |
| ProbeLosesPackets | the hop probe lost packets in the last minute |
| NodeHot | a sensor shows more than {hot:g} °C, for 30 s |
| NodeThrottled | the firmware slows the processor down |
| NodeUnderVoltage | the supply is too weak |
| DiskFilling | less than {disk:.0%} of the disk is left, for 30 s |
| MemoryShort | less than {memory:.0%} of the memory is left, for 30 s |
"""
SCRAPING = """
## What being scraped costs a node

Processes on nodes are scraped every second (`monitoring.scrape_interval`), node_exporter every 2 s and on a Pi 1 every
5 s. Of node_exporter's own series Prometheus keeps those that dashboards and alerts look at.

| container on a virtual Pi 1 (half a core) | more processor time while scraped | of its share |
|---|---|---|
| subscriber | 0.41 ms each second | 0.08 % |
| node-exporter | 0.90 ms | 0.18 % |
| clock | 0.62 ms | 0.12 % |
| together | 1.93 ms | 0.39 %; goal 2 % |

`tests/bench/bench_scrape.py`: 60 s scraped, less 60 s with Prometheus paused (n = 1 each), on two shared cores under
load. A virtual Pi 1 has half a core of this machine, which is many times a real one's; no real board was measured.
"""
BAR = "\\|"
"""A bar within a table's cell."""
DASHBOARDS_HEAD = """\
# Dashboards

{number} pages for Grafana 11.6 and later, made from `toolkit/provisioning/dashboards/` with Grafana's own SDK and
valid by a schema made from the types in it. Deploy gives them to Grafana where its image can be had; the console draws
the very same files everywhere else; `toolkit dashboards export` writes them. All have the choices *Data source* and
*Testbed*. Every query also asks for a job and an instance: they can be chosen where figures belong to a process, and
are hidden, and always all, elsewhere. Pages refresh every 5 s and mark on the time axis firing alerts, runs from start
to end, processes that appeared (deploys) and processes that do not answer (faults). Percentiles are those of the
recording rules: interpolated from histogram buckets over 10 s, once a second; a point that stands for a longer time, or
for several processes, shows the worst of them.

Every panel leads to the console: lines of a run to its report and to its page, a point of any other line or band to the
run that was going at that time, a single figure or a heat map to the last run in the time shown. A run's page has its
report in it. The head of each dashboard leads to the testbed. Grafana is told `http://127.0.0.1:8400`, where `toolkit
console` listens on the machine of whoever looks; a console on another `--port` is not found from there. Drawn in the
console the same links lead to that console, wherever it listens; the one on the monitor's node has no runs, and draws
none.

A new panel: an entry in the page's module; its metric stands in [metrics](metrics.md) first.
"""


def metrics_text() -> str:
    """docs/metrics.md."""
    limits = AlertLimits()
    lines = [METRICS_HEAD.format(buckets=", ".join(f"{bound:g}" for bound in metrics.BUCKETS_S))]
    for metric in metrics.ALL:
        labels = ", ".join(f"`{label}`" for label in metric.labels) or "none"
        lines.append(f"| `{metric.name}` | {metric.kind} | {labels} | {metric.help.replace('|', BAR)} |\n")
    lines.append(HOPS_HEAD)
    lines += [f"| `{hop}` | {words} |\n" for hop, words in metrics.HOPS.items()]
    lines.append(RULES_HEAD)
    quantiles = " ".join(f"`:{name}`" for name in list(QUANTILES)[1:])
    for histogram, labels in PERCENTILES.items():
        kept = ", ".join(f"`{label}`" for label in labels.split(", "))
        if "instance" not in labels:
            kept += f', of all instances (`instance="{ALL_INSTANCES}"`)'
        first = recorded(histogram.name, next(iter(QUANTILES)))
        lines.append(f"| `{first}` {quantiles} | percentiles of `{histogram.name}` over 10 s, by {kept} |\n")
        lines.append(f"| `{recorded(f'{histogram.name}_bucket', 'rate')}` | its buckets each second, by the same |\n")
    lines.append(f"| `toolkit:processing_latency_seconds:p50` {quantiles} | KPI: the hop `broker` |\n")
    for name, counter in THROUGHPUT.items():
        lines.append(f"| `toolkit:{name}:rate` | KPI: `{counter.name}` each second, by `node` |\n")
    lines.append(
        RULES_TAIL.format(
            hold=limits.hold_s, drops=limits.drops_per_s, p99=limits.p99_s, hot=limits.hot_celsius,
            disk=limits.disk_free_ratio, memory=limits.memory_free_ratio,
        )
    )  # fmt: skip
    lines.append(SCRAPING)
    return "".join(lines)


def dashboards_text() -> str:
    """docs/dashboards.md, panel by panel."""
    lines = [DASHBOARDS_HEAD.format(number={3: "Three", 4: "Four", 5: "Five", 6: "Six"}[len(pages())])]
    for page in pages():
        offered = (*page.variables, *((JOBS, INSTANCES) if page.by_process else ()))
        choices = ", ".join(variable.label for variable in offered)
        lines.append(f"\n## {page.title} (`{page.name}.json`)\n\n{page.description} Choices: {choices}.\n")
        for row in page.rows:
            lines.append(
                f"\n### {row.title}\n\n| panel | drawn as | unit | shows | where there is nothing |\n{'|---' * 5}|\n"
            )
            lines += [f"| {p.title} | {p.kind} | {p.unit} | {p.description} | {p.empty} |\n" for p in row.panels]
    return "".join(lines)


def main() -> int:
    """Write both files."""
    (DOCS / "metrics.md").write_text(metrics_text())
    (DOCS / "dashboards.md").write_text(dashboards_text())
    return 0


if __name__ == "__main__":
    sys.exit(main())
