"""From the last lines of a vLLM that ended before it was ready to the reason, and what mends it. Pure, but for `who`."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from backends.base import StartFailure
from backends.vllm.causes import CAUSES

Who = Callable[[frozenset[int]], str]
"""Who holds GPU memory now, in words, leaving out these processes; empty where nobody does, or it is not known."""

_HEAD = re.compile(r"^\((?P<name>\S+) pid=(?P<pid>\d+)\) ?")
_LOGGED = re.compile(r"^(?P<level>DEBUG|INFO|WARNING|ERROR|CRITICAL) \d\d-\d\d \d\d:\d\d:\d\d \[[^\]]*\] ?")
_CODE = re.compile(r"  File \"|    ")
"""Of tracebacks: the source of a message is not the message."""
_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_GIB, _SIZE = r"([\d.]+)", r"[\d.]+ [KMG]iB"
_AT_START = re.compile(
    rf"Free memory on device (?P<device>\S+) \({_GIB}/{_GIB} GiB\) on startup is less than (?:desired GPU memory utilization|the engine's "
    rf"budget[^(]*) ?\({_GIB}, {_GIB} GiB\)"
)
_ALLOCATING = re.compile(
    rf"CUDA out of memory\. Tried to allocate (?P<tried>{_SIZE})\. GPU (?P<device>\d+) has a total capacity of (?P<total>{_SIZE}) "
    rf"of which (?P<free>{_SIZE}) is free\.(?:[^\n]*?this process has (?P<own>{_SIZE}) memory in use)?"
)
_KV_TOO_SMALL = re.compile(
    rf"max seq len \((?P<asked>\d+)\), \({_GIB} GiB KV cache is needed, which is larger than the available KV cache memory \({_GIB} GiB\)\."
    r"(?: Based on the available memory, the estimated maximum model length is (?P<fits>\d+))?"
)
_NO_KV = re.compile(r"No available memory for the cache blocks")
_SHRANK = re.compile(r"Error in memory profiling\. Initial free memory")
_RAM = re.compile(
    rf"Available memory on node \d+ \({_GIB}/{_GIB} GiB\) on (?:kv cache allocation|startup) is less than (?:requested memory for kv"
    rf"|desired CPU memory utilization) \((?:[\d.]+, )?{_GIB}"
)
_RAM_REFUSED = re.compile(
    r"DefaultCPUAllocator: (?:can't allocate memory|not enough memory)[^\n]*?(?P<bytes>\d+) bytes"
)
_FIELD = re.compile(
    r"validation errors? for (?P<config>\w+)\n(?P<field>[\w.]+)\n\s+(?P<why>[^\n]+?) \[type=\w+, input_value=(?P<value>[^\n]+?), input_type"
)
_VALUE = re.compile(r"^\s*Value error, (?P<why>.+?)(?: \[type=\w+, input_value=|$)", re.MULTILINE)
_ERROR = re.compile(r"^(?P<kind>(?:\w+\.)*\w*(?:Error|Exception)): (?P<why>\S[^\n]*)$", re.MULTILINE)
_WRAPPERS = (
    "Engine core initialization failed",
    "WorkerProc initialization failed",
    "Frontend process failed",
    "EngineCore encountered an issue",
)
"""Messages of processes about another one, which said why."""
_VANISHED = re.compile("|".join(_WRAPPERS))
_OTHERS_GIB = 2.0
"""More in use than the driver itself takes: somebody else holds it, even where the driver does not tell who."""
_UNITS = {"KiB": 2.0**-20, "MiB": 2.0**-10, "GiB": 1.0}
_MAX_CHARS = 380
"""Of a reason: whoever wants more reads the log."""


def nobody(own: frozenset[int]) -> str:
    return ""


def explain(lines: Sequence[str], who: Who = nobody) -> StartFailure | None:
    """None where the lines do not tell."""
    said = (_plain(line) for line in lines if not _is_chatter(line))
    text = "\n".join(line for line in said if not _CODE.match(line))
    return _memory(text, who, own_pids(lines)) or _known(text) or _unknown(text)


def own_pids(lines: Sequence[str]) -> frozenset[int]:
    """The engine's processes, which may still be ending."""
    return frozenset(int(found["pid"]) for line in lines if (found := _HEAD.match(_ANSI.sub("", line))))


def _plain(line: str) -> str:
    return _LOGGED.sub("", _HEAD.sub("", _ANSI.sub("", line)))


def _is_chatter(line: str) -> bool:
    """Whatever options are called, they are not errors."""
    logged = _LOGGED.match(_HEAD.sub("", _ANSI.sub("", line)))
    return logged is not None and logged["level"] in ("DEBUG", "INFO", "WARNING")


def _known(text: str) -> StartFailure | None:
    for cause in CAUSES:
        if found := cause.pattern.search(text):
            return StartFailure(_short(cause.words(found)), cause.is_final)
    return None


