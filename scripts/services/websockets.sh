#!/usr/bin/env bash
# A WebSocket peer that is not ours: Python's `websockets` in a virtual environment.
#   websockets.sh install                 into the cache folder; does nothing where it is there
#   websockets.sh python                  prints the interpreter that has it; fails where it is not installed
set -euo pipefail
V=${WEBSOCKETS_VERSION:-15.0.1}
cache=${MANIFOLD_SERVICES:-${XDG_CACHE_HOME:-$HOME/.cache}/manifold-services}; venv=$cache/py
has() { [ -x "$venv/bin/python" ] && "$venv/bin/python" -c 'import websockets' 2>/dev/null; }
case ${1:-} in
install)
  has && exit 0
  mkdir -p "$cache"
  # Two installers at once would break each other's environment.
  exec 9>"$cache/.py.lock"; flock 9
  has && exit 0
  [ -x "$venv/bin/python" ] || python3 -m venv "$venv"
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check "websockets==$V" ;;
python) has || exit 1; echo "$venv/bin/python" ;;
*) sed -n '2,4p' "$0" >&2; exit 2 ;;
esac
