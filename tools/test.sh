#!/usr/bin/env bash
# Run everything that can fail and leave nothing behind: no container, network, volume or process of ours.
# A tool that is missing is installed; a test that is skipped for want of one fails (TOOLKIT_TESTS_COMPLETE=1). Only the
# dashboards in Grafana itself are left out, by a line that says so, where its image can be had from nowhere.
set -euo pipefail
cd "$(dirname "$0")/.."
bin=.venv/bin
started=$SECONDS
stage() { printf '\n\033[1m==> [%4s s] %s\033[0m\n' "$((SECONDS - started))" "$*" >&2; }

engine_was_up=no
docker version >/dev/null 2>&1 && engine_was_up=yes

finish() {
  local code=$?
  stage "removing what the tests made"
  $bin/python tests/leftovers.py --remove || code=1
  # An engine that was up before, such as the one of `make demo`, stays up.
  [ $engine_was_up = yes ] || tools/engine.sh stop || code=1
  printf '\n%s after %s s\n' "$([ $code = 0 ] && echo passed || echo FAILED)" "$((SECONDS - started))" >&2
  exit $code
}

stage "preparing this machine"
YES=1 tools/setup.sh --tests
trap finish EXIT
export TOOLKIT_TESTS_COMPLETE=1
stage "lint"
tools/lint.sh
stage "unit and contract tests"
$bin/pytest tests/unit tests/contract -n 2 -m "not databases" --durations=10 -rs
stage "integration and end-to-end tests, on real virtual nodes"
$bin/pytest tests/integration tests/e2e --durations=15 -rs
