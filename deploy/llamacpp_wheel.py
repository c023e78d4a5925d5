#!/usr/bin/env python3
"""Build (or take from the cache) the llama-cpp-python wheel that the llama.cpp engine runs on.

    python deploy/llamacpp_wheel.py [--backend auto|cpu|cuda|vulkan|metal]

prints the path of the wheel on stdout; everything else goes to stderr. Standard library only: it runs in an environment
where nothing is installed yet, with the interpreter (and the pip) that the wheel is meant for.

What the engine does not use is left out: of llama.cpp only the library target is built, not its `common` library,
multimodal code, tools, tests or examples. That is a quarter of the work of a plain `pip install llama-cpp-python`.

The wheel is compiled for this very CPU, so the cache key holds a digest of its features: in a home directory shared
with another machine, that one's wheel would die with an illegal instruction.

Environment: FORGEGATE_LLAMACPP_INDEX (a package index or a folder with prebuilt wheels), FORGEGATE_APT=1 (install
missing Debian packages), XDG_CACHE_HOME; CC, CXX, CFLAGS, CXXFLAGS, CUDAARCHS and CMAKE_ARGS reach the build and are
part of the key.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import tarfile
import time
import tomllib
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from toolchain import (
    BACKENDS,
    BuildError,
    chosen_backend,
    cpu_features,
    cuda_toolchain,
    is_cuda_driver_answering,
    nvcc,
    require_disk,
    require_tools,
    say,
)

ROOT = Path(__file__).resolve().parent.parent
RECIPE = 1  # raise it when the way of building changes what comes out

# llama-cpp-python forces llama.cpp's `common` library on, which its bindings never call.
COMMON_ON = 'set(LLAMA_BUILD_COMMON ON CACHE BOOL "Build llama.cpp common library" FORCE)'
DEFINES = {
    "cpu": (),
    "cuda": ("GGML_CUDA=ON",),
    "vulkan": ("GGML_VULKAN=ON",),
    "metal": ("GGML_METAL=ON", "GGML_METAL_EMBED_LIBRARY=ON"),
}
ALWAYS_DEFINED = ("LLAVA_BUILD=OFF", "LLAMA_OPENSSL=OFF", "GGML_CCACHE=OFF")
# llama.cpp's own install rules put a second copy at the top of site-packages, and wheels store the links
# libx.so -> libx.so.0 -> libx.so.0.1.2 as three files. Opened are libllama.so, libggml.so and the sonames (*.so.0).
NOT_PACKED = (
    "lib/**",
    "bin/**",
    "include/**",
    "llama_cpp/lib/libllama.so.*",
    "llama_cpp/lib/libggml-*.so",
    "llama_cpp/lib/*.so.*.*",
)
REPORT_EVERY_S = 15.0
SMOKE = """
import ctypes, pathlib, sys
folder = pathlib.Path(sys.argv[1])
lib = ctypes.CDLL(str(next(p for n in ("libllama.so", "libllama.dylib") if (p := folder / n).exists())))
lib.llama_print_system_info.restype = ctypes.c_char_p
lib.llama_backend_init()
print(lib.llama_print_system_info().decode())
"""


@dataclass(frozen=True, slots=True)
class Spec:
    """All that the bytes of a wheel depend on."""

    version: str
    backend: str
    index: str  # prebuilt wheels are looked for here; empty: build from source

    def cmake_defines(self) -> tuple[str, ...]:
        return ALWAYS_DEFINED + DEFINES[self.backend]

    def key(self) -> str:
        """Name of the cache folder. The wheel is tagged py3-none (ctypes), so one serves every Python version."""
        env = {
            name: os.environ.get(name, "") for name in ("CC", "CXX", "CFLAGS", "CXXFLAGS", "CUDAARCHS", "CMAKE_ARGS")
        }
        machine = [sysconfig.get_platform(), *platform.libc_ver(), sys.implementation.name, cpu_features()]
        gpu = cuda_toolchain() if self.backend == "cuda" else ""
        parts = [RECIPE, self.version, self.backend, self.cmake_defines(), NOT_PACKED, env, machine, gpu, self.index]
        return f"{self.version}-{self.backend}-{hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]}"


# Running it


def run_logged(command: list[str], log: Path, env: dict[str, str]) -> int:
    """Run a child in a process group of its own, output into `log`, reporting ninja's step. Returns its exit code."""
    began = reported = time.monotonic()
    with log.open("ab") as sink:
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, env=env, start_new_session=True
        )
    try:
        while True:
            try:
                return child.wait(timeout=0.5)
            except subprocess.TimeoutExpired:
                pass
            now = time.monotonic()
            if now - reported >= REPORT_EVERY_S:
                reported = now
                say(f"  {now - began:4.0f} s  {last_step(log) or 'preparing'}")
    finally:
        if child.poll() is None:  # interrupted
            end_group(child)


