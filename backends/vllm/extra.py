"""Flags that a pool gives word by word (`extra_args`): known to the installed vLLM, and none that is forgegate's or an option. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from backends.vllm.installed import Installed, split
from backends.vllm.spellings import explanation

_ADDRESS = "forgegate chooses where an engine listens"
_SECRET = "engines answer to forgegate alone; clients' keys and certificates are the gateway's"
_LOG = "forgegate reads an engine's log as vLLM writes it by default"
_NODES = "forgegate starts engines on this machine only"
RESERVED = {
    "--help": "it prints help and ends",
    "--config": "it would hide flags in a file; write them under `options:`",
    "--model": "it is the pool's `model:`",
    "--revision": "it is part of the pool's `model:`, ORG/NAME@REVISION",
    "--served-model-name": "it is the model's `name:`",
    "--host": _ADDRESS,
    "--port": _ADDRESS,
    "--uds": _ADDRESS,
    "--grpc": _ADDRESS,
    "--grpc-port": _ADDRESS,
    "--root-path": _ADDRESS,
    "--headless": "an engine without an API cannot be served",
    "--tokens-only": "an engine without a chat API cannot be served",
    "--api-server-count": "one process serves an engine's API; take more `replicas:`",
    "--api-key": _SECRET,
    "--middleware": "forgegate's own guard is there",
    "--ssl-keyfile": _SECRET,
    "--ssl-certfile": _SECRET,
    "--ssl-ca-certs": _SECRET,
    "--ssl-cert-reqs": _SECRET,
    "--ssl-ciphers": _SECRET,
    "--enable-ssl-refresh": _SECRET,
    "--lora-modules": "adapters are published: forgegate adapters publish DIRECTORY --name NAME",
    "--enable-auto-tool-choice": "it follows from tool_call_parser",
    "--disable-log-stats": "forgegate reads load and speculation from the engine's metrics",
    "--uvicorn-log-level": _LOG,
    "--disable-uvicorn-access-log": "forgegate sets it",
    "--shutdown-timeout": "forgegate sets it",
    "--disable-access-log-for-endpoints": "forgegate turns the engine's access log off",
    "--log-level": _LOG,
    "--log-config-file": _LOG,
    "--logging-config": _LOG,
    "--nnodes": _NODES,
    "--node-rank": _NODES,
    "--master-addr": _NODES,
    "--master-port": _NODES,
    "--data-parallel-rank": _NODES,
    "--data-parallel-start-rank": _NODES,
    "--data-parallel-size-local": _NODES,
    "--data-parallel-address": _NODES,
    "--data-parallel-rpc-port": _NODES,
    "--data-parallel-hybrid-lb": _NODES,
    "--data-parallel-external-lb": _NODES,
    "--data-parallel-multi-port-external-lb": _NODES,
    "--data-parallel-supervisor-port": _NODES,
    "--spec-method": "write it under `options:`, as speculative.method",
    "--spec-model": "write it under `options:`, as speculative.model",
    "--spec-tokens": "write it under `options:`, as speculative.num_speculative_tokens",
    "--cudagraph-capture-sizes": "write it under `options:`, as compilation.cudagraph_capture_sizes",
    "--max-cudagraph-capture-size": "write it under `options:`, as compilation.max_cudagraph_capture_size",
}
"""Flags that are refused, and why."""
ON_CPU = {"--kv-cache-memory-bytes": "vLLM on the CPU takes no notice of it; write cpu_kv_cache_gib"}


def problems(words: Sequence[str], installed: Installed) -> Iterator[str]:
    """What is wrong with these words, one sentence each."""
    seen: set[str] = set()
    for name, values in split(words):
        if not name:
            yield f"extra_args: {' '.join(values)!r} follows no flag"
            continue
        whole, _, key = name.partition(".")  # --hf-overrides.key VALUE is vLLM's way to write one key of a JSON flag
        flag = canonical(whole, installed)
        text = _refusal(flag, installed) or _fault(flag, key, values, installed)
        if not text and not key and flag in seen:
            text = "given twice"
        if text:
            yield f"extra_args: {name}: {text}"
        seen.add(flag)


def canonical(flag: str, installed: Installed) -> str:
    """`-tp`, `--tensor_parallel_size` and `--no-...` as the parser's long name for it; as it is where it is unknown."""
    spelled = flag.replace("_", "-") if flag.startswith("--") else flag
    known = installed.flags.get(spelled)
    return next((name for name in known.names if name.startswith("--")), spelled) if known else spelled


def _refusal(flag: str, installed: Installed) -> str:
    """Why it is not for `extra_args`."""
    options = {taken: option for option, taken in installed.table.flags.items()}
    if flag in options:
        return f"write it under `options:`, as {options[flag]}"
    if flag.startswith("-O"):
        return "write it under `options:`, as optimization_level"
    return RESERVED.get(flag, "") or (ON_CPU.get(flag, "") if installed.is_cpu else "")


def _fault(flag: str, key: str, values: Sequence[str], installed: Installed) -> str:
    """What the parser would say of it."""
    if " " in flag:
        return f"write each word apart: [{', '.join(map(json.dumps, flag.split()))}]"
    if flag in installed.flags and key:
        return "" if values else "needs a value"
    return (flag not in installed.flags and explanation(flag)) or installed.fault(flag, values)
