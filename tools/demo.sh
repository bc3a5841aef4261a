#!/usr/bin/env bash
# Deploy the quickstart testbed, run its workload and say what to look at. Run it again: nothing is rebuilt.
set -euo pipefail
cd "$(dirname "$0")/.."
started=$SECONDS
.venv/bin/toolkit deploy examples/quickstart/testbed.yml
.venv/bin/toolkit run --testbed quickstart quickstart
printf '\nThe testbed is up after %s s. Look at it:  toolkit status\nRemove it:  toolkit teardown\n' "$((SECONDS - started))" >&2
