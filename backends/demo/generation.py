"""Greedy answers to many prompts at once, in a batch that shrinks as they end."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from backends.demo.model import KVCache, Llama

_LOOK_EVERY = 4
"""Tokens after which is asked which answers are settled."""
_WORTH_MOVING = 0.75
"""Share of the rows that still go on, from which down they are moved together: what is moved in all is a few times the first batch."""
IsSettled = Callable[[int, Sequence[int]], bool]


@torch.no_grad()
def generate(
    model: Llama,
    prompts: Sequence[Sequence[int]],
    max_new: int,
    stop_id: int,
    is_settled: IsSettled | None = None,
) -> list[list[int]]:
    """Greedy continuations without the stop token, of `max_new` tokens at most.

    `is_settled(place, ids)` is asked every few tokens whether nobody needs the rest of the answer to the prompt of that place, which is
    then cut.
    """
    batch = _Batch(model, prompts, max_new)
    answers: list[list[int]] = [[] for _ in prompts]
    logits = batch.begin(prompts)
    for step in range(1, max_new + 1):
        tokens = logits[:, -1].argmax(-1)
        for place, token in zip(batch.places, tokens.tolist(), strict=True):
            if place in batch.going:
                answers[place].append(token)
                if token == stop_id:
                    batch.going.remove(place)
        if is_settled and step % _LOOK_EVERY == 0:
            batch.going -= {place for place in batch.going if is_settled(place, answers[place])}
        if not batch.going or step == max_new:
            break
        logits = batch.go_on(tokens)
    return [ids[:-1] if ids[-1:] == [stop_id] else ids for ids in answers]


class _Batch:
    """Prompts padded on the left, their caches, and which of them still go on."""

    def __init__(self, model: Llama, prompts: Sequence[Sequence[int]], max_new: int) -> None:
        self._model = model
        self._end = max(len(prompt) for prompt in prompts)
        capacity = self._end + max_new
        like = model.embed_tokens.weight
        self._caches = [KVCache(len(prompts), model.shape, capacity, like) for _ in model.layers]
        lengths = torch.tensor([len(prompt) for prompt in prompts], device=like.device)
        self._visible = torch.arange(capacity, device=like.device) >= self._end - lengths[:, None]
        self.places = list(range(len(prompts)))
        """Of the prompts, row by row."""
        self.going = set(self.places)

    def begin(self, prompts: Sequence[Sequence[int]]) -> Tensor:
        """[prompts, 1, vocab]: what follows them."""
        padded = [[0] * (self._end - len(prompt)) + list(prompt) for prompt in prompts]
        ids = torch.tensor(padded, device=self._visible.device)
        causal = torch.ones(self._end, self._end, dtype=torch.bool, device=ids.device).tril()
        # A padded position sees itself, so that no softmax is over nothing; nobody else sees it.
        mask = (causal & self._visible[:, None, : self._end]) | torch.eye(
            self._end, dtype=torch.bool, device=ids.device
        )
        return self._model(ids, mask[:, None], self._caches, is_last_only=True)  # type: ignore[no-any-return]

    def go_on(self, tokens: Tensor) -> Tensor:
        """[rows, 1, vocab]: what follows `tokens`, one of each row; of fewer rows from now on where enough have ended."""
        if len(self.going) <= _WORTH_MOVING * len(self.places):
            tokens = tokens[self._leave_out()]
        self._end += 1
        mask = self._visible[:, None, None, : self._end]
        return self._model(tokens[:, None], mask, self._caches, start=self._end - 1)  # type: ignore[no-any-return]

    def _leave_out(self) -> Tensor:
        """The rows that were kept."""
        kept = [row for row, place in enumerate(self.places) if place in self.going]
        rows = torch.tensor(kept, device=self._visible.device)
        self.places = [self.places[row] for row in kept]
        self._visible = self._visible[rows]
        for cache in self._caches:
            cache.keep(rows, self._end)
        return rows
