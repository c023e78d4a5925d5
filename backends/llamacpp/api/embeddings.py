"""POST /v1/embeddings (https://platform.openai.com/docs/api-reference/embeddings)."""

from __future__ import annotations

from binascii import b2a_base64
from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
import orjson
from msgspec import Meta
from numpy.typing import NDArray

from backends.llamacpp.api.fields import RequestError

MAX_INPUTS = 2048

Input = str | list[int]
Vector = NDArray[np.float32]


class EmbeddingRequest(msgspec.Struct, frozen=True, kw_only=True):
    """The body."""

    input: Any
    """A text, a list of texts, a list of token ids, or a list of such lists (`inputs` checks it)."""
    model: str | None = None
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Annotated[int, Meta(ge=1, le=2**31 - 1)] | None = None
    truncate_prompt_tokens: Annotated[int, Meta(ge=-1, le=2**31 - 1)] | None = None
    """vLLM's: a longer text is cut to this many tokens, -1: to as many as the engine takes."""


def inputs(request: EmbeddingRequest) -> dict[str, Input]:
    """What is to be embedded, by its place in the request: `input` or `input[3]`. Token ids are not looked at yet. Raises RequestError."""
    given = request.input
    if isinstance(given, str) or (isinstance(given, list) and given and not isinstance(given[0], str | list)):
        found = {"input": given}
    elif isinstance(given, list):
        found = {f"input[{number}]": item for number, item in enumerate(given[: MAX_INPUTS + 1])}
    else:
        raise RequestError("input: must be a text, token ids, or a list of either", param="input")
    if len(found) > MAX_INPUTS:
        raise RequestError(f"input: at most {MAX_INPUTS} texts in one request, got {len(given)}", param="input")
    if not found:
        raise RequestError("input: an empty list has nothing to embed", param="input")
    for at, item in found.items():
        if not isinstance(item, type(next(iter(found.values())))):
            raise RequestError(f"{at}: texts and token ids do not go together in one request", param=at)
        if not item:
            raise RequestError(f"{at}: an empty text has nothing to embed", param=at)
    return found


def check_ids(at: str, ids: Sequence[Any], n_vocab: int) -> None:
    """Raises RequestError for what is no token id."""
    for token in ids:
        if type(token) is not int or not 0 <= token < n_vocab:
            raise RequestError(f"{at}: no such token: {str(token)[:80]} (0 to {n_vocab - 1})", param=at)


def unit_vector(vector: Vector, dimensions: int | None) -> Vector:
    """The first `dimensions` values, scaled to length 1; zeros stay zeros."""
    values = vector[:dimensions].astype(np.float64)
    length = np.sqrt(values @ values)
    return (values / length if length else values).astype(np.float32)


def body(model: str, vectors: Iterable[Vector], encoding: str | None, num_tokens: int) -> list[bytes]:
    """The answer in pieces of which none takes long to make: other threads get their turn between them."""
    return list(_pieces(model, vectors, encoding, num_tokens))


def _pieces(model: str, vectors: Iterable[Vector], encoding: str | None, num_tokens: int) -> Iterator[bytes]:
    yield b'{"object":"list","data":['
    for index, vector in enumerate(vectors):
        value = _base64(vector) if encoding == "base64" else orjson.dumps(vector, option=orjson.OPT_SERIALIZE_NUMPY)
        yield b'%b{"object":"embedding","index":%d,"embedding":%b}' % (b"," if index else b"", index, value)
    usage = {"prompt_tokens": num_tokens, "total_tokens": num_tokens}
    yield b'],"model":%b,"usage":%b}' % (orjson.dumps(model), orjson.dumps(usage))


def _base64(vector: Vector) -> bytes:
    """Little-endian float32."""
    return b'"%b"' % b2a_base64(vector.astype("<f4").tobytes(), newline=False)
