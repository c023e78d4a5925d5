#!/usr/bin/env bash
# From a fresh checkout to a served model, in one command: bash deploy/quickstart.sh
#
#   --backend auto|cpu|cuda|vulkan|metal   what llama.cpp computes on (auto: CUDA where a card and nvcc are there, Metal on Apple silicon)
#   --port PORT                            where to serve (8080); the admin API takes the next port
#   --check                                stop everything again after the first answer
#
# It makes .venv in the checkout, builds llama.cpp for this machine (once: the wheel is cached), installs forgegate, serves the
# bundled demo model, asks it one question and keeps serving until Ctrl-C. Needs Python >= 3.11, a C++ compiler and PyPI.
# FORGEGATE_APT=1 lets it install missing Debian packages; FORGEGATE_LLAMACPP_INDEX names an index or folder with prebuilt wheels.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=venv.sh
. "$root/deploy/venv.sh"

usage() { sed -n '2,10s/^# \{0,1\}//p' "$root/deploy/quickstart.sh"; }
wrong() {
  say "error: $*"
  say "try: bash deploy/quickstart.sh --help"
  exit 2
}

backend=auto
port=8080
check=
while [ $# -gt 0 ]; do
  case $1 in
    --backend | --port)
      [ $# -ge 2 ] || wrong "$1 needs a value"
      [ "$1" = --backend ] && backend=$2 || port=$2
      shift
      ;;
    --backend=*) backend=${1#*=} ;;
    --port=*) port=${1#*=} ;;
    --check) check=1 ;;
    -h | --help)
      usage
      exit 0
      ;;
    *) wrong "unknown argument: $1" ;;
  esac
  shift
done
case $backend in auto | cpu | cuda | vulkan | metal) ;; *) wrong "--backend is one of auto, cpu, cuda, vulkan, metal, not: $backend" ;; esac
case $port in '' | *[!0-9]* | ??????*) wrong "--port is a number, not: $port" ;; esac
port=$((10#$port))
[ "$port" -ge 1 ] && [ "$port" -le 65534 ] || wrong "--port is between 1 and 65534, not: $port"

venv=$root/.venv
url=http://127.0.0.1:$port
question="Hello! What can you do?"
server=
timings=

# part NAME COMMAND...: runs it and notes what it took.
part() {
  local began=$SECONDS name=$1
  shift
  say "== $name"
  "$@"
  timings+=$(printf '  %5d s  %s' $((SECONDS - began)) "$name")$'\n'
}

# The server gets a process group of its own (below), so Ctrl-C reaches this script only, and the server hears one SIGTERM.
stop_server() {
  [ -n "$server" ] || return 0
  local pid=$server waited=0
  server=
  kill -TERM "$pid" 2>/dev/null || return 0
  while kill -0 "$pid" 2>/dev/null; do
    sleep 0.1
    waited=$((waited + 1))
    if [ "$waited" = 300 ]; then
      say "forgegate did not stop within 30 s: killing it"
      kill -KILL "$pid" 2>/dev/null
    fi
  done
  wait "$pid" 2>/dev/null || true
}
trap stop_server EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

need_free_ports() {
  "$python" - "$port" $((port + 1)) <<'PY' || exit 3
import socket, sys
for port in map(int, sys.argv[1:]):
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as exc:
            sys.exit(f"error: port {port} cannot be used ({exc.strerror}). Another forgegate? Choose a port: --port PORT")
PY
}

build_engine() { wheel=$("$venv/bin/python" "$root/deploy/llamacpp_wheel.py" --backend "$backend"); }

# Nothing changed: nothing to do. Only forgegate's own files changed: only they are installed again.
install_forgegate() {
  local dependencies source
  dependencies="$(digest_of "$python" "$root/pyproject.toml") $wheel"
  source=$(cd "$root" && digest_of "$python" pyproject.toml README.md gateway backends benchmarks)
  if [ "$(cat "$venv/forgegate-dependencies" 2>/dev/null)" != "$dependencies" ]; then
    install_into "$venv" --no-deps --force-reinstall "$wheel"
    install_into "$venv" "${root}[llamacpp]"
    printf '%s' "$dependencies" >"$venv/forgegate-dependencies"
  elif [ "$(cat "$venv/forgegate-source" 2>/dev/null)" != "$source" ]; then
    install_into "$venv" --no-deps --force-reinstall "$root"
  fi
  printf '%s' "$source" >"$venv/forgegate-source"
}

serve() {
  log=${FORGEGATE_HOME:-${XDG_DATA_HOME:-$HOME/.local/share}/forgegate}/logs/quickstart-$port.log
  mkdir -p "$(dirname "$log")"
  set -m
  "$venv/bin/forgegate" serve --port "$port" --admin-port $((port + 1)) >"$log" 2>&1 </dev/null &
  server=$!
  set +m
  "$venv/bin/python" "$root/deploy/first_request.py" wait "$url" "$server" 180 || {
    say "its log, $log:"
    tail -n 30 "$log" >&2
    exit 3
  }
}

first_answer() {
  answer=$("$venv/bin/python" "$root/deploy/first_request.py" ask "$url" demo "$question") || {
    say "its log, $log:"
    tail -n 30 "$log" >&2
    exit 3
  }
}

python=$(find_python python3.13 python3.12 python3.11 python3)
need_free_ports
part "environment" ensure_venv "$venv" "$python"
part "llama.cpp engine" build_engine
part "install" install_forgegate
part "start" serve
part "first answer" first_answer

cat <<EOM

  you    $question
  demo   $answer

  It listens on $url/v1 (OpenAI-compatible, model "demo").

  curl $url/v1/chat/completions -H 'content-type: application/json' \\
    -d '{"model": "demo", "messages": [{"role": "user", "content": "Hello!"}]}'

  from openai import OpenAI
  client = OpenAI(base_url="$url/v1", api_key="none")
  answer = client.chat.completions.create(model="demo", messages=[{"role": "user", "content": "Hello!"}])
  print(answer.choices[0].message.content)

what each part took:
$timings
log: $log
EOM

[ -z "$check" ] || exit 0
echo "Serving until Ctrl-C. Without this script: ${venv}/bin/forgegate serve"
trap 'say "stopping"; exit 0' INT TERM HUP
code=0
wait "$server" || code=$?
server=
say "forgegate ended by itself (exit code $code); the end of its log:"
tail -n 20 "$log" >&2
exit 3
