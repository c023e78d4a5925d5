"""The embedding thread: batches, long texts in pieces, its end and its death, and vectors that do not depend on the batch."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from backends.llamacpp.header import read_header
from backends.llamacpp.options import Options
from backends.llamacpp.purpose import can_be_split, for_purpose
from backends.llamacpp.scheduler import QueueFull

if TYPE_CHECKING:
    from backends.llamacpp.embedding import EmbeddingEngine
    from backends.llamacpp.embedding_scheduler import EmbeddingJob

np = pytest.importorskip("numpy")
pytestmark = [pytest.mark.engine]

MAX_DRIFT = 1e-3
"""Of a value of a vector of length 1, alone and in a batch, F16 weights and KV cache; 2.1e-4 was seen."""


class Rig:
    """An engine, asked and waited for by one thread."""

    def __init__(self, gguf: Path, given: Options) -> None:
        from backends.llamacpp.binding.model import Model
        from backends.llamacpp.embedding import EmbeddingEngine

        head = read_header(gguf)
        options = for_purpose(head, given)
        self.ended: queue.Queue[list[EmbeddingJob]] = queue.Queue()
        self.model = Model(gguf, options)
        self.engine: EmbeddingEngine = EmbeddingEngine(
            self.model,
            options,
            can_be_split=can_be_split(head, options.pooling),
            fill_tokens=512,
            num_threads=1,
            num_threads_batch=1,
            deliver=self.ended.put,
        )

    def wait(self, *jobs: EmbeddingJob) -> None:
        """Until these were delivered, each once and no others."""
        missing = set(jobs)
        while missing:
            ended = self.ended.get(timeout=30)
            assert missing.issuperset(ended)
            missing.difference_update(ended)

    def embed(self, *texts: Any) -> list[Any]:
        """Vectors of length 1."""
        job = self.engine.submit(list(texts), None)
        self.wait(job)
        assert not job.error
        return [vector / np.linalg.norm(vector) for vector in job.vectors if vector is not None]


@contextmanager
def running(gguf: Path, **options: Any) -> Iterator[Rig]:
    rig = Rig(gguf, Options(**options))
    rig.engine.start()
    try:
        yield rig
    finally:
        rig.engine.close()
        rig.model.close()


def tokens(count: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).integers(300, 4000, size=count).astype(np.int32)


@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
def test_a_vector_is_the_same_alone_and_in_a_batch(demo_gguf: Path, pooling: str) -> None:
    texts = [tokens(count, count) for count in (1, 3, 40, 7, 100, 21, 2, 60)]
    with running(demo_gguf, pooling=pooling) as rig:
        together = rig.embed(*texts)
        assert rig.engine.metrics.num_batches == 1
        alone = [rig.embed(text)[0] for text in texts]
        again = rig.embed(*reversed(texts))[::-1]
    for one, two, three in zip(together, alone, again, strict=True):
        assert np.abs(one - two).max() < MAX_DRIFT
        assert np.abs(one - three).max() < MAX_DRIFT


def test_a_text_longer_than_a_batch_is_the_same_in_pieces(demo_gguf: Path) -> None:
    text, short = tokens(700), tokens(20)
    with running(demo_gguf, pooling="last", n_batch=1024) as rig:
        (whole,) = rig.embed(text)
        assert rig.engine.metrics.num_batches == 1
    with running(demo_gguf, pooling="last", n_batch=64, n_ctx=1024, n_seq_max=8) as rig:
        jobs = [rig.engine.submit([text], None), rig.engine.submit([short] * 30, None)]
        rig.wait(*jobs)
        assert rig.engine.metrics.num_batches > 700 // 64
        assert rig.engine.metrics.num_prompt_tokens == 700 + 600
        (alone,) = rig.embed(short)
    (pieces,) = jobs[0].vectors
    assert np.abs(pieces / np.linalg.norm(pieces) - whole).max() < MAX_DRIFT
    for vector in jobs[1].vectors:
        assert np.abs(vector / np.linalg.norm(vector) - alone).max() < MAX_DRIFT


@pytest.mark.parametrize(
    ("options", "longest"),
    [
        ({"pooling": "mean", "n_ctx_seq": 600}, 600),
        ({"pooling": "mean", "n_ubatch": 100, "n_batch": 100, "n_seq_max": 7}, 100),
        ({"pooling": "mean", "n_ctx": 512}, 512),
        ({"pooling": "last", "n_ctx": 512, "n_batch": 64, "n_seq_max": 3}, 512),
        ({"pooling": "last", "n_ctx_seq": 77}, 77),
    ],
)
def test_the_longest_text_that_is_promised_can_be_computed(
    demo_gguf: Path, options: dict[str, Any], longest: int
) -> None:
    with running(demo_gguf, **options) as rig:
        assert rig.engine.max_length == longest
        assert len(rig.embed(tokens(longest), tokens(1))) == 2


def test_a_cancelled_request_is_not_delivered_and_leaves_nothing(demo_gguf: Path) -> None:
    with running(demo_gguf, pooling="last", n_batch=64) as rig:
        gone = rig.engine.submit([tokens(2000)] * 20, None)
        rig.engine.cancel(gone)
        rig.engine.cancel(gone)
        assert len(rig.embed(tokens(5))) == 1
        assert rig.engine.metrics.num_cancelled == 1
        assert rig.engine.scheduler.is_idle
        assert rig.ended.empty()


def test_the_waiting_line_is_bounded_and_empties(demo_gguf: Path) -> None:
    with running(demo_gguf, pooling="mean", n_seq_max=2, max_waiting=3) as rig:
        jobs = [rig.engine.submit([tokens(200)] * 2, None) for _ in range(5)]
        with pytest.raises(QueueFull):
            rig.engine.submit([tokens(5)], None)
        rig.wait(*jobs)
        assert len(rig.embed(tokens(5))) == 1


def test_close_ends_what_runs_and_what_waits(demo_gguf: Path) -> None:
    from backends.llamacpp.engine import EngineClosed

    with running(demo_gguf, pooling="mean", n_seq_max=2) as rig:
        jobs = [rig.engine.submit([tokens(500)] * 10, None) for _ in range(5)]
        rig.engine.close()
        rig.wait(*jobs)
        assert {job.error for job in jobs} in ({"the engine is stopping"}, {"", "the engine is stopping"})
        with pytest.raises(EngineClosed):
            rig.engine.submit([tokens(5)], None)


def test_a_refused_batch_fails_its_requests_only(demo_gguf: Path) -> None:
    with running(demo_gguf, pooling="mean") as rig:
        bad = rig.engine.submit([np.array([10**6], np.int32)], None)  # no such token: llama.cpp refuses the batch
        rig.wait(bad)
        assert "llama_decode returned -1" in bad.error
        assert len(rig.embed(tokens(5))) == 1
        assert rig.engine.metrics.num_failed == 1


def test_a_death_ends_everybody_with_its_reason(demo_gguf: Path) -> None:
    from backends.llamacpp.binding.errors import DecodeError
    from backends.llamacpp.engine import EngineClosed

    def broken(*_: object) -> None:
        raise DecodeError(-3)

    rig = Rig(demo_gguf, Options(pooling="mean", n_seq_max=1))
    rig.engine.context.compute = broken  # type: ignore[method-assign]
    jobs = [rig.engine.submit([tokens(5)], None) for _ in range(4)]
    rig.engine.start()
    rig.wait(*jobs)
    rig.engine.wait()
    assert all("llama_decode returned -3" in job.error for job in jobs)
    assert not rig.engine.is_alive
    with pytest.raises(EngineClosed, match="-3"):
        rig.engine.submit([tokens(5)], None)
    rig.engine.close()
    rig.model.close()
