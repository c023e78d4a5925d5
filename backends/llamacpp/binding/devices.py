"""The devices that compute."""

from __future__ import annotations

import ctypes

from backends.llamacpp.binding.library import ggml, initialise

_DEVICE_TYPE_CPU = 0


def compute_backend() -> str:
    """The device that computes: a GPU's name and description, else `CPU`."""
    initialise()
    names = []
    for index in range(ggml("ggml_backend_dev_count", ctypes.c_size_t)()):
        device = ggml("ggml_backend_dev_get", ctypes.c_void_p, ctypes.c_size_t)(index)
        if ggml("ggml_backend_dev_type", ctypes.c_int, ctypes.c_void_p)(device) != _DEVICE_TYPE_CPU:
            name = ggml("ggml_backend_dev_name", ctypes.c_char_p, ctypes.c_void_p)(device)
            text = ggml("ggml_backend_dev_description", ctypes.c_char_p, ctypes.c_void_p)(device)
            names.append(f"{name.decode()} ({text.decode()})")
    return ", ".join(names) or "CPU"
