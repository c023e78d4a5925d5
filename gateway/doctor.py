"""`forgegate doctor`: what this machine can run, what is missing, how to get it."""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import platform
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from backends.environments.package import running_package
from backends.environments.table import ENVIRONMENTS
from backends.errors import BackendError
from backends.llamacpp.launch import DEMO_DIR, MODULES, check_model, converter_python
from backends.pythons import child_env, choose_python
from gateway.exits import DONE, NEGATIVE
from gateway.home import Home, HomeError
from gateway.install import state_of

EXAMPLE = """examples:
  forgegate doctor
  forgegate doctor --json
"""
OK, INFO, WARNING, ERROR = "ok", "info", "warning", "error"
GIB = 1024**3
FEATURES = ("sse4_2", "avx", "avx2", "fma", "f16c", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "asimd", "sve")
COMMAND_TIMEOUT_S = 20.0
_ASK_ENGINE = """
import json, llama_cpp
print(json.dumps({
    "version": llama_cpp.__version__,
    "gpu": bool(llama_cpp.llama_supports_gpu_offload()),
    "system": llama_cpp.llama_print_system_info().decode("utf-8", "replace"),
}))
"""


@dataclass(frozen=True, slots=True)
class Finding:
    name: str
    status: str
    detail: str
    fix: str = ""
    """What to do about it; empty when nothing needs doing."""


class Machine:
    """What the checks ask: replaced in tests by one with other answers."""

    def __init__(self, home: Home, env: Mapping[str, str] = os.environ) -> None:
        self.home = home
        self.env = env

    def which(self, *names: str) -> str | None:
        """The first of these commands that is installed."""
        return next((path for name in names if (path := shutil.which(name, path=self.env.get("PATH")))), None)

    def run(self, *argv: str) -> subprocess.CompletedProcess[str] | None:
        """None where it cannot be run or takes too long."""
        try:
            return subprocess.run(
                argv, capture_output=True, text=True, timeout=COMMAND_TIMEOUT_S, check=False,
                stdin=subprocess.DEVNULL, env=child_env(),
            )  # fmt: skip
        except (OSError, subprocess.SubprocessError):
            return None

    def read(self, path: str) -> str:
        """Empty where there is no such file."""
        try:
            return Path(path).read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""

    def has_library(self, name: str) -> bool:
        try:
            ctypes.CDLL(name)
        except OSError:
            return False
        return True

    def is_port_free(self, port: int) -> bool:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                return False
        return True


