# shellcheck shell=bash
# Sourced by quickstart.sh and tests/run.sh: finding a Python, and virtual environments that survive an interrupted run.
# Written for bash 3.2, which macOS still has.

say() { printf '%s\n' "$*" >&2; }
die() { say "error: $*"; exit 3; }

# find_python NAME...: prints the path of the first Python >= 3.11. Each is run: version managers leave a `python3.13`
# in PATH that only says that no such version is active.
find_python() {
  local name
  for name in "$@"; do
    "$name" -c 'import sys; assert sys.version_info >= (3, 11); print(sys.executable)' 2>/dev/null && return 0
  done
  die "no Python >= 3.11 found (tried: $*). Install one: apt-get install python3 python3-venv, dnf install python3.12, brew install python@3.12"
}

# need_venv_module PYTHON: Debian ships Python without the module that makes environments.
need_venv_module() {
  "$1" -c 'import venv, ensurepip' 2>/dev/null && return 0
  local package
  package=$("$1" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')
  if [ "${FORGEGATE_APT:-}" = 1 ] && command -v apt-get >/dev/null; then
    say "  installing the Debian package $package"
    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "$package"; } >&2 && return 0
  fi
  die "$1 cannot make virtual environments. Install what is missing: apt-get install $package (FORGEGATE_APT=1 does it, as root)"
}

# ensure_venv VENV PYTHON: makes the environment, keeps a whole one, makes a broken or half-installed one anew.
ensure_venv() {
  local venv=$1 python=$2
  if [ -e "$venv" ]; then
    if [ ! -e "$venv/.unfinished" ] && "$venv/bin/python" -c 'import sys, pip; assert sys.version_info >= (3, 11)' 2>/dev/null; then
      return 0
    fi
    [ -e "$venv/pyvenv.cfg" ] || [ -e "$venv/.unfinished" ] || die "$venv is in the way: it is no virtual environment"
    say "  $venv was left unfinished or is broken: making it anew"
    rm -rf -- "$venv"
  fi
  need_venv_module "$python"
  mkdir -p -- "$venv"
  touch -- "$venv/.unfinished"
  "$python" -m venv "$venv" >&2 || die "making a virtual environment in $venv failed"
  rm -- "$venv/.unfinished"
}

# install_into VENV PIP-ARGUMENT...: an interrupted install can leave packages that look whole, so it leaves a mark as well.
install_into() {
  local venv=$1
  shift
  touch -- "$venv/.unfinished"
  "$venv/bin/python" -m pip install -qq --disable-pip-version-check --no-input "$@" >&2 || {
    say "error: installing packages into $venv failed (see above): no network, or the package index lacks one of them"
    return 3
  }
  rm -- "$venv/.unfinished"
}

# digest_of PYTHON PATH...: one digest over the files and folders named, by name and content.
digest_of() {
  "$1" -c '
import hashlib, os, sys
total = hashlib.sha256(sys.version.encode())
for top in sys.argv[1:]:
    found = [top] if os.path.isfile(top) else [os.path.join(d, f) for d, _, fs in os.walk(top) if "__pycache__" not in d for f in fs]
    for path in sorted(found):
        with open(path, "rb") as source:
            total.update(path.encode() + b"\0" + hashlib.sha256(source.read()).digest())
print(total.hexdigest())' "${@:2}"
}
