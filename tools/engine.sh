#!/usr/bin/env bash
# Start the Docker engine where none runs, and stop the one that this script started.
# Usage: tools/engine.sh start | stop
set -euo pipefail
cd "$(dirname "$0")/.."

pidfile=$PWD/.cache/dockerd.pid
log=$PWD/.cache/dockerd.log

say() { printf '\033[1m==>\033[0m %s\n' "$*" >&2; }
as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }
answers() { docker version --format '{{.Server.Version}}' >/dev/null 2>&1; }

start() {
  if answers; then return 0; fi
  mkdir -p .cache
  if [ -d /run/systemd/system ]; then
    say "starting the Docker engine (systemctl start docker)"
    as_root systemctl start docker
  else
    say "starting the Docker engine (dockerd; log in .cache/dockerd.log)"
    as_root sh -c "nohup setsid dockerd --pidfile '$pidfile' >'$log' 2>&1 &"
  fi
  for _ in $(seq 120); do
    if answers; then return 0; fi
    sleep 0.5
  done
  if as_root docker version >/dev/null 2>&1; then
    echo "engine: it runs, but $(id -un) may not use it; try: sudo usermod -aG docker $(id -un), then log in again" >&2
  else
    echo "engine: it does not answer 60 s after it was started; the last it said:" >&2
    if [ -d /run/systemd/system ]; then as_root journalctl -u docker -n 5 --no-pager >&2; else tail -n 5 "$log" >&2; fi || true
  fi
  exit 1
}

stop() { # Only the engine that `start` started here, by its process id.
  [ -f "$pidfile" ] || return 0
  local pid
  pid=$(cat "$pidfile")
  as_root kill -TERM "$pid" 2>/dev/null || { rm -f "$pidfile"; return 0; }
  say "stopping the Docker engine that was started here (process $pid)"
  for _ in $(seq 60); do
    kill -0 "$pid" 2>/dev/null || as_root kill -0 "$pid" 2>/dev/null || return 0
    sleep 0.5
  done
  echo "engine: process $pid did not end within 30 s" >&2
  exit 1
}

case "${1:-}" in
  start) start ;;
  stop) stop ;;
  *) echo "usage: tools/engine.sh start|stop" >&2; exit 2 ;;
esac
