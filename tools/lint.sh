#!/usr/bin/env bash
# Every check that reads the sources without running them.
set -euo pipefail
cd "$(dirname "$0")/.."
bin=.venv/bin
step() { printf '\033[1m--\033[0m %s\n' "$*" >&2; }

# The slowest two, on playbooks and on types, go side by side.
said=$(mktemp)
(cd playbooks && PATH="$PWD/../$bin:$PATH" exec ../$bin/ansible-lint --offline -q --profile production) >"$said" 2>&1 &
playbooks=$!
trap 'kill $playbooks 2>/dev/null || true; rm -f "$said"' EXIT

step ruff; $bin/ruff check toolkit tests; $bin/ruff format --check -q toolkit tests
step mypy; $bin/mypy toolkit
step "import rules"; $bin/lint-imports --no-cache
step shellcheck; $bin/shellcheck tools/*.sh .ci/run images/node/files/usr/lib/toolkit/* images/vm/make-disk images/vm/files/usr/lib/toolkit/*
step hadolint; $bin/hadolint --config .hadolint.yaml images/*/Dockerfile
step yamllint; $bin/yamllint -s playbooks inventory examples
step ansible-lint; wait $playbooks || { cat "$said" >&2; exit 1; }
