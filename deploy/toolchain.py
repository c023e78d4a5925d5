"""What this machine can compile: CPU features, the CUDA toolchain, compilers and the packages that bring them.

Standard library only; used by llamacpp_wheel.py before anything is installed.
"""

from __future__ import annotations

import ctypes
import json
import os
import platform
import shutil
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

BACKENDS = ("cpu", "cuda", "vulkan", "metal")
NEEDED_DISK_BYTES = {"cpu": 10**9, "cuda": 6 * 10**9, "vulkan": 3 * 10**9, "metal": 10**9}


class BuildError(Exception):
    """Something cannot be built here; the message says why and what would help."""


def say(text: str) -> None:
    """Progress goes to stderr: stdout is for the result."""
    print(text, file=sys.stderr, flush=True)


def cpu_features() -> str:
    """The CPU's instruction sets, as far as a native build can depend on them."""
    if sys.platform == "darwin":
        return output_of("sysctl", "-n", "machdep.cpu.brand_string")
    found: dict[str, str] = {}
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            name, _, value = line.partition(":")
            if name.strip() in ("flags", "Features", "CPU implementer", "CPU part", "isa"):
                found.setdefault(name.strip(), " ".join(sorted(value.split())))
    return json.dumps(found or platform.processor(), sort_keys=True)


def output_of(*command: str) -> str:
    """Stdout of a short command; empty when it is missing, fails or hangs."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def nvcc() -> str | None:
    """Path of the CUDA compiler, which many installations leave out of PATH."""
    places = [os.environ.get(name, "") for name in ("CUDA_HOME", "CUDA_PATH")] + ["/usr/local/cuda"]
    return shutil.which("nvcc") or next(
        (p for place in places if place and (p := shutil.which(f"{place}/bin/nvcc"))), None
    )


def cuda_toolchain() -> str:
    compiler = nvcc()
    version = output_of(compiler, "--version") if compiler else ""
    return version + output_of("nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader")


def is_cuda_driver_answering() -> bool:
    """True when there is a device: a compiler alone (nvcc in a container without a card) is no GPU."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
        count = ctypes.c_int(0)
        return driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0 and count.value > 0
    except (OSError, AttributeError):
        return output_of("nvidia-smi", "-L").startswith("GPU ")


def chosen_backend(wanted: str) -> str:
    """Resolve `auto`, and refuse what cannot work here."""
    if wanted == "auto":
        if sys.platform == "darwin":
            return "metal" if platform.machine() == "arm64" else "cpu"
        return "cuda" if is_cuda_driver_answering() and nvcc() else "cpu"
    if wanted == "metal" and sys.platform != "darwin":
        raise BuildError("--backend metal needs macOS")
    if wanted == "cuda" and not nvcc():
        raise BuildError("--backend cuda needs the CUDA compiler: nvcc is not in PATH, CUDA_HOME or /usr/local/cuda")
    return wanted


@dataclass(frozen=True, slots=True)
class Tool:
    """Something that does not come from PyPI, and the package that brings it."""

    name: str
    is_there: bool
    apt: str
    dnf: str
    brew: str


def has_program(variable: str, *names: str) -> bool:
    """True when $variable, or one of the programs if it is unset, can be run."""
    chosen = os.environ.get(variable)
    return any(shutil.which(name) for name in ([chosen.split()[0]] if chosen and chosen.split() else names))


def missing_tools(backend: str) -> list[Tool]:
    xcode = "xcode-select --install"
    tools = [
        Tool("a C compiler", has_program("CC", "cc", "gcc", "clang"), "gcc libc6-dev", "gcc", xcode),
        Tool("a C++ compiler", has_program("CXX", "c++", "g++", "clang++"), "g++", "gcc-c++", xcode),
    ]
    if backend == "vulkan":
        headers = [
            Path(os.environ.get("VULKAN_SDK", "/usr")) / "include/vulkan/vulkan.h",
            Path("/opt/homebrew/include/vulkan/vulkan.h"),
        ]
        tools += [
            Tool("glslc (shader compiler)", has_program("", "glslc"), "glslc", "glslc", "brew install shaderc"),
            Tool(
                "the Vulkan headers",
                any(map(Path.exists, headers)),
                "libvulkan-dev",
                "vulkan-loader-devel",
                "brew install vulkan-headers",
            ),
        ]
    return [tool for tool in tools if not tool.is_there]


def install_command(tools: list[Tool]) -> str:
    if shutil.which("apt-get"):
        return "apt-get install " + " ".join(tool.apt for tool in tools)
    if shutil.which("dnf"):
        return "dnf install " + " ".join(tool.dnf for tool in tools)
    if sys.platform == "darwin":
        return " && ".join(dict.fromkeys(tool.brew for tool in tools))
    return "install " + ", ".join(tool.apt for tool in tools) + " (Debian's names)"


def require_tools(backend: str) -> None:
    """Raise BuildError naming the missing packages, unless we may and can install them."""
    missing = missing_tools(backend)
    if not missing:
        return
    names = ", ".join(tool.name for tool in missing)
    if os.environ.get("FORGEGATE_APT") != "1" or not shutil.which("apt-get"):
        hint = " (or run again with FORGEGATE_APT=1 as root)" if shutil.which("apt-get") else ""
        raise BuildError(
            f"llama.cpp is built from source, which needs {names}. Install it: {install_command(missing)}{hint}"
        )
    packages = " ".join(tool.apt for tool in missing).split()
    say(f"  installing Debian packages: {' '.join(packages)}")
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (
        ["apt-get", "update", "-qq"],
        ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages],
    ):
        done = subprocess.run(
            command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )
        if done.returncode != 0:
            raise BuildError(f"{' '.join(command)} failed:\n{done.stdout.strip()[-1500:]}")
    if still := missing_tools(backend):
        raise BuildError(f"{still[0].name} is still missing after {install_command(missing)}")


def require_disk(folder: Path, backend: str) -> None:
    free_bytes, needed_bytes = shutil.disk_usage(folder).free, NEEDED_DISK_BYTES[backend]
    if free_bytes < needed_bytes:
        raise BuildError(
            f"not enough disk space in {folder}: the {backend} build needs {needed_bytes / 1e9:.0f} GB, "
            f"{free_bytes / 1e9:.1f} GB are free"
        )
