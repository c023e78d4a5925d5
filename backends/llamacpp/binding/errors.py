"""What llama.cpp refuses. llama_decode's return codes keep their meanings (llama.h), because each needs another answer:

0   done                       decode() returns
1   no room in the KV cache    CacheFull: free or preempt a sequence and try again; nothing was changed
2   aborted                    DecodeAborted
-1  invalid batch              DecodeError: our bug, the step's sequences fail
< -1 fatal                     DecodeError: the context is not to be trusted any more
"""


class BindingError(Exception):
    """Root of what llama.cpp refuses.

    BindingError
    |- ModelError       the model file or the context cannot be made (exit code 3)
    |- AdapterError     an adapter's file cannot be loaded
    |- QuantizeError    a file cannot be quantised
    |- DecodeError      a step failed for good
    |- DecodeAborted    a step was aborted
    `- CacheFull        no KV cells for this batch; nothing was changed
    """


class ModelError(BindingError):
    """The model cannot be loaded or its context cannot be created."""


class AdapterError(BindingError):
    """An adapter cannot be loaded."""


class QuantizeError(BindingError):
    """A file cannot be quantised."""


class DecodeError(BindingError):
    """llama_decode failed; `code` is its return value."""

    def __init__(self, code: int) -> None:
        super().__init__(f"llama_decode returned {code}")
        self.code = code


class DecodeAborted(BindingError):
    """llama_decode was aborted."""


class CacheFull(BindingError):
    """The batch found no room in the KV cache."""
