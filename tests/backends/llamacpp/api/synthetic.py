"""Answers whose tokens are given: everything but the engine is real."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
from hypothesis import strategies as st

from backends.llamacpp.answer import Answer, AnswerFailed, Choice, Wire
from backends.llamacpp.engine import Output
from backends.llamacpp.message import Markup, MessageParser
from backends.llamacpp.sampling import SamplingParams, TokenLogprobs
from backends.llamacpp.sequence import Finish
from backends.llamacpp.sequence import Sequence as EngineSequence
from backends.llamacpp.structure import THINK
from backends.llamacpp.tools import HERMES

NUM_PROMPT = 7
NUM_CACHED = 3
FULL = Markup(THINK, calls=HERMES)


@dataclass(frozen=True)
class Script:
    """What the engine would deliver: the bytes of each token, and why it ends."""

    tokens: tuple[bytes, ...]
    finish: Finish = Finish.STOP
    markup: Markup = FULL
    stops: tuple[str, ...] = ()

    def token_text(self, token: int) -> bytes:
        return self.tokens[token] if token < len(self.tokens) else b"<end>"


def streamed(script: Script, wire: Wire) -> bytes:
    """The whole stream of the answer. Raises AnswerFailed where there was nothing to send before it failed."""

    async def run() -> bytes:
        answer = _answered(script, wire, stream=True)
        await answer.first()
        return b"".join([chunk async for chunk in answer.read()])

    return asyncio.run(run())


def whole(script: Script, wire: Wire) -> dict[str, Any]:
    """The body of the answer. Raises AnswerFailed."""

    async def run() -> dict[str, Any]:
        return orjson.loads(await _answered(script, wire, stream=False).body())  # type: ignore[no-any-return]

    return asyncio.run(run())


def fails(script: Script, wire: Wire) -> bool:
    try:
        whole(script, wire)
    except AnswerFailed:
        return True
    return False


def _answered(script: Script, wire: Wire, *, stream: bool) -> Answer:
    answer = Answer(wire, script.token_text, lambda sequence, *, is_gone: None, stream=stream)
    parser = None if script.markup.is_plain else MessageParser(script.markup)
    choice = Choice(answer, 0, NUM_PROMPT, script.stops, parser=parser)
    choice.sequence = EngineSequence.of(1, np.zeros(NUM_PROMPT, np.int32), SamplingParams(max_tokens=1), choice)
    choice.sequence.num_reused = NUM_CACHED
    answer.choices.append(choice)
    for output in _outputs(script, choice.sequence):
        choice.push(output)
    return answer


def _outputs(script: Script, sequence: EngineSequence) -> list[Output]:
    outputs = [
        Output(sequence, token, TokenLogprobs(token, -0.5, ((token, -0.5),))) for token in range(len(script.tokens))
    ]
    if script.finish is Finish.ERROR:
        return [*outputs, Output(sequence, None, finish=Finish.ERROR, error="it broke")]
    if script.finish is Finish.LENGTH and outputs:
        last = outputs.pop()
        return [*outputs, Output(sequence, last.token, last.logprobs, finish=Finish.LENGTH)]
    token = len(script.tokens) if script.finish is Finish.STOP else None
    return [*outputs, Output(sequence, token, finish=script.finish)]


# ---------------------------------------------------------------------- random ones

texts = st.text(alphabet='ab {}"안🙂\n<', max_size=16)
values = st.recursive(
    st.one_of(st.integers(), st.booleans(), texts), lambda inner: st.lists(inner, max_size=3), max_leaves=4
)
calls = st.tuples(
    st.text(alphabet="abc_-", min_size=1, max_size=6),
    st.dictionaries(texts, values, max_size=3).map(lambda value: json.dumps(value, ensure_ascii=False)),
)


def written_calls(found: Sequence[tuple[str, str]]) -> str:
    return "\n".join(HERMES.first + name + HERMES.after_name + text + HERMES.after_arguments for name, text in found)


@st.composite
def scripts(draw: st.DrawFn, *, stops: bool = False) -> Script:
    """Thoughts, text and calls, cut anywhere: into tokens, and off; with `stops`, perhaps by a stop string."""
    thought = draw(st.none() | texts)
    text = "" if thought is None else f"{THINK[0]}{thought}{THINK[1]}\n\n"
    text += draw(texts) + written_calls(draw(st.lists(calls, max_size=3)))
    data = text.encode()
    finish = draw(st.sampled_from([Finish.STOP, Finish.LENGTH, Finish.ERROR]))
    if finish is not Finish.STOP:
        data = data[: draw(st.integers(0, len(data)))]
    ends = sorted({*draw(st.lists(st.integers(1, max(len(data), 1)), max_size=30)), len(data)})
    tokens = tuple(data[start:end] for start, end in zip([0, *ends], ends, strict=False))
    found = draw(st.lists(st.sampled_from(["a", "b\n", "안", '": ']), max_size=1)) if stops else ()
    return Script(tokens, finish, stops=tuple(found))