def end_group(child: subprocess.Popen[bytes]) -> None:
    """End a build. Ninja gives each compiler a group of its own and ends it on SIGTERM, so SIGKILL only comes last."""
    deadline = time.monotonic() + 10
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGTERM)
        while time.monotonic() < deadline:
            child.poll()  # reaps it, so that an empty group vanishes
            os.killpg(child.pid, 0)
            time.sleep(0.05)
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def last_step(log: Path) -> str | None:
    """Ninja's latest `[12/78]`."""
    with log.open("rb") as source:
        source.seek(max(0, source.seek(0, os.SEEK_END) - 100_000))
        steps = re.findall(rb"^\s*(\[\d+/\d+\]) ", source.read(), re.MULTILINE)
    return f"compiling {steps[-1].decode()}" if steps else None


CAUSES = (
    (r"No space left on device", "the disk is full"),
    (
        r"Killed signal terminated program|internal compiler error: Killed|ninja: .*signal: Killed",
        "a compiler was killed: out of memory",
    ),
    (
        r"NewConnectionError|Failed to establish a new connection|Temporary failure in name resolution|"
        r"NameResolutionError|Max retries exceeded|ReadTimeoutError|Network is unreachable|ProxyError",
        "the package index cannot be reached",
    ),
    (
        r"No CMAKE_CXX?_COMPILER could be found|is not a full path to an existing compiler",
        "the C/C++ compiler that was named does not exist",
    ),
    (r"is not able to compile a simple test program", "the C/C++ compiler does not work"),
    (
        r"Could not find CMake|CMakeNotFoundError|Could NOT find CMake",
        "cmake is missing and could not be installed from the package index",
    ),
    (r"Failed to detect a default CUDA architecture", "nvcc does not work; set CUDAARCHS"),
    (
        r"unsupported GNU version|unsupported clang version",
        "this nvcc does not accept the host compiler; set CUDAHOSTCXX to an older one",
    ),
    (
        r"Could NOT find (Vulkan|CUDA)|Unable to find cuda|CUDA::\w+\s+but the target was not found",
        "the GPU toolkit is incomplete",
    ),
    (r"No matching distribution found for", "the package index does not offer it"),
)


NOISE = re.compile(r"warning:|\[\d+/\d+\]|error: subprocess-exited|note: This error originates", re.IGNORECASE)


def failure(what: str, log: Path) -> BuildError:
    """One message: the cause as far as the log shows it, and the lines that matter."""
    text = log.read_text(errors="replace") if log.exists() else ""
    cause = next((cause for pattern, cause in CAUSES if re.search(pattern, text)), None)
    lines = [line.strip()[:300] for line in text.splitlines() if line.strip() and not NOISE.search(line)]
    first = next(
        (i for i, line in enumerate(lines) if re.search(r"\b(error|Error|ERROR)\b", line)), max(0, len(lines) - 12)
    )
    shown = "\n".join(f"    {line}" for line in lines[first : first + 12])
    return BuildError(f"{what} failed{': ' + cause if cause else ''}\n{shown}\n  full log: {log}")


def pip(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "pip", *arguments, "--disable-pip-version-check", "--no-input"]


def unpack_source(spec: Spec, work: Path, log: Path, env: dict[str, str]) -> Path:
    """Download the pinned source distribution and unpack it. Returns its folder."""
    say(f"  downloading the source of llama-cpp-python {spec.version} (75 MB)")
    wanted = f"llama-cpp-python=={spec.version}"
    command = pip("download", wanted, "--no-deps", "--no-binary", "llama-cpp-python", "--dest", str(work / "source"))
    if run_logged(command, log, env) != 0:
        raise failure(f"downloading {wanted}", log)
    downloaded = next((work / "source").glob("*.tar.gz"))
    with tarfile.open(downloaded) as archive:
        archive.extractall(work / "source", filter="data")
    keep_source(downloaded)
    return next(path.parent for path in (work / "source").glob("*/CMakeLists.txt"))


def keep_source(downloaded: Path) -> None:
    """Leave the source where the engine looks for llama.cpp's converter, which it needs for models of other families."""
    kept = cache_folder().parent / "sdists" / downloaded.name
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        partial = kept.with_suffix(".partial")
        shutil.move(downloaded, partial)
        partial.replace(kept)
    except OSError as exc:
        say(f"  the source is not kept in {kept.parent} ({exc.strerror or exc}): it is fetched again when it is needed")


def only_the_library(source: Path) -> list[str]:
    """Switch `common` off in the unpacked source. Returns pip's settings for building nothing but libllama."""
    lists = source / "CMakeLists.txt"
    text = lists.read_text()
    if text.count(COMMON_ON) != 1:
        say("  this source is laid out in an unknown way: building all of it, which takes longer")
        return []
    lists.write_text(text.replace(COMMON_ON, COMMON_ON.replace(" ON CACHE", " OFF CACHE")))
    return ["build.targets=llama"]


