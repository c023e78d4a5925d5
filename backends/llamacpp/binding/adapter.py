"""LoRA adapters: loaded into a model, put on a context.

What llama.cpp does (src/llama-adapter.cpp, src/llama-context.cpp), and what follows:

- A loaded adapter is entered in a set of the model's that `llama_decode` walks through whenever it reserves its graph anew:
  load and free on the thread that decodes.
- A context keeps bare pointers to its adapters, and a graph built with them. Freeing one that is still set leaves both
  dangling, and one loaded later may get the same address and count as "already set". So another set comes first; `Applied`
  sees to that.
- Another set makes the next `llama_decode` reserve its graph and compute buffers anew, which costs more than a step of a
  small model (`python -m benchmarks.adapter_switch`). The same set once more costs nothing.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

import llama_cpp.llama_cpp as C

from backends.llamacpp.binding.context import Context
from backends.llamacpp.binding.errors import AdapterError
from backends.llamacpp.binding.library import forget_log, log_reason
from backends.llamacpp.binding.model import Model


class Adapter:
    """One LoRA's weights, beside those of its model and freed before them."""

    def __init__(self, model: Model, path: Path) -> None:
        """Raises AdapterError with llama.cpp's own reason."""
        forget_log()
        self.path = path
        self.pointer = C.llama_adapter_lora_init(model.pointer, os.fsencode(path))
        if not self.pointer:
            raise AdapterError(f"cannot load the adapter {path}: {log_reason()}")
        num_invocation = int(C.llama_adapter_get_alora_n_invocation_tokens(self.pointer))
        if num_invocation:
            self.close()
            raise AdapterError(
                f"cannot load the adapter {path}: it is an activated LoRA, to be applied from certain tokens on, "
                "which is not served"
            )

    def close(self) -> None:
        """Free it; no context may hold it any more."""
        if self.pointer:
            C.llama_adapter_lora_free(self.pointer)
            self.pointer = None


class Applied:
    """The adapter that one context computes with; None: the base model."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self.adapter: Adapter | None = None
        self.num_switches = 0

    def apply(self, adapter: Adapter | None) -> bool:
        """Let the context's next steps be computed with `adapter`. False: it was so already."""
        if adapter is self.adapter:
            return False
        if adapter is None:
            C.llama_set_adapters_lora(self._context.pointer, None, 0, None)
        else:
            pointers = (C.llama_adapter_lora_p_ctypes * 1)(adapter.pointer)
            C.llama_set_adapters_lora(self._context.pointer, pointers, 1, (ctypes.c_float * 1)(1.0))
        self.adapter = adapter
        self.num_switches += 1
        return True

    def free(self, adapter: Adapter) -> None:
        """Free an adapter that no sequence uses; the context goes on with the base model where it held it."""
        if self.adapter is adapter:
            self.apply(None)
        adapter.close()
