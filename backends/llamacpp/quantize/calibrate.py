"""An importance matrix computed from text: the model reads it, and what goes into each matrix is added up."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from backends.llamacpp.binding.activations import ActivationContext
from backends.llamacpp.binding.model import Model
from backends.llamacpp.options import Options
from backends.llamacpp.quantize.imatrix import write_imatrix
from backends.llamacpp.quantize.text import TextTooShort, read_text
from backends.windows import cut

LENGTH = 512
"""Tokens that are read at once."""
FEWEST_TOKENS = 2048
"""Below this many the sums say more about the text than about the model."""

TellCount = Callable[[int, int], None]


def calibrate(source: Path, text: Path, out: Path, *, most_windows: int, num_threads: int, tell: TellCount) -> int:
    """Write the importance matrix of `source` over `text`; how many tokens were read. Raises BindingError, BackendError."""
    words = read_text(text)
    model = Model(source, Options())
    try:
        length = min(LENGTH, model.n_ctx_train or LENGTH)
        tokens = model.tokenize(words, parse_special=True)
        if len(tokens) < FEWEST_TOKENS:
            raise TextTooShort(
                f"{text}: {len(tokens)} tokens, too few to calibrate with; give {FEWEST_TOKENS:,} or more"
            )
        windows = cut(tokens, length, model.bos if model.add_bos else None, most_windows)
        context = ActivationContext(model, length, num_threads)
        try:
            for index, window in enumerate(windows):
                context.compute(window)
                tell(index + 1, len(windows))
            squares = {name: sums.squares for name, sums in context.sums.items()}
            counts = {name: sums.counts for name, sums in context.sums.items()}
        finally:
            context.close()
    finally:
        model.close()
    write_imatrix(out, squares, counts, len(windows), length, text.name)
    return len(windows) * length