def build(spec: Spec, work: Path, log: Path) -> Path:
    """Compile the wheel under `work`. Returns its path there."""
    require_tools(spec.backend)
    require_disk(work, spec.backend)
    temp = work / "tmp"
    temp.mkdir()
    env = {**os.environ, "TMPDIR": str(temp), "CMAKE_GENERATOR": "Ninja"}
    if spec.backend == "cuda":
        env.setdefault("CUDACXX", nvcc() or "nvcc")
    source = unpack_source(spec, work, log, env)
    settings = only_the_library(source)
    settings += [f"cmake.define.{define}" for define in spec.cmake_defines()]
    settings += ["ninja.make-fallback=false", "wheel.exclude=" + ";".join(NOT_PACKED)]
    flags = [argument for setting in settings for argument in ("--config-settings", setting)]
    say(f"  compiling llama.cpp for {spec.backend.upper()} on {os.cpu_count()} cores")
    command = pip(
        "wheel", "--no-deps", "--no-cache-dir", "--verbose", str(source), "--wheel-dir", str(work / "wheel"), *flags
    )
    if run_logged(command, log, env) != 0:
        raise failure(f"building llama-cpp-python {spec.version} for {spec.backend.upper()}", log)
    return next((work / "wheel").glob("*.whl"))


def prebuilt(spec: Spec, work: Path, log: Path) -> Path | None:
    """Take the wheel from the configured index or folder; None when it has none that fits."""
    is_folder = Path(spec.index).is_dir() or spec.index.endswith((".html", ".htm"))
    where = ["--no-index", "--find-links", spec.index] if is_folder else ["--index-url", spec.index]
    command = pip("download", f"llama-cpp-python=={spec.version}", "--no-deps", "--only-binary", ":all:", *where)
    if run_logged([*command, "--dest", str(work / "wheel")], log, dict(os.environ)) != 0:
        say(f"  no wheel of llama-cpp-python {spec.version} for this machine in FORGEGATE_LLAMACPP_INDEX: building it")
        return None
    return next((work / "wheel").glob("*.whl"))


def check_loads(wheel: Path, work: Path) -> str:
    """Load the library in a child, where an illegal instruction does no harm. Returns what it says of itself."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(work / "check", [name for name in archive.namelist() if name.startswith("llama_cpp/lib/")])
    command = [sys.executable, "-c", SMOKE, str(work / "check/llama_cpp/lib")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode == 0:
        return done.stdout.strip()
    reason = signal.strsignal(-done.returncode) if done.returncode < 0 else done.stderr.strip().rpartition("\n")[2]
    raise BuildError(f"{wheel.name} cannot be loaded on this machine: {reason}")


# The cache


def cache_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(base) / "forgegate" / "wheels"


def cached(folder: Path) -> Path | None:
    return next(folder.glob("*.whl"), None)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock, so that two runs do not build the same wheel."""
    with path.open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("  another run is building the same wheel: waiting for it")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def obtain(spec: Spec) -> Path:
    """Path of the wheel in the cache, made when it is not there yet. Raises BuildError."""
    base, key = cache_folder(), spec.key()
    folder, work, log = base / key, base / f"{key}.building", base / f"{key}.log"
    if wheel := cached(folder):
        say(f"  llama.cpp wheel from the cache: {key}")
        return wheel
    base.mkdir(parents=True, exist_ok=True)
    with locked(base / f"{key}.lock"):
        if wheel := cached(folder):
            return wheel
        began = time.monotonic()
        shutil.rmtree(work, ignore_errors=True)  # what a killed run left
        log.unlink(missing_ok=True)
        work.mkdir()
        try:
            made = (prebuilt(spec, work, log) if spec.index else None) or build(spec, work, log)
            if spec.backend != "cuda" or is_cuda_driver_answering():  # without a driver a CUDA build cannot be loaded
                say(f"  it loads: {check_loads(made, work)}")
            shutil.rmtree(folder, ignore_errors=True)
            made.parent.rename(folder)
        finally:
            shutil.rmtree(work, ignore_errors=True)
        log.unlink(missing_ok=True)
        say(f"  llama.cpp wheel made in {time.monotonic() - began:.0f} s: {key}")
    return folder / made.name


def pinned_version() -> str:
    """The version that pyproject.toml's extra `llamacpp` names."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["llamacpp"]
    return next(str(line).partition("==")[2] for line in extras if line.startswith("llama-cpp-python=="))


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description="Build or reuse the llama.cpp engine's wheel and print its path.")
    parser.add_argument(
        "--backend", choices=("auto", *BACKENDS), default="auto", help="what it computes on (default: auto)"
    )
    arguments = parser.parse_args(argv)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        spec = Spec(pinned_version(), chosen_backend(arguments.backend), os.environ.get("FORGEGATE_LLAMACPP_INDEX", ""))
        print(obtain(spec))
    except BuildError as exc:
        say(f"error: {exc}")
        return 3
    except OSError as exc:
        say(f"error: {exc}")
        return 3
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
