"""The next token of each sequence, out of the logits of a step: grammar, penalties, sampler, log-probabilities."""

from __future__ import annotations

from backends.llamacpp.binding.context import Context, Logits
from backends.llamacpp.binding.model import Model
from backends.llamacpp.binding.sampler import Sampler
from backends.llamacpp.sampling import LogitsAdjuster, Row, TokenLogprobs, forbid, log_softmax, token_logprobs
from backends.llamacpp.sequence import Sequence


class Drawing:
    """Draws for the sequences of one context."""

    def __init__(self, model: Model, context: Context) -> None:
        self._end_of_generation = model.end_of_generation
        self._context = context

    def draw(self, drawing: list[tuple[Sequence, int]], logits: Logits) -> tuple[list[int], list[TokenLogprobs | None]]:
        """A token for each sequence from its row; greedy rows are drawn all at once."""
        own = [log_softmax(logits[row]) if s.params.logprobs is not None else None for s, row in drawing]
        for sequence, row in drawing:
            self._prepare(sequence)
            if sequence.adjuster is not None:
                sequence.adjuster.apply(logits[row], sequence.num_generated)
            if sequence.constraint is not None and sequence.sampler is not None:
                forbid(logits[row], sequence.constraint.allowed())
        greedy = sorted(row for sequence, row in drawing if sequence.sampler is None)
        # All rows as they lie when all are greedy: picking them would copy them.
        block = logits if len(greedy) == len(logits) else logits[greedy]
        best = dict(zip(greedy, block.argmax(axis=1).tolist() if greedy else (), strict=True))
        tokens = [
            self._permitted(sequence, best[row], logits[row])
            if sequence.sampler is None
            else sequence.sampler.sample(self._context, row)
            for sequence, row in drawing
        ]
        infos = [
            None if logprobs is None else token_logprobs(logprobs, token, sequence.params.logprobs or 0)
            for logprobs, token, (sequence, _) in zip(own, tokens, drawing, strict=True)
        ]
        return tokens, infos

    @staticmethod
    def _permitted(sequence: Sequence, best: int, row: Row) -> int:
        """The most likely token that the sequence's grammar allows, where it has one.

        Asking about one token is quicker than asking for all that may come, and mostly the answer is yes.
        """
        constraint = sequence.constraint
        if constraint is None or constraint.allows(best):
            return best
        forbid(row, constraint.allowed())
        return int(row.argmax())

    def _prepare(self, sequence: Sequence) -> None:
        """Make the parts that draw this sequence's tokens, at its first draw."""
        params = sequence.params
        if sequence.was_prepared:
            return
        sequence.was_prepared = True
        if params.changes_logits:
            prompt = sequence.tokens[: sequence.num_prompt]
            sequence.adjuster = LogitsAdjuster(params, prompt, self._end_of_generation)
        if not params.is_greedy:
            sequence.sampler = Sampler(
                temperature=params.temperature,
                top_k=params.top_k,
                typical_p=params.typical_p,
                top_p=params.top_p,
                min_p=params.min_p,
                seed=params.seed,
            )


def forget(sequence: Sequence) -> None:
    """Free what draws the tokens of a sequence that has ended."""
    if sequence.sampler is not None:
        sequence.sampler.close()
        sequence.sampler = None
