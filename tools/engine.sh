#!/usr/bin/env bash
# Start the Docker engine where none runs, and stop the one that this script started.
# Usage: tools/engine.sh start | stop
set -euo pipefail
cd "$(dirname "$0")/.."

pidfile=$PWD/.cache/dockerd.pid
log=$PWD/.cache/dockerd.log

# shellcheck source=tools/shell.sh
. tools/shell.sh

answers() { docker version --format '{{.Server.Version}}' >/dev/null 2>&1; }
runs() { as_root sh -c 'docker version >/dev/null 2>&1'; } # Why one cannot become root is said.

start() {
  if answers; then return 0; fi
  runs || launch
  for _ in $(seq 120); do
    if runs; then
      answers || admit
      return 0
    fi
    sleep 0.5
  done
  echo "engine: it does not answer 60 s after it was started; the last it said:" >&2
  if [ -d /run/systemd/system ]; then as_root journalctl -u docker -n 5 --no-pager >&2; else tail -n 5 "$log" >&2; fi || true
  exit 1
}

launch() {
  mkdir -p .cache
  if [ -d /run/systemd/system ]; then
    say "starting the Docker engine (systemctl start docker)"
    as_root systemctl start docker
  else
    say "starting the Docker engine (dockerd; log in .cache/dockerd.log)"
    as_root sh -c "nohup setsid dockerd --pidfile '$pidfile' >'$log' 2>&1 &"
  fi
}

admit() { # Membership counts from the next login on; until then the socket's access list does.
  local me
  me=$(id -un)
  say "$me may not use the Docker engine yet (who may is as good as root on this machine)"
  confirm "Take $me into the group docker?" "$me may not use the engine"
  as_root usermod -aG docker "$me"
  if command -v setfacl >/dev/null; then as_root setfacl -m "u:$me:rw" /var/run/docker.sock; fi
  answers || fail "$me is in the group docker now; log in again and repeat this"
}

stop() { # Only the engine that `start` started here, by its process id.
  [ -f "$pidfile" ] || return 0
  local pid
  pid=$(cat "$pidfile")
  as_root kill -TERM "$pid" 2>/dev/null || { rm -f "$pidfile"; return 0; }
  say "stopping the Docker engine that was started here (process $pid)"
  for _ in $(seq 60); do
    as_root kill -0 "$pid" 2>/dev/null || return 0
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