def main(argv: Sequence[str]) -> int:
    args = parser().parse_args(argv)
    findings = examine(Machine(Home.from_env()))
    if args.json:
        print(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        print(render(findings))
    return NEGATIVE if any(finding.status == ERROR for finding in findings) else DONE


def examine(machine: Machine) -> list[Finding]:
    """All checks, in the order in which people want to read them."""
    return [check(machine) for check in CHECKS]


def render(findings: Sequence[Finding]) -> str:
    width = max(len(finding.name) for finding in findings)
    lines = []
    for finding in findings:
        lines.append(f"{finding.status:<8} {finding.name:<{width}}  {finding.detail}")
        if finding.fix:
            lines.append(f"{'':<8} {'':<{width}}  -> {finding.fix}")
    counts = {status: sum(finding.status == status for finding in findings) for status in (ERROR, WARNING)}
    lines.append(f"{counts[ERROR]} error(s), {counts[WARNING]} warning(s)")
    return "\n".join(lines)


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "forgegate doctor", description="What this machine can run, what is missing, how to get it. Exit code 1: errors found.",
        epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser


# Checks ---------------------------------------------------------------------------------------------------------------


def check_python(machine: Machine) -> Finding:
    detail = f"{platform.python_version()} ({sys.executable})"
    return Finding("python", OK, detail)


def check_cpu(machine: Machine) -> Finding:
    listed = machine.read("/proc/cpuinfo")
    flags = {word for line in listed.splitlines() if line.startswith(("flags", "Features")) for word in line.split()}
    present = [name for name in FEATURES if name in flags]
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    detail = f"{platform.machine()}, {usable} usable CPUs, {' '.join(present) or 'features unknown'}"
    if flags and "avx2" not in flags and platform.machine() in ("x86_64", "AMD64"):
        return Finding(
            "cpu", WARNING, detail, "without AVX2 llama.cpp computes slowly, and must be built on this machine"
        )
    return Finding("cpu", OK, detail)


def check_memory(machine: Machine) -> Finding:
    rows = dict(line.split(":", 1) for line in machine.read("/proc/meminfo").splitlines() if ":" in line)
    if "MemAvailable" not in rows:
        return Finding("memory", INFO, "this system does not say how much is free")
    available, total = (int(rows[key].split()[0]) * 1024 / GIB for key in ("MemAvailable", "MemTotal"))
    detail = f"{available:.1f} GiB available of {total:.1f} GiB"
    if available < 1:
        return Finding("memory", WARNING, detail, "the demo model needs about 0.5 GiB; larger ones will not fit")
    return Finding("memory", OK, detail)


def check_home(machine: Machine) -> Finding:
    try:
        machine.home.ensure()
    except HomeError as exc:
        return Finding("home", ERROR, str(exc), "set FORGEGATE_HOME to a folder that can be written")
    return Finding("home", OK, str(machine.home.root))


def check_disk(machine: Machine) -> Finding:
    folder = next(path for path in (machine.home.root, *machine.home.root.parents) if path.exists())
    free_gib = shutil.disk_usage(folder).free / GIB
    detail = f"{free_gib:.1f} GiB free at {folder}"
    if free_gib < 0.2:
        return Finding("disk", ERROR, detail, "free some space, or set FORGEGATE_HOME to another disk")
    if free_gib < 5:
        return Finding(
            "disk", WARNING, detail, "enough for the demo model; models of one's own take 5 GiB and more each"
        )
    return Finding("disk", OK, detail)


def check_compiler(machine: Machine) -> Finding:
    compiler = machine.which("c++", "g++", "clang++")
    if compiler:
        return Finding("compiler", OK, compiler)
    return Finding(
        "compiler", INFO, "no C++ compiler: llama.cpp cannot be built here, a prebuilt wheel can be installed",
        "Debian, Ubuntu: apt-get install g++; Fedora: dnf install gcc-c++; macOS: xcode-select --install",
    )  # fmt: skip


def check_build_tools(machine: Machine) -> Finding:
    found = [path for name in ("cmake", "ninja") if (path := machine.which(name))]
    return Finding(
        "build tools", OK if found else INFO, ", ".join(found) or "no cmake, no ninja: pip brings them when it builds"
    )


def check_gpu(machine: Machine) -> Finding:
    """By the driver: nvcc without a driver is no GPU."""
    if platform.system() == "Darwin":
        return Finding("gpu", OK, f"Metal on {platform.machine()}")
    names = gpu_names(machine)
    if names:
        return Finding("gpu", OK, "; ".join(names))
    if machine.has_library("libcuda.so.1"):
        return Finding(
            "gpu", WARNING, "libcuda is installed, but nvidia-smi does not answer",
            "check the driver: `nvidia-smi` must list the GPU (in a container: start it with GPU access)",
        )  # fmt: skip
    return Finding("gpu", INFO, "none found: engines compute on the CPU")


def gpu_names(machine: Machine) -> list[str]:
    """`name, memory, driver` of each NVIDIA GPU that its driver lists."""
    answer = machine.run("nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader")
    if answer is None or answer.returncode != 0:
        return []
    return [line.strip() for line in answer.stdout.splitlines() if line.strip()]


def check_llamacpp(machine: Machine) -> Finding:
    name = "llama.cpp"
    try:
        python = choose_python("llamacpp", MODULES, None, machine.home.envs)
    except BackendError as exc:
        return Finding(
            name, ERROR, str(exc), "forgegate install llamacpp (needs a compiler), or run deploy/quickstart.sh"
        )
    answer = machine.run(python, "-P", "-c", _ASK_ENGINE)
    if answer is None or answer.returncode == -4:
        return Finding(
            name, ERROR, f"{python}: llama_cpp was built for another CPU (illegal instruction)",
            "build it here: pip install --force-reinstall --no-cache-dir --no-binary llama-cpp-python llama-cpp-python",
        )  # fmt: skip
    try:
        told = json.loads(answer.stdout.strip().splitlines()[-1])
    except (ValueError, IndexError):
        last = (answer.stderr.strip().splitlines() or ["no output"])[-1]
        return Finding(
            name, ERROR, f"{python} cannot load llama_cpp: {last}", "reinstall it: forgegate install llamacpp"
        )
    where = "with GPU offload" if told["gpu"] else "CPU only"
    detail = f"llama-cpp-python {told['version']}, {where} ({' '.join(told['system'].split())})"
    if gpu_names(machine) and not told["gpu"]:
        return Finding(
            name, WARNING, detail, "there is a GPU: rebuild with CMAKE_ARGS=-DGGML_CUDA=on (needs the CUDA toolkit)"
        )
    return Finding(name, OK, detail)


def check_environments(machine: Machine) -> Finding:
    name = "environments"
    try:
        package = running_package()
    except BackendError as exc:
        return Finding(name, ERROR, str(exc))
    rows = [row for each in ENVIRONMENTS.values() if (row := state_of(each, machine.home.envs, package))["path"]]
    if not rows:
        return Finding(name, INFO, f"none installed; there are: {', '.join(ENVIRONMENTS)}", "forgegate install NAME")
    detail = ", ".join(f"{row['name']} {row['state']}" for row in rows)
    bad = [row for row in rows if row["state"] in ("broken", "outdated")]
    fix = "; ".join(f"{row['name']}: {row['why']}" for row in bad)
    return Finding(name, WARNING if bad else OK, detail, fix)


def check_converter(machine: Machine) -> Finding:
    """Model folders of other families than the demo's are converted with torch and transformers."""
    name = "converter"
    try:
        engine = choose_python("llamacpp", MODULES, None, machine.home.envs)
    except BackendError:
        return Finding(name, INFO, "no llama.cpp engine yet")
    try:
        python = converter_python(engine, machine.home.envs)
    except BackendError as exc:
        return Finding(name, INFO, f"GGUF files and the demo family only; for other model folders: {exc}")
    return Finding(name, OK, f"model folders of any family that llama.cpp knows, in {python}")


def check_demo_model(machine: Machine) -> Finding:
    try:
        return Finding("demo model", OK, check_model(DEMO_DIR))
    except BackendError as exc:
        return Finding("demo model", ERROR, str(exc), "reinstall forgegate")


def check_ports(machine: Machine) -> Finding:
    running = machine.home.running()
    if running is not None:
        return Finding(
            "ports", OK, f"forgegate is running: {running.url}, admin API {running.admin_url} (pid {running.pid})"
        )
    taken = [port for port in (8080, 8081) if not machine.is_port_free(port)]
    if taken:
        words = " and ".join(map(str, taken))
        return Finding("ports", WARNING, f"in use: {words}", "serve with --port N --admin-port N")
    return Finding("ports", OK, "8080 and 8081 are free")


CHECKS: tuple[Callable[[Machine], Finding], ...] = (
    check_python, check_cpu, check_memory, check_gpu, check_home, check_disk, check_ports,
    check_llamacpp, check_environments, check_converter, check_demo_model, check_compiler, check_build_tools,
)  # fmt: skip
