"""The last part of sampling: filters and the draw."""

from __future__ import annotations

from typing import Any

import llama_cpp.llama_cpp as C

from backends.llamacpp.binding.context import Context


class Sampler:
    """Draws from a row of logits: temperature, then top_k, typical, top_p, min_p, then a seeded draw.

    The temperature comes before the filters, as in vLLM and transformers. Each step is left out where its
    parameter changes nothing. The random state lives here, so a request's draws depend on its seed alone.
    """

    def __init__(
        self, *, temperature: float, top_k: int, typical_p: float, top_p: float, min_p: float, seed: int
    ) -> None:
        self._pointer = C.llama_sampler_chain_init(C.llama_sampler_chain_default_params())
        if temperature != 1.0:
            self._add(C.llama_sampler_init_temp(temperature))
        if top_k > 0:
            self._add(C.llama_sampler_init_top_k(top_k))
        if typical_p < 1.0:
            self._add(C.llama_sampler_init_typical(typical_p, 1))
        if top_p < 1.0:
            self._add(C.llama_sampler_init_top_p(top_p, 1))
        if min_p > 0.0:
            self._add(C.llama_sampler_init_min_p(min_p, 1))
        self._add(C.llama_sampler_init_dist(seed))

    def _add(self, part: Any) -> None:
        C.llama_sampler_chain_add(self._pointer, part)

    def sample(self, context: Context, row: int) -> int:
        """A token from output `row` of the context's last step."""
        # llama.cpp counts from the batch's first token; negative numbers count outputs from the last one.
        return int(C.llama_sampler_sample(self._pointer, context.pointer, row - context.num_outputs))

    def close(self) -> None:
        """Free the chain."""
        if self._pointer:
            C.llama_sampler_free(self._pointer)
            self._pointer = None

    def __del__(self) -> None:
        self.close()
