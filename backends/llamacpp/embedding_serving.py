"""A model that was started for embeddings: texts become tokens, hidden states become the answer's vectors."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import numpy as np

from backends.base import LITERAL_SPECIAL_TEXT
from backends.llamacpp.answer import AnswerFailed
from backends.llamacpp.api import embeddings as api
from backends.llamacpp.api.embeddings import EmbeddingRequest, Input
from backends.llamacpp.api.fields import RequestError
from backends.llamacpp.embedding import EmbeddingEngine
from backends.llamacpp.embedding_scheduler import EmbeddingJob
from backends.llamacpp.engine import EngineClosed
from backends.llamacpp.scheduler import QueueFull
from backends.llamacpp.served import OFF_LOOP_BYTES, Overloaded, ServedModel, Tokens, Unavailable

_OFF_LOOP_VALUES = 8192
"""Larger answers are encoded in another thread."""


class EmbeddingServing(ServedModel):
    """One model under one name."""

    capabilities = ("embeddings", "tokenize", LITERAL_SPECIAL_TEXT)

    def __init__(self, name: str, engine: EmbeddingEngine, pooling: str) -> None:
        super().__init__(name, engine)
        self.engine = engine
        self.pooling = pooling
        self.dimensions = engine.context.dimensions
        self._num_closing = self._count_closing()

    def hand_out(self, outputs: list[EmbeddingJob]) -> None:
        for job in outputs:
            if not job.sink.done():
                job.sink.set_result(None)

    def purpose(self) -> str:
        return (
            f"for embeddings (pooling: {self.pooling}) of {self.dimensions} values, of texts of up to "
            f"{self.engine.max_length} tokens"
        )

    def describe(self) -> dict[str, Any]:
        return super().describe() | {"embedding": {"dimensions": self.dimensions, "pooling": self.pooling}}

    async def embed(self, request: EmbeddingRequest) -> list[bytes]:
        """The answer's body in pieces. Raises RequestError, Overloaded, Unavailable or AnswerFailed."""
        self._check_model(request.model)
        if request.dimensions is not None and request.dimensions > self.dimensions:
            raise RequestError(
                f"dimensions: this model's vectors have {self.dimensions} values, got {request.dimensions}",
                param="dimensions",
            )
        job = await self._compute(await self._encode(request))
        if job.num_done * (request.dimensions or self.dimensions) > _OFF_LOOP_VALUES:
            return await asyncio.to_thread(self._body, job, request)
        return self._body(job, request)

    async def _compute(self, texts: list[Tokens]) -> EmbeddingJob:
        done = asyncio.get_running_loop().create_future()
        try:
            job = self.engine.submit(texts, done)
        except QueueFull as error:
            raise Overloaded(f"the engine is full: {error}") from error
        except EngineClosed as error:
            raise Unavailable(str(error)) from error
        try:
            await done
        except asyncio.CancelledError:
            self.engine.cancel(job)
            raise
        if job.error:
            raise AnswerFailed(job.error)
        return job

    def _body(self, job: EmbeddingJob, request: EmbeddingRequest) -> list[bytes]:
        vectors = (api.unit_vector(vector, request.dimensions) for vector in job.vectors if vector is not None)
        return api.body(self.name, vectors, request.encoding_format, job.num_tokens)

    async def _encode(self, request: EmbeddingRequest) -> list[Tokens]:
        inputs = api.inputs(request)
        limit = self._limit(request)
        if sum(map(len, inputs.values())) > OFF_LOOP_BYTES:
            return await asyncio.to_thread(self._encode_all, inputs, limit)
        return self._encode_all(inputs, limit)

    def _limit(self, request: EmbeddingRequest) -> int | None:
        """Where texts are cut; None: nowhere."""
        limit, longest = request.truncate_prompt_tokens, self.engine.max_length
        if limit == -1:
            return longest
        if limit is not None and not self._num_closing < limit <= longest:
            raise RequestError(
                f"truncate_prompt_tokens: must be -1 or {self._num_closing + 1} to {longest}, got {limit}",
                param="truncate_prompt_tokens",
            )
        return limit

    def _encode_all(self, inputs: Mapping[str, Input], limit: int | None) -> list[Tokens]:
        return [self._encode_one(at, item, limit) for at, item in inputs.items()]

    def _encode_one(self, at: str, item: Input, limit: int | None) -> Tokens:
        if isinstance(item, str):
            self._check_size(at, item, limit)
            tokens = self._cut(self._model.tokenize(item, add_special=True), limit, self._num_closing)
        else:
            ids = item[:limit]
            self._check_length(at, len(ids))
            api.check_ids(at, ids, self._model.n_vocab)
            tokens = np.array(ids, dtype=np.int32)
        self._check_length(at, len(tokens))
        if not len(tokens):
            raise RequestError(f"{at}: nothing is left of this text as tokens", param=at)
        return tokens

    @staticmethod
    def _cut(tokens: Tokens, limit: int | None, num_closing: int) -> Tokens:
        """The beginning, and the token that closes every text where the model has one: as tokenizers truncate."""
        if limit is None or len(tokens) <= limit:
            return tokens
        return np.concatenate([tokens[: limit - num_closing], tokens[len(tokens) - num_closing :]])

    def _check_size(self, at: str, text: str, limit: int | None) -> None:
        """Refuse a text that cannot fit, before the time is spent on finding out how many tokens it has."""
        if limit is None and self._model.is_lossless:
            num_tokens = -(-len(text.encode("utf-8", "surrogatepass")) // self._model.longest_token_bytes)
            self._check_length(at, num_tokens, "at least ")

    def _check_length(self, at: str, num_tokens: int, words: str = "") -> None:
        longest, trained = self.engine.max_length, self._model.n_ctx_train
        if num_tokens > longest:
            why = (
                f" (n_ubatch, n_ctx and n_ctx_seq bound it; it was trained for {trained})" if trained > longest else ""
            )
            raise RequestError(
                f"{at}: this engine takes texts of up to {longest} tokens{why}; this one has {words}{num_tokens}",
                param=at,
                code="context_length_exceeded",
            )

    def _count_closing(self) -> int:
        """Tokens that are put behind every text (BERT's [SEP], an EOS)."""
        around = len(self._model.tokenize("", add_special=True))
        return around - 1 if around > 1 else around - int(self._model.add_bos)
