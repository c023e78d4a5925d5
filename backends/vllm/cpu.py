"""What makes vLLM fast on a CPU, in the environment of its start. The user's own variables go before.

Intel's OpenMP and tcmalloc before all other libraries, where its environment has them: vLLM's documentation asks for it, and warns where
speculation runs without the former. Threads stay bound as vLLM does it (`VLLM_CPU_OMP_THREADS_BIND=auto`: one core is left to the API
server), and types as the checkpoint says. But replicas are not bound: `auto` takes the same cores for each engine of a machine. On 2 cores
the worker of one that started got 0.3 s of CPU in 85 s, beside one that was busy on the core that both were bound to.

Seen on 2 cores with AVX2 and other work on the machine (+-20 %), demo model, output tok/s at 1 and at 8 streams, seconds of a prompt:
    as vLLM starts by itself          277 to 358    1,612 to 1,876    0.053
    Intel's OpenMP                    308           1,886             0.057
    the same, threads not bound       250           1,621             0.065
    the same, bound to both cores     342 to 354    1,241 to 1,961    0.091
    the same, float32                 268           1,338             0.133
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

PRELOAD, BIND = "LD_PRELOAD", "VLLM_CPU_OMP_THREADS_BIND"
IOMP = "libiomp5.so"
TCMALLOC = ("libtcmalloc_minimal.so.4", "libtcmalloc.so.4")


def fast_env(python: str, environ: Mapping[str, str], num_engines: int = 1) -> dict[str, str]:
    """`python`: the interpreter that runs vLLM, as a command names it; `num_engines` side by side."""
    found = preloads(python)
    env = {PRELOAD: ":".join(map(str, found))} if found and not environ.get(PRELOAD) else {}
    return env | ({BIND: "nobind"} if num_engines > 1 and BIND not in environ else {})


def preloads(python: str) -> list[Path]:
    """Libraries of its environment that should be loaded before all others."""
    path = shutil.which(python)
    if path is None:
        return []
    lib = Path(path).parent.parent / "lib"
    malloc = next((lib / name for name in TCMALLOC if (lib / name).exists()), None)
    return [library for library in (malloc, lib / IOMP) if library is not None and library.exists()]
