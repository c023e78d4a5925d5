"""The GPU campaign for people: Markdown of its result file."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from benchmarks import cold_adapters, loaded_flips, over_direct
from benchmarks.vllm_gpu_parts import PARTS

Found = Mapping[str, Any]


def markdown(result: Found) -> list[str]:
    """Every part that was measured, and the conditions of all."""
    machine, gpu, parts = result["environment"], result["gpu"], result["parts"]
    where = f"One {gpu['name']}, driver {gpu['driver']}" if gpu else f"{machine['cpu']}, {machine['cores']} cores"
    engine = next((part["engine"] for part in parts.values() if part.get("engine")), "vLLM")
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    lines = [
        f"{where}; {engine}, model `{result['plan']['model']}`, LoRA on; {machine['date']}.",
        *([f"Beside forgegate: {versions}."] if versions else []),
    ]
    for name, title, body in _SECTIONS:
        part = parts.get(name)
        if part is not None:
            told = [f"Not measured: {part['error']}"] if "error" in part else _told(part, body)
            lines += ["", f"## {title}", "", *told]
    return [*lines, *_conditions(parts)]


def _told(part: Found, body: Callable[[Found], list[str]]) -> list[str]:
    return [f"Left out: {part['skipped']}."] if "skipped" in part else body(part)


def _conditions(parts: Mapping[str, Found]) -> Iterator[str]:
    yield from ("", "| part | condition | held | found |", "|---|---|---|---|")
    for name, part in parts.items():
        for check in part["checks"]:
            yield f"| {name} | {check['name']} | {'yes' if check['is_met'] else '**no**'} | {check['found'][:300]} |"


def _start(part: Found) -> list[str]:
    start = part["start"]
    lines = [
        f"Ready after {start['ready_s']} s.",
        "",
        "| s | state | what `forgegate engines list` says |",
        "|--:|---|---|",
    ]
    lines += [f"| {seen['at_s']:.1f} | {seen['state']} | {seen['detail']} |" for seen in start["seen"]]
    error = start["retry_after_error_s"]
    if error:
        lines += ["", f"`retry-after` of {start['num_answers']} requests meanwhile, less what was left: median {error['median']:+.1f} s "
                      f"({error['min']:+.1f} to {error['max']:+.1f})."]  # fmt: skip
    return lines


def _throughput(part: Found) -> list[str]:
    num_in, num_out = part["tokens"]
    return [f"{num_in} tokens in, {num_out} out.", "", *over_direct.table(part["levels"])]


def _load(part: Found) -> list[str]:
    return cold_adapters.table("version without a reference: loaded, not proven", part["cold"])


def _proof(part: Found) -> list[str]:
    spent, proof = part["publication"]["seconds"], part["proof_s"]
    stages = ", ".join(f"{stage} {seconds:.1f} s" for stage, seconds in spent.items())
    return [
        f"Published as {part['publication']['proof']}: {stages}.", "",
        f"Its proof takes {proof['median']:.2f} s beside the load ({proof['min']:.2f} - {proof['max']:.2f}).", "",
        *cold_adapters.table("version with a reference: loaded and proven", part["cold"]),
    ]  # fmt: skip


def _sleep(part: Found) -> list[str]:
    rows = [
        f"| {level['level']} | {level['sleep_s']:.2f} | {level['used_before_mib']:,} | {level['used_asleep_mib']:,} | "
        f"{level['wake_s']:.2f} | {level['from_wake_to_first_text_s']:.2f} |"
        for level in part["levels"]
    ]
    return [
        "| level | falls asleep, s | MiB used before | asleep | wakes, s | from the wake command to an answer by the alias, s |",
        "|--:|--:|--:|--:|--:|--:|",
        *rows,
    ]


def _out_of_memory(part: Found) -> list[str]:
    seen = [f"| {seen['at_s']:.1f} | {seen['state']} | {seen['detail']} |" for seen in part["seen"]]
    answer = part["answer"]
    said = (
        f"The client got {answer['status']} after {answer['took_s']} s: {answer['message']}" if answer else "No answer."
    )
    return [
        f"Process {part['hog_pid']} held the memory.",
        "",
        "| s | state | what it says |",
        "|--:|---|---|",
        *seen,
        "",
        said,
    ]


def _release(part: Found) -> list[str]:
    start, answer = part["second_start"], part["answer"]
    return [
        f"{part['before_mib']:,} MiB used; the first engine gave back {part['freed_mib']:,}; the second one, asked for then, was ready "
        f"after {start['ready_s']} s and its request answered with {answer['status']} after {answer['took_s']} s; stopped within "
        f"{part['drain_s']} s it left {part['after_mib']:,} MiB used."
    ]


def _restart(part: Found) -> list[str]:
    return [f"The new process began {part['spawned_s']} s after the command.", "", *_start(part)]


_MEASURED: dict[str, Callable[[Found], list[str]]] = {
    "throughput": _throughput, "load": _load, "flips": loaded_flips.table, "sleep": _sleep, "out_of_memory": _out_of_memory,
    "proof": _proof, "release": _release, "restart": _restart,
}  # fmt: skip
_SECTIONS = (
    ("start", "First start", _start),
    ("later_start", "A later start", _start),
    *((part.name, part.title, _MEASURED[part.name]) for part in PARTS),
)
