#!/usr/bin/env bash
# Make this machine able to run toolkit: system packages, Docker engine, virtual environment.
# Usage: tools/setup.sh [--tests]     Safe to run again: what is there already is left alone.
set -euo pipefail
cd "$(dirname "$0")/.."

tests=no
[ "${1:-}" = --tests ] && tests=yes

# shellcheck source=tools/shell.sh
. tools/shell.sh

missing_packages() {
  local name
  for name in "$@"; do
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$name" 2>/dev/null)" = installed ] || printf '%s ' "$name"
  done
}

system_packages() {
  local wanted=(ca-certificates debian-archive-keyring openssh-client iproute2 iptables mmdebstrap)
  command -v dockerd >/dev/null || wanted+=(docker.io)
  [ "$(id -u)" = 0 ] || ! command -v sudo >/dev/null || wanted+=(acl uidmap) # engine.sh lets this user in; mmdebstrap needs no root then.
  python_ok || wanted+=(python3 python3-venv)
  [ "$tests" = no ] || is_ubuntu || wanted+=(chromium)
  [ "$tests" = no ] || wanted+=(chrony fonts-dejavu-core prometheus prometheus-node-exporter mosquitto mosquitto-clients prosody python3-httptools qemu-system-x86 qemu-utils e2fsprogs iputils-ping procps)
  local lacking
  lacking=$(missing_packages "${wanted[@]}")
  [ -z "$lacking" ] || install_packages "$lacking"
  # From Debian 13 on the engine's command is a package of its own.
  command -v docker >/dev/null || install_packages docker-cli
  # Cyclone DDS, which Debian 13 names anew.
  [ "$tests" = no ] || compgen -G '/usr/lib/*/libddsc.so.0debian' >/dev/null || install_packages '^libddsc0(debian|t64)$'
}

install_packages() { # Names in one word.
  say "Debian packages to install: $1"
  confirm "Install them with apt-get?" "nothing was installed"
  as_root apt-get update -qq
  local clock=no
  ! service is-active systemd-timesyncd ntpsec || clock=yes
  # Services of packages are not started: toolkit starts what it needs itself. Debian asks this file.
  local policy=/usr/sbin/policy-rc.d
  if [ -e $policy ]; then policy=; else
    printf '#!/bin/sh\nexit 101\n' | as_root install -m 755 /dev/stdin $policy
    trap 'as_root rm -f /usr/sbin/policy-rc.d' EXIT
  fi
  # shellcheck disable=SC2086
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $1 >/dev/null
  [ -z "$policy" ] || { as_root rm -f $policy; trap - EXIT; }
  local name
  for name in mosquitto prometheus prometheus-node-exporter prosody chrony; do
    case " $1 " in *" $name "*) ;; *) continue ;; esac
    if [ $name = chrony ] && [ $clock = yes ]; then
      service start chrony || true # Debian has one time daemon at a time: it has taken the other's place.
    else
      service disable $name || true
    fi
  done
}

service() { # systemctl, where systemd runs.
  [ -d /run/systemd/system ] && as_root systemctl -q "$@" 2>/dev/null
}

is_ubuntu() ( # It has Chromium as a snap only, which no test can drive: see `browser`.
  # shellcheck source=/dev/null
  . /etc/os-release && [ "$ID" = ubuntu ]
)

browser() {
  { [ "$tests" = yes ] && is_ubuntu; } || return 0
  # Says nothing where it is there already.
  .venv/bin/playwright install --with-deps chromium >/dev/null
}

python_ok() {
  local found
  found=$(find_python) && "$found" -c 'import venv, ensurepip' 2>/dev/null
}

find_python() {
  local name
  for name in python3.13 python3.12 python3.11 python3.14 python3; do
    if command -v "$name" >/dev/null && "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      command -v "$name"
      return 0
    fi
  done
  return 1
}

virtual_environment() {
  local lock=requirements.lock
  [ "$tests" = no ] || lock=requirements-dev.lock
  local python mark=.venv/.lock-digest digest
  python=$(find_python) || fail "no Python 3.11 or newer; on Debian 12, Ubuntu 24.04 and newer: apt-get install python3 python3-venv"
  digest=$(cat "$lock" pyproject.toml | sha256sum | cut -d' ' -f1)
  # The larger set serves both: demo after test installs nothing.
  if [ -f "$mark" ] && { grep -qx "$lock $digest" "$mark" || { [ "$tests" = no ] && grep -q '^requirements-dev.lock' "$mark"; }; }; then
    return 0
  fi
  say "Python environment in .venv from $lock (about a minute the first time)"
  [ -x .venv/bin/python ] || "$python" -m venv .venv
  .venv/bin/python -m pip install -q --disable-pip-version-check 'uv>=0.9,<1'
  export UV_SYSTEM_CERTS=1 # As pip does: what this machine trusts is trusted, such as the authority of a company's proxy.
  .venv/bin/uv pip install -q --python .venv/bin/python --require-hashes -r "$lock"
  .venv/bin/uv pip install -q --python .venv/bin/python --no-deps -e .
  compile_modules
  echo "$lock $digest" >"$mark"
}

compile_modules() { # Where Python is told to keep no bytecode, each start would compile all that it imports, half a second of it.
  .venv/bin/python -m compileall -q -j 0 -x '/(ansible_collections|ansible_test|pip|setuptools|mypy|tests?)/' \
    .venv/lib/python*/site-packages toolkit || true # Some packages carry files for another Python.
}

command_on_path() { # So that `toolkit teardown` works as it is written in the README.
  local link=/usr/local/bin/toolkit own=$HOME/.local/bin target=$PWD/.venv/bin/toolkit
  if [ "$(id -u)" != 0 ]; then
    case ":$PATH:" in *":$own:"*) link=$own/toolkit ;; *) command -v sudo >/dev/null || link=$own/toolkit ;; esac
  fi
  [ "$(readlink "$link" 2>/dev/null)" = "$target" ] && return 0
  if [ -e "$link" ] && [ ! -L "$link" ]; then
    say "$link is something else; use .venv/bin/toolkit"
    return 0
  fi
  if [ "$link" = "$own/toolkit" ]; then mkdir -p "$own" && ln -sfn "$target" "$link"; else as_root ln -sfn "$target" "$link"; fi
  say "toolkit is now a command ($link)"
}

started=$SECONDS
system_packages
tools/engine.sh start
virtual_environment
browser
command_on_path
say "ready after $((SECONDS - started)) s"
