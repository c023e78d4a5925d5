"""Why starts failed: recorded outputs of real failed starts on a CPU, and for GPUs the messages as vLLM's and torch's sources have them."""

from __future__ import annotations

from pathlib import Path

import pytest

from backends.base import StartFailure
from backends.vllm.diagnosis import explain, own_pids

LOGS = Path(__file__).parent / "logs"
HEAD = "(EngineCore pid=77) ERROR 11-30 00:24:10 [core.py:1180] "


def recorded(name: str) -> list[str]:
    return (LOGS / f"{name}.txt").read_text().splitlines()


def told(*lines: str, holders: str = "") -> StartFailure:
    """Of a start that ended with these lines, after those that always come."""
    failure = explain([*recorded("ready-cpu-0.32")[:12], *lines, *WRAPPED], lambda own: holders)
    assert failure is not None
    return failure


WRAPPED = (
    "(APIServer pid=70) Traceback (most recent call last):",
    '(APIServer pid=70)   File "/env/site-packages/vllm/v1/engine/utils.py", line 1431, in wait_for_engine_startup',
    "(APIServer pid=70)     raise RuntimeError(",
    "(APIServer pid=70) RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {'EngineCore': 1}",
)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("unknown-flag", "this vLLM knows no --frobnicate"),
        ("unknown-choice", "--dtype cannot be float17; it is one of: auto, bfloat16, float, float16, float32, half"),
        ("out-of-range", "gpu_memory_utilization cannot be 1.5: input should be less than or equal to 1"),
        ("no-model", "there is no model /no/such/model: it is neither a folder of this machine nor a name on the hub"),
        (
            "not-in-cache",
            "not on this machine, and vLLM may not ask the hub for it: fetch it first with `forgegate models pull`",
        ),
        ("damaged-config", "/models/badjson/config.json is damaged: it is not valid JSON"),
        ("no-config", "/models/noconfig is no model that vLLM can read: it has no config.json"),
        ("too-long", "max_model_len 100000 is more than the model was made for (2048 tokens)"),
        ("unknown-architecture", "cannot run models of the architecture FrobnicateForCausalLM"),
        ("unknown-model-type", "knows no model of type frobnicate"),
        ("remote-code", "read that code, then set `trust_remote_code: true`"),
        ("unknown-quantization", "knows no quantization frob; it is one of: awq, auto_awq, fp8, "),
        ("not-quantised", "the model is not quantised by awq"),
        ("not-json", "--speculative-config/-sc needs JSON, got {method: ngram"),
        ("unknown-lora-rank", "--max-lora-rank cannot be 7; it is one of: 1, 8, 16, 32, 64, 128, 256, 320, 512"),
        ("no-chat-template", "there is no chat template /no/such/template.jinja"),
        ("unknown-tool-parser", "vLLM has no tool_call_parser frob; it is one of: apertus, "),
        ("unknown-reasoning-parser", "vLLM has no reasoning_parser frob; it is one of: cohere_command3, "),
        ("tool-choice-without-parser", "set `tool_call_parser`"),
        ("no-tokenizer", "holds no tokenizer that can be read (tokenizer.json or tokenizer.model)"),
        ("draft-vocabulary", "the draft model has another vocabulary (3996 tokens) than the model (4096)"),
        ("no-draft", "there is no model /no/such/draft"),
        (
            "cut-weights",
            "a weights file is damaged or cut short (Error while deserializing header: incomplete metadata",
        ),
        ("damaged-weights", "a weights file is damaged"),
        ("no-weights", "/models/noweights holds no weights (*.safetensors, *.bin)"),
        ("other-shape", "the weights do not fit config.json (a tensor has 768 rows where 832 belong)"),
        (
            "missing-weights",
            "the weights do not fit config.json, some are missing ('model.layers.8.post_attention_layernorm.weight'",
        ),
        ("gated", "accept them on its page, then set HF_TOKEN"),
        ("not-on-the-hub", "the hub has no such model, or not for you"),
        ("little-ram", "out of RAM: 1000 GiB are wanted, 15.55 of 17.09 are free: lower cpu_kv_cache_gib"),
        ("no-kv-cache", "the weights leave no memory for the KV cache: raise gpu_memory_utilization"),
        ("sleep-on-cpu", "sleep_mode needs an NVIDIA GPU: leave it out"),
        ("other-quantization", "the weights do not fit config.json (no place for layers.0.mlp.down_proj.weight)"),
    ],
)
def test_recorded_starts(name: str, words: str) -> None:
    failure = explain(recorded(f"{name}-0.32"))
    assert failure is not None
    assert words in failure.reason
    assert failure.is_final
    assert len(failure.reason) < 400
    assert "\n" not in failure.reason


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("port-taken", "the port was taken by another process"),
        ("hub-out-of-reach", "the hub cannot be reached, and the model is not on this machine"),
        ("killed-core", "a process of vLLM was killed (signal 9), as the kernel does when the RAM runs out"),
        ("killed-worker", "a process of vLLM ended without a word, as when the RAM runs out"),
    ],
)
def test_recorded_starts_that_are_worth_another_try(name: str, words: str) -> None:
    failure = explain(recorded(f"{name}-0.32"))
    assert failure is not None
    assert words in failure.reason
    assert not failure.is_final


