#!/usr/bin/env bash
# Run the benchmarks one after the other, each beside its yardstick. Usage: tests/bench/run.sh [NAME]...
set -euo pipefail
cd "$(dirname "$0")/../.."
names=("$@")
[ ${#names[@]} -gt 0 ] || names=(deploy provisioning node sampling event_handler measure model arrowhead_orchestration local_clouds console)
for name in "${names[@]}"; do
  printf '\n== %s (load %s)\n' "$name" "$(cut -d' ' -f1 /proc/loadavg)"
  PYTHONPATH=. .venv/bin/python "tests/bench/bench_$name.py"
done