def _unknown(text: str) -> StartFailure | None:
    """In vLLM's own words: of its configuration, else of the last process that had some."""
    if found := _FIELD.search(text):
        why = found["why"].removeprefix("Value error, ")
        return StartFailure(f"{found['field']} cannot be {found['value']}: {why[:1].lower()}{why[1:]}", is_final=True)
    if found := _VALUE.search(text):
        return StartFailure(f"vLLM refuses its configuration: {_short(found['why'])}", is_final=True)
    errors = [found for found in _ERROR.finditer(text) if not found["why"].startswith(_WRAPPERS)]
    if errors:
        kind = errors[-1]["kind"].rpartition(".")[2]
        return StartFailure(f"vLLM did not start: {kind}: {_short(errors[-1]['why'])}", is_final=False)
    if _VANISHED.search(text):
        return StartFailure(
            "a process of vLLM ended without a word, as when the RAM runs out (`dmesg` tells)", is_final=False
        )
    return None


def _short(words: str) -> str:
    return words if len(words) <= _MAX_CHARS else f"{words[:_MAX_CHARS]}..."


# Memory ---------------------------------------------------------------------------------------------------------------


def _memory(text: str, who: Who, own: frozenset[int]) -> StartFailure | None:
    for pattern, judge in _JUDGES:
        if found := pattern.search(text):
            return judge(found, who(own) if pattern in (_AT_START, _ALLOCATING, _NO_KV, _KV_TOO_SMALL) else "")
    return None


def _at_start(found: re.Match[str], holders: str) -> StartFailure:
    free, total, share, wanted = (float(found[group]) for group in (2, 3, 4, 5))
    fits = int(free / total * 100) / 100 if total else 0.0
    less = f"lower gpu_memory_utilization to {fits:g}" if fits >= 0.05 else "free some of it"
    return StartFailure(
        f"out of GPU memory: {free:g} of {total:g} GiB are free on {found['device']}, gpu_memory_utilization {share:g} asks for {wanted:g}"
        f"{_held(holders)}; {less}, or stop what else runs there",
        is_final=not holders and total - free < _OTHERS_GIB,
    )


def _allocating(found: re.Match[str], holders: str) -> StartFailure:
    total, free, own = (_gib(found[group]) for group in ("total", "free", "own"))
    return StartFailure(
        f"out of GPU memory: {found['tried']} more were wanted on GPU {found['device']}, {found['free']} of {found['total']} were free"
        f"{_held(holders)}; lower max_model_len, max_num_seqs or gpu_memory_utilization, raise tensor_parallel_size, take a quantised "
        "model, or stop what else runs there",
        is_final=not holders and (not found["own"] or total - free - own < _OTHERS_GIB),
    )


def _no_kv(found: re.Match[str], holders: str) -> StartFailure:
    return StartFailure(
        f"the weights leave no memory for the KV cache{_held(holders)}: raise gpu_memory_utilization or tensor_parallel_size (on a CPU "
        "cpu_kv_cache_gib), or take a smaller or quantised model",
        is_final=not holders,
    )


def _kv_too_small(found: re.Match[str], holders: str) -> StartFailure:
    needed, there = found[2], found[3]
    fits = f"lower max_model_len to {found['fits']}" if found["fits"] else "lower max_model_len"
    return StartFailure(
        f"one request of {found['asked']} tokens needs {needed} GiB of KV cache, and there are {there}{_held(holders)}: {fits}, or raise "
        "gpu_memory_utilization (on a CPU cpu_kv_cache_gib)",
        is_final=not holders,
    )


def _shrank(found: re.Match[str], holders: str) -> StartFailure:
    return StartFailure(
        "another process gave GPU memory back while vLLM measured what is free: start it when nothing else starts or ends on that GPU",
        is_final=False,
    )


def _ram(found: re.Match[str], holders: str) -> StartFailure:
    free, total, wanted = (float(found[group]) for group in (1, 2, 3))
    return StartFailure(
        f"out of RAM: {wanted:g} GiB are wanted, {free:g} of {total:g} are free: lower cpu_kv_cache_gib, take a smaller model, or stop "
        "what else runs here",
        is_final=wanted > total,
    )


def _ram_refused(found: re.Match[str], holders: str) -> StartFailure:
    return StartFailure(
        f"out of RAM: {int(found['bytes']) / 2**30:.1f} GiB more were wanted: lower cpu_kv_cache_gib, take a smaller model, or stop "
        "what else runs here",
        is_final=False,
    )


def _held(holders: str) -> str:
    return f" (held by {holders})" if holders else ""


def _gib(words: str | None) -> float:
    number, _, unit = (words or "0 GiB").partition(" ")
    return float(number) * _UNITS[unit]


_JUDGES: tuple[tuple[re.Pattern[str], Callable[[re.Match[str], str], StartFailure]], ...] = (
    (_AT_START, _at_start),
    (_ALLOCATING, _allocating),
    (_KV_TOO_SMALL, _kv_too_small),
    (_NO_KV, _no_kv),
    (_SHRANK, _shrank),
    (_RAM, _ram),
    (_RAM_REFUSED, _ram_refused),
)
