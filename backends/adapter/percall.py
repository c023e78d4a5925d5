"""How much of what is to be scored one call carries. Standard library only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

TOKENS_PER_CALL, TEXTS_PER_CALL = 4096, 64


def parts(texts: Sequence[Sequence[int]], max_texts: int = TEXTS_PER_CALL) -> Iterator[Sequence[Sequence[int]]]:
    """The texts, a call's worth at a time."""
    begin = num_tokens = 0
    for index, text in enumerate(texts):
        if index > begin and (num_tokens + len(text) > TOKENS_PER_CALL or index - begin == max_texts):
            yield texts[begin:index]
            begin, num_tokens = index, 0
        num_tokens += len(text)
    if begin < len(texts):
        yield texts[begin:]
