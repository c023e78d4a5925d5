"""What a line of vLLM's output says of its start: the phases of 0.26 and 0.32, on CPUs and GPUs. Pure."""

from __future__ import annotations

import re

_BAR = r"\D*(?P<done>\d+)/(?P<all>\d+) \["
_PHASES: tuple[tuple[re.Pattern[str], str, str], ...] = tuple(
    (re.compile(pattern), words, counted)
    for pattern, words, counted in (
        (rf"Capturing CUDA graphs \([^)]*\): +\d+%{_BAR}", "capturing CUDA graphs", "{done} of {all}"),
        (rf"(?:checkpoint shards|Multi-thread loading shards): +\d+%{_BAR}", "loading weights", "{done} of {all} files"),
        (r"Loading safetensors using [^:]+: +(?P<done>\d+)%", "loading weights", "{done} %"),
        (rf"Fetching \d+ files: +\d+%{_BAR}", "downloading the model", "{done} of {all} files"),
        (rf"JIT kernel warmup \(\d+ compile keys\): +\d+%{_BAR}", "compiling kernels", "{done} of {all}"),
        (rf"(?:Compiling CuTeDSL kernels|DeepGEMM warmup): +\d+%{_BAR}", "compiling kernels", "{done} of {all}"),
        (r"Resolved architecture: ", "reading the configuration", ""),
        (r"Initializing a V1 LLM engine", "starting the engine's processes", ""),
        (r"Starting to load model |Loading model from scratch", "loading weights", ""),
        (r"Loading drafter model", "loading the draft model", ""),
        (r"Directly load (?:AOT compilation|the compiled graph)", "loading the code that an earlier start compiled", ""),
        (r"Starting torch\.compile|for vLLM's torch\.compile$|Dynamo bytecode transform time|Compiling model again"
         r"|(?:Cache the|Compiling a) graph (?:of|for) compile range|Warming up model for the compilation", "compiling", ""),
        (r"Initial profiling/warmup run took", "measuring the memory that is left", ""),
        (r"Available KV cache memory|GPU KV cache size|CPU KV cache size|GiB for KV cache on node", "allocating the KV cache", ""),
        (r"Profiling CUDA graph memory|Graph capturing finished", "capturing CUDA graphs", ""),
        (r"\bWarming up \w|JIT kernel warmup starting", "warming up", ""),
        (r"Supported tasks: |Starting vLLM (?:API )?server|Waiting for application startup", "opening the server", ""),
    )
)  # fmt: skip
_ANSI = re.compile(r"\x1b\[[0-9;]*m")


def progress(line: str) -> str:
    """`loading weights, 3 of 4 files`; empty where the line says nothing of it."""
    text = _ANSI.sub("", line)
    for pattern, words, counted in _PHASES:
        if found := pattern.search(text):
            return f"{words}, {counted.format_map(found.groupdict())}" if counted else words
    return ""
