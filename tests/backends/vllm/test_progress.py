from __future__ import annotations

import re
from pathlib import Path

import pytest

from backends.logring import LogRing
from backends.vllm.progress import progress

LOGS = Path(__file__).parent / "logs"
CAPTURING = (
    "\rCapturing CUDA graphs (mixed prefill-decode, PIECEWISE):   0%|          | 0/35 [00:00<?, ?it/s]"
    "\rCapturing CUDA graphs (mixed prefill-decode, PIECEWISE):  34%|███▍      | 12/35 [00:01<00:02,  8.31it/s]"
)


def told(lines: list[str]) -> list[str]:
    """What a user sees one after the other."""
    shown = [words for line in lines if (words := progress(line))]
    return [words for before, words in zip(["", *shown], shown, strict=False) if words != before]


def test_a_start_on_cpu() -> None:
    """Recorded: vLLM 0.32, the demo model with its draft."""
    assert told((LOGS / "ready-cpu-0.32.txt").read_text().splitlines()) == [
        "reading the configuration",
        "starting the engine's processes",
        "loading weights",
        "loading weights, 0 of 1 files",
        "loading weights, 1 of 1 files",
        "loading the draft model",
        "loading weights, 0 of 1 files",
        "loading weights, 1 of 1 files",
        "allocating the KV cache",
        "opening the server",
    ]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (CAPTURING.rpartition("\r")[2], "capturing CUDA graphs, 12 of 35"),
        ("Capturing CUDA graphs (decode, FULL): 100%|██████████| 35/35 [00:03<00:00, 10.0it/s]", "capturing CUDA graphs, 35 of 35"),
        ("Loading pt checkpoint shards:  50% Completed | 1/2 [00:01<00:01,  1.20s/it]", "loading weights, 1 of 2 files"),
        ("Multi-thread loading shards:  75% Completed | 3/4 [00:01<00:01,  1.20s/it]", "loading weights, 3 of 4 files"),
        ("Loading safetensors using Runai Model Streamer:  34% Completed | 99/291 [00:01<00:01, 60it/s]", "loading weights, 34 %"),
        ("Fetching 4 files:  25%|██▌       | 1/4 [00:00<00:02,  1.2it/s]", "downloading the model, 1 of 4 files"),
        ("(EngineCore pid=1) INFO 11-30 00:24:10 [backends.py:1095] Using cache directory: /c/x for vLLM's torch.compile", "compiling"),
        ("(EngineCore pid=1) INFO 11-30 00:24:10 [backends.py:1156] Dynamo bytecode transform time: 5.40 s", "compiling"),
        ("INFO 11-30 00:24:10 [backends.py:379] Cache the graph of compile range (1, 8192) for later use", "compiling"),
        ("INFO 11-30 00:24:10 [backends.py:293] Directly load the compiled graph(s) for compile range (1, 8) from the cache, took 1.2 s",
         "loading the code that an earlier start compiled"),
        ("INFO 11-30 00:24:10 [monitor.py:82] Initial profiling/warmup run took 0.50 s", "measuring the memory that is left"),
        ("\x1b[0;36m(EngineCore pid=1)\x1b[0;0m INFO 11-30 00:24:10 [gpu_worker.py:561] Available KV cache memory: 20.5 GiB",
         "allocating the KV cache"),
        ("INFO 11-30 00:24:10 [kv_cache_utils.py:2177] GPU KV cache size: 131,072 tokens", "allocating the KV cache"),
        ("INFO 11-30 00:24:10 [gpu_model_runner.py:6845] Graph capturing finished in 4 secs, took 0.60 GiB", "capturing CUDA graphs"),
        ("INFO 11-30 00:24:10 [kernel_warmup.py:147] Warming up FlashInfer attention.", "warming up"),
        ("INFO:     127.0.0.1:47600 - \"GET /health HTTP/1.1\" 200 OK", ""),
        ("Capturing CUDA graphs (decode, FULL):  34%|██", ""),
        ("", ""),
    ],
)  # fmt: skip
def test_phases(line: str, words: str) -> None:
    assert progress(line) == words


def test_graphs_are_counted_while_their_bar_is_drawn() -> None:
    """It is one line until it is complete."""
    ring, heard = LogRing(), list[str]()
    ring.on_line = heard.append
    for state in re.split(r"(?=\r)", CAPTURING)[1:]:
        ring.feed(state.encode())
    assert told(heard) == ["capturing CUDA graphs, 0 of 35", "capturing CUDA graphs, 12 of 35"]
