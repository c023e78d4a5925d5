"""The loaded library: its log, its version. llama_cpp is imported here and nowhere outside this package."""

from __future__ import annotations

import ctypes
from collections import deque
from typing import Any

import llama_cpp.llama_cpp as C
from llama_cpp._ggml import libggml

_LOG_LEVEL_WARN = 3


class _Log:
    """llama.cpp's log: warnings and errors are kept for the message of a failed load, the rest is dropped."""

    def __init__(self) -> None:
        self.lines: deque[str] = deque(maxlen=20)
        self._last_level = 0
        # The callback object must outlive every call that llama.cpp makes.
        self.callback = C.llama_log_callback(self._on_line)

    def _on_line(self, level: int, text: bytes, _user: Any) -> None:
        # Level 5 continues the line before.
        if level != 5:
            self._last_level = level
        if self._last_level >= _LOG_LEVEL_WARN and text.strip():
            self.lines.append(text.decode("utf-8", "replace").strip())

    def reason(self) -> str:
        errors = [line for line in self.lines if "error" in line.lower() or "failed" in line.lower()]
        return (errors or list(self.lines) or ["llama.cpp gave no reason"])[0]


_log = _Log()
_is_initialised = False


def initialise() -> None:
    """Load the backends once per process and take over llama.cpp's log."""
    global _is_initialised
    if not _is_initialised:
        _is_initialised = True
        C.llama_log_set(_log.callback, ctypes.c_void_p())
        C.llama_backend_init()


def forget_log() -> None:
    """Before a call whose failure `log_reason` is to explain."""
    _log.lines.clear()


def log_reason() -> str:
    """The likeliest reason among llama.cpp's last words."""
    return _log.reason()


def system_info() -> str:
    """Instruction sets and features that llama.cpp was built with and found."""
    initialise()
    return str(C.llama_print_system_info().decode())


def version() -> str:
    """llama.cpp's own version."""
    return str(C.llama_version().decode())


def ggml(name: str, result: Any, *arguments: Any) -> Any:
    """A function of libggml, typed."""
    function = getattr(libggml, name)
    function.restype = result
    function.argtypes = list(arguments)
    return function
