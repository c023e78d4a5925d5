"""llama.cpp's own server, built once and kept: `python -m benchmarks.llama_server` prints where it lies.

It is built from the very source that the installed llama-cpp-python was made from, which its source distribution holds,
with the same compiler, build type and GGML options: what then differs between it and our engine is the server alone.
The build needs cmake and a C++ compiler, minutes, and the network for the source distribution only.
"""

import hashlib
import json
import os
import platform
import shlex
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from benchmarks.environment import num_cores
from benchmarks.peer_launch import BINDING, PeerError, binding

_RECIPE = 1  # raise it when the way of building changes what comes out
# As llama-cpp-python builds its library: shared, optimised, for this very CPU (GGML_NATIVE is on by default).
_AS_OURS = ("CMAKE_BUILD_TYPE=Release", "BUILD_SHARED_LIBS=ON", "GGML_CCACHE=OFF", "LLAMA_OPENSSL=OFF")
_SERVER_ONLY = (
    "LLAMA_BUILD_SERVER=ON",
    "LLAMA_BUILD_TESTS=OFF",
    "LLAMA_BUILD_EXAMPLES=OFF",
    "LLAMA_BUILD_APP=OFF",
    # Its web page would be downloaded, or built with npm.
    "LLAMA_BUILD_UI=OFF",
    "LLAMA_USE_PREBUILT_UI=OFF",
)
# The libraries lie beside the binary and are found there after the folder has been moved.
_MOVABLE = ("CMAKE_BUILD_WITH_INSTALL_RPATH=ON", "CMAKE_INSTALL_RPATH=$ORIGIN")
_GPU = {"ggml-cuda": "GGML_CUDA=ON", "ggml-vulkan": "GGML_VULKAN=ON", "ggml-hip": "GGML_HIP=ON"}
_BUILD_VARIABLES = ("CC", "CXX", "CFLAGS", "CXXFLAGS", "CUDAARCHS", "CMAKE_ARGS")

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Recipe:
    """All that the binary depends on."""

    version: str
    """Of llama-cpp-python."""
    gpu_defines: tuple[str, ...] = ()

    @classmethod
    def of_installed(cls) -> "Recipe":
        """What the engine in this environment runs on. Raises PeerError."""
        package = binding()
        files = {file.name for file in package.files or ()}
        gpus = (define for name, define in _GPU.items() if any(file.startswith(f"lib{name}.") for file in files))
        return cls(package.version, tuple(gpus))

    def configuration(self, environment: Mapping[str, str]) -> list[str]:
        """cmake's words; CMAKE_ARGS comes last, as in llama-cpp-python's own build."""
        # Without these it takes them from whatever git repository encloses the folder.
        names = (f"LLAMA_BUILD_COMMIT={BINDING}-{self.version}", "LLAMA_BUILD_NUMBER=0")
        defines = (*_AS_OURS, *_SERVER_ONLY, *_MOVABLE, *names, *self.gpu_defines)
        return [*(f"-D{define}" for define in defines), *shlex.split(environment.get("CMAKE_ARGS", ""))]

    def folder_name(self, environment: Mapping[str, str]) -> str:
        """Another for every CPU: a binary made for one may die with an illegal instruction on the next."""
        variables = {name: environment.get(name, "") for name in _BUILD_VARIABLES}
        machine = [platform.machine(), *platform.libc_ver(), _cpu_features()]
        parts = [_RECIPE, self.version, self.configuration(environment), variables, machine]
        return f"llama-server-{self.version}-{hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]}"


def ensure(say: Say) -> Path:
    """The binary, built if it is not there yet. Raises PeerError."""
    recipe = Recipe.of_installed()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "forgegate"
    folder = cache / recipe.folder_name(os.environ)
    binary = folder / "llama-server"
    if not binary.exists():
        say(f"building {folder} from the source of {BINDING} {recipe.version} (this takes minutes)")
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f"{folder.name}.building-", dir=cache) as work:
            made = _build(recipe, Path(work))
            if not binary.exists():  # another run may have been quicker
                made.rename(folder)
    return binary


def _build(recipe: Recipe, work: Path) -> Path:
    """The folder under `work` that holds the binary and its libraries. Raises PeerError."""
    missing = [tool for tool in ("cmake", os.environ.get("CXX", "c++").split()[0]) if not shutil.which(tool)]
    if missing:
        raise PeerError(f"building llama-server needs {missing[0]}: install it, or give --llama-server PATH")
    generator = ("-G", "Ninja") if shutil.which("ninja") else ()
    source, made = _source(recipe.version, work), work / "build"
    configure = ("cmake", "-S", str(source), "-B", str(made), *generator, *recipe.configuration(os.environ))
    _run(configure, work)
    _run(("cmake", "--build", str(made), "--target", "llama-server", "--parallel", str(num_cores())), work)
    return made / "bin"


def _source(version: str, work: Path) -> Path:
    """llama.cpp's folder in the unpacked source distribution. Raises PeerError."""
    pip = (sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input")
    _run((*pip, f"{BINDING}=={version}", "--no-deps", "--no-binary", BINDING, "--dest", str(work / "sdist")), work)
    with tarfile.open(next((work / "sdist").glob("*.tar.gz"))) as archive:
        archive.extractall(work / "sdist", filter="data")
    return next((work / "sdist").glob("*/vendor/llama.cpp"))


def _run(argv: Sequence[str], work: Path) -> None:
    """Run a step to its end, in a process group that ends with it. Raises PeerError with its last lines."""
    environment = {**os.environ, "TMPDIR": str(work)}
    if nvcc := shutil.which("nvcc", path=f"{os.environ.get('PATH', '')}:/usr/local/cuda/bin"):
        environment.setdefault("CUDACXX", nvcc)
    with (work / "log").open("w+b") as log:
        child = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, start_new_session=True
        )
        try:
            code = child.wait()
        finally:  # ninja ends its compilers on SIGTERM
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGTERM)
            child.wait()
        log.seek(0)
        lines = log.read().decode("utf-8", "replace").splitlines()
    if code:
        errors = [line for line in lines if "error" in line.lower()][:10] or lines[-10:]
        raise PeerError(
            "\n".join([f"building llama-server failed at {' '.join(argv[:3])} (exit code {code})", *errors])
        )


def _cpu_features() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
            name, _, value = line.partition(":")
            if name.strip() in ("flags", "Features"):
                return " ".join(sorted(value.split()))
    return platform.processor()


def main() -> int:
    """The exit code: 0 done, 3 it cannot be built here."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        print(ensure(lambda line: print(line, file=sys.stderr, flush=True)))
    except PeerError as exc:
        print(f"error: {exc}", file=sys.stderr)
        return 3
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