def test_a_recorded_start_for_a_reason_of_its_own() -> None:
    assert explain(recorded("no-adapter-0.32")) == StartFailure(
        "vLLM did not start: ValueError: Loading lora x failed: No adapter found for /no/such/adapter", is_final=False
    )


def test_a_start_that_went_well_has_no_reason() -> None:
    assert explain(recorded("ready-cpu-0.32")) is None
    assert explain([]) is None


def test_a_reason_is_not_longer_than_somebody_reads() -> None:
    failure = explain([f"api_server.py: error: argument --port: {'strange ' * 500}"])
    assert failure is not None
    assert failure.reason.startswith("--port: strange strange")
    assert len(failure.reason) < 400


def test_options_that_are_shown_are_no_errors() -> None:
    shown = (
        "(APIServer pid=7) INFO 11-30 00:24:10 [api_utils.py:286] non-default args: {'trust_remote_code': True, "
        "'x': 'contains custom code which must be executed'}"
    )
    assert explain([shown]) is None


# GPU memory -----------------------------------------------------------------------------------------------------------

AT_START = (
    f"{HEAD}ValueError: Free memory on device cuda:0 (20.35/139.8 GiB) on startup is less than desired GPU memory utilization "
    "(0.9, 125.82 GiB). Decrease GPU memory utilization or reduce GPU memory used by other processes."
)
ALLOCATING = (
    f"{HEAD}torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 1.96 GiB. GPU 0 has a total capacity of 79.19 GiB of which "
    "512.00 MiB is free. {others}Including non-PyTorch memory, this process has {own} GiB memory in use. Of the allocated memory 60.00 GiB "
    "is allocated by PyTorch, and 1.00 GiB is reserved by PyTorch but unallocated."
)
HOLDER = "VLLM::EngineCore (pid 4711) 119.4 GiB"


def test_too_little_is_free_at_the_start() -> None:
    failure = told(AT_START, holders=HOLDER)
    assert failure.reason == (
        "out of GPU memory: 20.35 of 139.8 GiB are free on cuda:0, gpu_memory_utilization 0.9 asks for 125.82 "
        f"(held by {HOLDER}); lower gpu_memory_utilization to 0.14, or stop what else runs there"
    )
    assert not failure.is_final


def test_memory_that_nobody_seems_to_hold_may_come_free_as_well() -> None:
    """In a container the driver names no process."""
    failure = told(AT_START)
    assert "held by" not in failure.reason
    assert not failure.is_final


def test_an_empty_gpu_that_is_too_small_stays_so() -> None:
    line = AT_START.replace("20.35/139.8", "139.1/139.8").replace("0.9, 125.82", "0.999, 139.66")
    assert told(line).is_final


def test_too_little_is_free_beside_weights_that_are_held_outside() -> None:
    line = AT_START.replace(
        "desired GPU memory utilization", "the engine's budget after excluding external process's weights"
    )
    assert told(line).reason.startswith("out of GPU memory: 20.35 of 139.8 GiB are free on cuda:0")


@pytest.mark.parametrize(
    ("own", "others", "holders", "is_final"),
    [
        ("78.10", "", "", True),
        ("38.10", "Process 4711 has 40.00 GiB memory in use. ", "", False),
        ("38.10", "Process 4711 has 40.00 GiB memory in use. ", HOLDER, False),
    ],
)
def test_memory_ends_while_it_loads(own: str, others: str, holders: str, is_final: bool) -> None:
    failure = told(ALLOCATING.format(own=own, others=others), holders=holders)
    assert failure.reason.startswith(
        "out of GPU memory: 1.96 GiB more were wanted on GPU 0, 512.00 MiB of 79.19 GiB were free"
    )
    assert (HOLDER in failure.reason) == bool(holders)
    assert failure.is_final is is_final


