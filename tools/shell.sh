# shellcheck shell=bash
# What the scripts here say and ask, and how they become root.

say() { printf '\033[1m==>\033[0m %s\n' "$*" >&2; }
fail() { printf '%s: %s\n' "$(basename "$0" .sh)" "$*" >&2; exit 1; }

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"; elif command -v sudo >/dev/null; then sudo "$@"; else
    fail "needs root for: $*; run it as root, or install sudo"
  fi
}

confirm() { # Asks on a terminal; goes on by itself where there is none, or with YES=1.
  [ -t 0 ] && [ "${YES:-}" != 1 ] || return 0
  read -r -p "$1 [Y/n] " answer
  case "$answer" in [nN]*) fail "stopped; $2" ;; esac
}
