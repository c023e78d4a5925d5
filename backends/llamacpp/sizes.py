"""What a context asks llama.cpp for, as a function of settled options. Pure; llama.cpp and the memory plan go by the same."""

from __future__ import annotations

from backends.llamacpp.options import MAX_SEQUENCE_IDS, Options

GGML_TYPES = {"f32": 0, "f16": 1, "q4_0": 2, "q4_1": 3, "q5_0": 6, "q5_1": 7, "q8_0": 8, "iq4_nl": 20, "bf16": 30}
"""llama.cpp's numbers for the types of a KV cache."""
MAX_OUTPUTS = 128
"""Rows of logits that one step may ask for, unless there are more sequence ids."""
_BLOCK = 256
"""llama.cpp rounds a cache up to whole blocks of this many cells."""


def num_sequence_ids(options: Options) -> int:
    """Ids for what runs and, where they cost no cells, for as many cached sequences."""
    if options.has_separate_caches:
        # Nothing is computed alone with batch_invariant: a lone request has an idle neighbour.
        return max(options.n_seq_max, 2 if options.batch_invariant else 1)
    return min(MAX_SEQUENCE_IDS, 2 * options.n_seq_max if options.prefix_cache else options.n_seq_max)


def cells_per_sequence(options: Options) -> int:
    """Cells that one sequence can have."""
    share = options.n_ctx // options.n_seq_max if options.has_separate_caches else options.n_ctx
    return -(-share // _BLOCK) * _BLOCK


def num_cells(options: Options) -> int:
    """Cells of all sequences together."""
    return cells_per_sequence(options) * (num_sequence_ids(options) if options.has_separate_caches else 1)


def num_outputs(options: Options) -> int:
    """Rows of logits that one step may ask for; llama.cpp reserves one for each sequence id in any case."""
    return max(num_sequence_ids(options), min(options.n_ubatch, MAX_OUTPUTS))