def test_no_room_for_the_kv_cache() -> None:
    line = (
        f"{HEAD}ValueError: To serve at least one request with the model's max seq len (131072), (16.00 GiB KV cache is needed, which is "
        "larger than the available KV cache memory (9.50 GiB). Based on the available memory, the estimated maximum model length is 77824. "
        "Try increasing `gpu_memory_utilization` (which also controls CPU memory on the CPU backend) or decreasing `max_model_len` when "
        "initializing the engine."
    )
    failure = told(line)
    assert failure.reason.startswith(
        "one request of 131072 tokens needs 16.00 GiB of KV cache, and there are 9.50: lower max_model_len to 77824"
    )
    assert failure.is_final
    assert not told(line, holders=HOLDER).is_final
    none = told(
        f"{HEAD}ValueError: No available memory for the cache blocks. Try increasing `gpu_memory_utilization` when initializing the engine."
    )
    assert none.reason.startswith("the weights leave no memory for the KV cache")
    assert none.is_final


def test_memory_that_moved_while_it_was_measured_is_tried_again() -> None:
    failure = told(
        f"{HEAD}AssertionError: Error in memory profiling. Initial free memory 60.00 GiB, current free memory 70.00 GiB. This happens when "
        "other processes sharing the same container release GPU memory while vLLM is profiling during initialization."
    )
    assert "another process gave GPU memory back" in failure.reason
    assert not failure.is_final


def test_the_engines_own_processes_are_no_holders() -> None:
    asked = list[frozenset[int]]()

    def who(own: frozenset[int]) -> str:
        asked.append(own)
        return ""

    explain([AT_START, *WRAPPED], who)
    explain([f"{HEAD}ValueError: something else"], who)
    assert asked == [frozenset({70, 77})]
    assert own_pids(["\x1b[0;36m(Worker_TP1 pid=12)\x1b[0;0m INFO x", "INFO: 127.0.0.1"]) == frozenset({12})


# RAM ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("wanted", "is_final"), [("100.0", True), ("20.0", False)])
def test_too_little_ram(wanted: str, is_final: bool) -> None:
    failure = told(
        f"{HEAD}ValueError: Available memory on node 0 (9.87/23.4 GiB) on kv cache allocation is less than requested memory for kv "
        f"({wanted} GiB). Decrease --kv-cache-memory-bytes, VLLM_CPU_KVCACHE_SPACE, or reduce CPU memory used by other processes."
    )
    assert failure.reason.startswith(
        f"out of RAM: {float(wanted):g} GiB are wanted, 9.87 of 23.4 are free: lower cpu_kv_cache_gib"
    )
    assert failure.is_final is is_final


def test_too_little_ram_at_the_start() -> None:
    failure = told(
        f"{HEAD}ValueError: Available memory on node 0 (9.87/23.4 GiB) on startup is less than desired CPU memory utilization "
        "(0.9, 21.06 GiB). On the CPU backend, the `--gpu-memory-utilization` flag controls the fraction of CPU memory "
        "reserved (despite its name)."
    )
    assert failure.reason.startswith("out of RAM: 21.06 GiB are wanted, 9.87 of 23.4 are free")


def test_ram_that_the_system_refuses() -> None:
    failure = told(
        f"{HEAD}RuntimeError: [enforce fail at alloc_cpu.cpp:121] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to "
        "allocate 17179869184 bytes. Error code 12 (Cannot allocate memory)"
    )
    assert failure.reason.startswith("out of RAM: 16.0 GiB more were wanted")
    assert not failure.is_final


