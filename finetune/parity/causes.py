"""What is likely wrong where a check failed, from the most to the least certain. Pure.

bos        the endpoint's prompts begin with one more, or one less, beginning-of-sequence token
template   its chat template is not that of training
scale      the adapter is served, with another strength
base       the adapter is not applied, or its base has other weights
adapter    another adapter is served
ends       answers were trained without their end, or the endpoint does not stop at it
sampling   the endpoint does not draw greedily what it scores rightly
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from finetune.parity.cases import Case
from finetune.parity.checks import SLOPE, Check, Scores, changed, left_over
from finetune.parity.reference import Rows
from finetune.parity.tolerance import TOLERANCES

NO_ADAPTER, ITSELF = "no adapter", "the adapter itself"


@dataclass(frozen=True, slots=True)
class Cause:
    name: str
    words: str


def of_ids(cases: Sequence[Case], served: Sequence[Sequence[int]], bos: int | None) -> Cause:
    """Of prompts that are rendered to other ids."""
    pairs = [(case.prompt, tuple(ids)) for case, ids in zip(cases, served, strict=True) if tuple(ids) != case.prompt]
    if bos is not None and all(theirs == (bos, *ours) for ours, theirs in pairs):
        is_doubled = all(ours[:1] == (bos,) for ours, _ in pairs)
        return Cause("bos", _DOUBLED if is_doubled else _ADDED)
    if bos is not None and all(ours == (bos, *theirs) for ours, theirs in pairs):
        return Cause("bos", _MISSING)
    return Cause("template", _TEMPLATE)


def of_lengths() -> Cause:
    """Of prompts that have other numbers of tokens, which is all that is known of them."""
    return Cause("template", _TEMPLATE)


def of_scores(scores: Scores, wrong: Mapping[str, Rows], is_same_base: bool | None) -> Cause:
    """Of log-probabilities. `wrong`: as wrong scales would have them; `is_same_base`: None where the endpoint does not tell its weights."""
    if is_foreign_base(scores, is_same_base):
        return Cause("base", _OTHER_BASE.format(error=scores.base_error))
    others = {ITSELF: scores.adapter, NO_ADAPTER: scores.base}
    left = left_over(scores, {**others, **{f"scale {name}": rows for name, rows in wrong.items()}})
    best = min(left, key=lambda name: left[name])
    if left[best] > explained(left[NO_ADAPTER], scores):
        return _neither(left[best], scores, is_same_base)
    if best == NO_ADAPTER:
        return Cause("base", _NOT_APPLIED)
    if best != ITSELF:
        return Cause("scale", _SCALE.format(name=best.removeprefix("scale ")))
    return Cause("base", _COARSE if is_same_base else _FAR)


def of_digest() -> Cause:
    """Of a base that is known to be another, however near it lies."""
    return Cause("base", _OTHER_DIGEST)


def explained(served: float, scores: Scores) -> float:
    """How much may be left of a served change that is explained: as for a proof, a share of it, and twice what the base differs by."""
    return math.hypot(SLOPE * max(served, changed(scores)), 2 * (scores.base_error or 0.0))


def is_foreign_base(scores: Scores, is_same_base: bool | None) -> bool:
    """Whether the endpoint's base lies further off than any quantisation."""
    return not is_same_base and scores.base_error is not None and scores.base_error > TOLERANCES[-1].base


def of_ends(is_untrained: bool) -> Cause:
    return Cause("ends", _UNTRAINED if is_untrained else _NO_STOP)


def of_greedy() -> Cause:
    """Of answers that differ although everything else is right."""
    return Cause("sampling", _SAMPLING)


def found(checks: Sequence[Check], causes: Mapping[str, Cause]) -> tuple[Cause, ...]:
    """Those of the checks that failed; what follows from an earlier one is not told again. `causes`: by the checks' names."""
    failed = [check.name for check in checks if check.state == "fail"]
    told = [causes[name] for name in failed if name in ("ids", "scores")]
    if not told:
        told = [causes[name] for name in failed[:1]]
    return tuple(told)


def _neither(left: float, scores: Scores, is_same_base: bool | None) -> Cause:
    """Not the adapter, at whatever scale: what is known of the base says which of the two is another."""
    if is_same_base or (is_same_base is None and scores.base_error is not None):
        return Cause("adapter", _OTHER_ADAPTER)
    known = "; its base has another digest than the one given" if is_same_base is False else ""
    return Cause("base", _NEITHER.format(left=left, effect=changed(scores), known=known))


_DOUBLED = (
    "the beginning-of-sequence token is there twice: the chat template writes it and the endpoint's tokenizer adds another; set "
    "add_bos_token to false in tokenizer_config.json (of a GGUF: tokenizer.ggml.add_bos_token)"
)
_ADDED = (
    "the endpoint puts a beginning-of-sequence token before prompts, training had none: set add_bos_token to false in "
    "tokenizer_config.json (of a GGUF: tokenizer.ggml.add_bos_token)"
)
_MISSING = (
    "the beginning-of-sequence token of training is missing: the endpoint's chat template does not write it; serve the base with the "
    "template that it was trained with"
)
_TEMPLATE = (
    "the endpoint has another chat template than training: serve the base with its own (for llama.cpp the option chat_template, for vLLM "
    "chat_template in the model's folder), or train with the endpoint's"
)
_NOT_APPLIED = (
    "the endpoint answers as the base, without the adapter: it is not applied; ask for the adapter's name, and publish it if it is "
    "not there"
)
_SCALE = (
    "the adapter is served with its scale {name}: alpha and r are read otherwise than in training (lora_alpha, use_rslora, "
    "alpha_pattern); publish the canonical adapter, in which the scale is part of the weights: forgegate export"
)
_OTHER_ADAPTER = "another adapter on the same base is served: publish this one, or ask for its version (NAME@DIGEST)"
_OTHER_BASE = (
    "the endpoint's base differs by {error:.2f} nat from the one given: it is another model; name its own with --base"
)
_OTHER_DIGEST = (
    "the served base has another digest than the one given: it is another model, perhaps another fine-tune of the same one; name its own "
    "with --base. A form of it that was made elsewhere (a downloaded GGUF or AWQ) has a digest of its own, too: say which with --weights"
)
_NEITHER = (
    "what is served is neither base nor adapter ({left:.3f} nat are left, the adapter changes {effect:.3f}){known}: another base, or "
    "another adapter"
)
_COARSE = (
    "its weights are coarser than said (--weights), or were quantised badly: quantise the base anew with an importance matrix, or "
    "serve a finer level"
)
_FAR = "the adapter is applied, but what carries it lies too far off: it may be another base, or " + _COARSE
_UNTRAINED = (
    "the end token was not part of the loss: train with a chat template that marks it as the assistant's (forgegate data show FILE "
    "--model BASE)"
)
_NO_STOP = (
    "the endpoint does not stop at the end token: its generation_config.json or GGUF names another one (eos_token_id)"
)
_SAMPLING = (
    "the endpoint scores rightly and answers otherwise: something between them changes its choice, such as repetition_penalty in "
    "generation_config.json"
)
