"""From a GGUF file to a model that answers, for what it is meant to be started."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from backends.errors import ModelUnusable
from backends.llamacpp.adapter_file import INVARIANT_TYPES
from backends.llamacpp.binding.devices import compute_backend
from backends.llamacpp.binding.errors import ModelError
from backends.llamacpp.binding.model import Model
from backends.llamacpp.chat import ChatTemplate, TemplateError
from backends.llamacpp.embedding import EmbeddingEngine
from backends.llamacpp.embedding_serving import EmbeddingServing
from backends.llamacpp.engine import Engine
from backends.llamacpp.header import read_header, read_parts
from backends.llamacpp.options import PLAIN_BATCH, Options
from backends.llamacpp.purpose import can_be_split, for_purpose
from backends.llamacpp.served import ServedModel
from backends.llamacpp.serving import Serving


def load(
    path: Path, name: str, options: Options, num_threads: int, deliver: Callable[[list[Any]], None]
) -> ServedModel:
    """Load a model and start its engine, whose outputs go to `deliver` and from there, on the event loop, to `hand_out`.

    Raises ModelError or TemplateError when the file, the options or the template cannot be used.
    """
    if not path.is_file():
        raise ModelError(f"no such model file: {path}")
    try:
        header = read_header(path)
        settled = for_purpose(header, options)
    except ModelUnusable as error:
        raise ModelError(f"cannot load {error}") from error
    if settled.batch_invariant:
        _check_invariant(path, settled)
    if settled.pooling == "none":
        return _load_generating(path, name, settled.settled(), num_threads, deliver)
    model = Model(path, settled)
    engine = EmbeddingEngine(
        model,
        settled,
        can_be_split=can_be_split(header, settled.pooling),
        # A CPU gains nothing from larger batches, in which every token attends (masked, but computed) to all others.
        fill_tokens=PLAIN_BATCH if compute_backend() == "CPU" or not settled.n_gpu_layers else settled.n_batch,
        num_threads=num_threads,
        num_threads_batch=options.n_threads_batch or num_threads,
        deliver=deliver,
    )
    engine.start()
    return EmbeddingServing(name, engine, settled.pooling)


def _check_invariant(path: Path, options: Options) -> None:
    """Raises ModelError where the same bits cannot be promised."""
    if options.pooling != "none":
        raise ModelError("batch_invariant: for models that generate text, not for embeddings")
    foreign = {tensor.type for part in read_parts(path) for tensor in part.tensors} - INVARIANT_TYPES.keys()
    if foreign:
        known = ", ".join(INVARIANT_TYPES.values())
        raise ModelError(
            f"batch_invariant: {path} has tensors of ggml type {min(foreign)}, whose kernels differ with the batch; "
            f"possible with {known}"
        )


def _load_generating(
    path: Path, name: str, options: Options, num_threads: int, deliver: Callable[[list[Any]], None]
) -> Serving:
    model = Model(path, options)
    if not model.can_generate:
        raise ModelError(f"{path} is not a model that generates text")
    template = _template(model, options)
    engine = Engine(
        model,
        options,
        num_threads=num_threads,
        num_threads_batch=options.n_threads_batch or num_threads,
        deliver=deliver,
    )
    engine.start()
    return Serving(name, engine, template)


def _template(model: Model, options: Options) -> ChatTemplate | None:
    try:
        source = Path(options.chat_template).read_text("utf-8") if options.chat_template else model.chat_template()
    except (OSError, UnicodeDecodeError) as error:
        raise TemplateError(f"chat_template: cannot read {options.chat_template}: {error}") from error
    if source is None:
        return None
    texts = {token: text for text, token in model.special_tokens.items()}
    return ChatTemplate(source, bos=texts.get(model.bos, ""), eos=texts.get(model.eos, ""))