# Everything else ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "words", "is_final"),
    [
        ("OSError: [Errno 98] Address already in use", "the port was taken by another process", False),
        ("RuntimeError: The NVIDIA driver on your system is too old (found version 12040). Please update your GPU driver",
         "driver is too old for this vLLM: it goes up to CUDA 12.4", True),
        ("RuntimeError: CUDA error: no kernel image is available for execution on the device", "built without kernels for this GPU", True),
        ("RuntimeError: Failed to infer device type, please set the environment variable `VLLM_LOGGING_LEVEL=DEBUG`",
         "vLLM finds no GPU (`nvidia-smi` must list one", True),
        ("RuntimeError: No CUDA GPUs are available", "forgegate install vllm-cpu", True),
        ("ValueError: The quantization method awq_marlin is not supported for the current GPU. Minimum"
         " capability: 80. Current capability: 75.",
         "this GPU (compute capability 7.5) is too old for awq_marlin quantisation, which needs 8.0", True),
        ("RuntimeError: ('Quantization scheme is not supported for ', 'the current GPU. Min capability: 100. ', 'Current capability: 90.')",
         "(compute capability 9.0) is too old for the model's quantisation, which needs 10.0", True),
        ("RuntimeError: ('Quantization scheme is not supported for ', 'the current GPU. Required capability: ', "
         "'90. Current capability: 80.')",
         "(compute capability 8.0) is too old for the model's quantisation, which needs 9.0", True),
        ("RuntimeError: Quantization scheme is not supported for the current GPU. Min capability: 100. Current capability: 90.",
         "(compute capability 9.0) is too old for the model's quantisation, which needs 10.0", True),
        ("ValueError: Bfloat16 is only supported on GPUs with compute capability of at least 8.0. Your Tesla"
         " T4 GPU has compute capability 7.5. "
         "You can use float16 instead by explicitly setting the `dtype` flag in CLI, for example: --dtype=half.",
         "Tesla T4 cannot compute in bfloat16: set `dtype: float16`", True),
        ("  Value error, World size (4) is larger than the number of available GPUs (2) in this node. If this"
         " is intentional and you are using:",
         "spread one engine over 4 GPUs, and vLLM sees 2", True),
        ("  Value error, Total number of attention heads (28) must be divisible by tensor parallel size (8)."
         " [type=value_error, input_value=x",
         "tensor_parallel_size 8 does not divide the model's 28 attention heads", True),
        ("  Value error, Quantization method specified in the model config (gptq) does not match the quantization method specified in the "
         "`quantization` argument (awq). [type=value_error, input_value=x",
         "quantised by gptq, `quantization` says awq: leave that out", True),
        ("AttributeError: '_OpNamespace' '_C' object has no attribute 'cpu_gemm_wna16'", "this CPU cannot run AWQ and GPTQ models", True),
        ("huggingface_hub.errors.GatedRepoError: 403 Client Error.", "accept them on its page, then set HF_TOKEN", True),
        ("huggingface_hub.errors.RepositoryNotFoundError: 401 Client Error.", "the hub has no such model, or not for you", True),
        ("ValueError: LoRA rank 64 is greater than max_lora_rank 16.", "an adapter has rank 64, and this engine takes at most 16", True),
        ("ValueError: GPT2LMHeadModel does not support LoRA yet.", "vLLM serves no adapters on models of the kind GPT2LMHeadModel", True),
        ("OSError: [Errno 28] No space left on device", "a disk is full", False),
        ("PermissionError: [Errno 13] Permission denied: '/models/x/config.json'",
         "vLLM may not read or write /models/x/config.json", True),
        ("ModuleNotFoundError: No module named 'torchvision.ops'", "lacks the module torchvision.ops", True),
        ("pynvml.NVMLError_LibRmVersionMismatch: Driver/library version mismatch", "the NVIDIA driver was updated while it ran", True),
    ],
)  # fmt: skip
def test_messages(line: str, words: str, is_final: bool) -> None:
    failure = told(line if line.startswith("  ") else HEAD + line)
    assert words in failure.reason
    assert failure.is_final is is_final


@pytest.mark.parametrize(
    ("signal", "words"),
    [(9, "killed (signal 9)"), (4, "need a newer CPU"), (7, "/dev/shm"), (11, "signal 11"), (6, "by signal 6")],
)
def test_a_process_that_ended_without_a_word(signal: int, words: str) -> None:
    failure = explain([line.replace("'EngineCore': 1", f"'EngineCore_DP0': -{signal}") for line in WRAPPED])
    assert failure is not None
    assert words in failure.reason
    assert not failure.is_final


def test_an_unknown_reason_is_given_in_the_engines_words() -> None:
    failure = told(
        f"{HEAD}Traceback (most recent call last):",
        f'{HEAD}  File "x.py", line 1',
        f"{HEAD}my.module.OddError: the moon is full",
    )
    assert failure == StartFailure("vLLM did not start: OddError: the moon is full", is_final=False)
    refused = told(
        "  Value error, the moon is full [type=value_error, input_value=ArgsKwargs(()), input_type=ArgsKwargs]"
    )
    assert refused == StartFailure("vLLM refuses its configuration: the moon is full", is_final=True)
    assert told(
        f"{HEAD}Exception: WorkerProc initialization failed due to an exception in a background process."
    ) == StartFailure(
        "a process of vLLM ended without a word, as when the RAM runs out (`dmesg` tells)", is_final=False
    )
