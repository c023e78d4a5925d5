"""The devices that compute.

python -m backends.llamacpp.binding.devices    prints the GPUs and their memory as one JSON list
"""

from __future__ import annotations

import ctypes
import dataclasses
import json
from collections.abc import Iterator
from typing import Any

from backends.llamacpp.binding.library import ggml, initialise
from backends.llamacpp.memory import Device

_TYPE_CPU, _TYPE_GPU, _TYPE_INTEGRATED = 0, 1, 2


def compute_backend() -> str:
    """The device that computes: a GPU's name and description, else `CPU`."""
    names = [f"{_name(device)} ({_description(device)})" for device, kind in _devices() if kind != _TYPE_CPU]
    return ", ".join(names) or "CPU"


def list_gpus() -> list[Device]:
    """What a model's layers may be put on, in llama.cpp's order; integrated ones only where there is no other.

    Asking wakes a GPU: what is free is told without what this process then holds there itself.
    """
    found = [(device, kind) for device, kind in _devices() if kind in (_TYPE_GPU, _TYPE_INTEGRATED)]
    dedicated = [(device, kind) for device, kind in found if kind == _TYPE_GPU]
    return [_gpu(device, kind) for device, kind in dedicated or found]


def _devices() -> Iterator[tuple[Any, int]]:
    """Every device of every backend with its type."""
    initialise()
    for index in range(ggml("ggml_backend_dev_count", ctypes.c_size_t)()):
        device = ggml("ggml_backend_dev_get", ctypes.c_void_p, ctypes.c_size_t)(index)
        yield device, ggml("ggml_backend_dev_type", ctypes.c_int, ctypes.c_void_p)(device)


def _gpu(device: Any, kind: int) -> Device:
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    size_pointer = ctypes.POINTER(ctypes.c_size_t)
    memory = ggml("ggml_backend_dev_memory", None, ctypes.c_void_p, size_pointer, size_pointer)
    memory(device, ctypes.byref(free), ctypes.byref(total))
    name = _name(device)
    is_in_ram = kind == _TYPE_INTEGRATED or name.upper().startswith(("METAL", "MTL"))
    return Device(name, _description(device), free.value, total.value, is_in_ram)


def _name(device: Any) -> str:
    return str(ggml("ggml_backend_dev_name", ctypes.c_char_p, ctypes.c_void_p)(device).decode())


def _description(device: Any) -> str:
    return str(ggml("ggml_backend_dev_description", ctypes.c_char_p, ctypes.c_void_p)(device).decode())


if __name__ == "__main__":
    print(json.dumps([dataclasses.asdict(gpu) for gpu in list_gpus()]))
