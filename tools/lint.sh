#!/usr/bin/env bash
# Every check that reads the sources without running them.
set -euo pipefail
cd "$(dirname "$0")/.."
bin=.venv/bin
step() { printf '\033[1m--\033[0m %s\n' "$*" >&2; }
step ruff; $bin/ruff check toolkit tests; $bin/ruff format --check -q toolkit tests
step mypy; $bin/mypy toolkit
step "import rules"; $bin/lint-imports --no-cache
step shellcheck; $bin/shellcheck tools/*.sh .ci/run images/node/files/usr/lib/toolkit/* images/vm/make-disk images/vm/files/usr/lib/toolkit/*
step hadolint; $bin/hadolint --config .hadolint.yaml images/*/Dockerfile
step yamllint; $bin/yamllint -s playbooks inventory examples
step ansible-lint; (cd playbooks && PATH="$PWD/../$bin:$PATH" ../$bin/ansible-lint --offline -q --profile production)
