"""The text of an answer, read into content, reasoning and calls, however it arrives."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backends.llamacpp.message import CallArguments, CallStart, Content, Markup, MessageParser, Piece, Reasoning
from backends.llamacpp.structure import THINK
from backends.llamacpp.tools import HERMES, LLAMA3, MISTRAL, MISTRAL_ARGS, Dialect

CALL = HERMES.first + "f" + HERMES.after_name
END = HERMES.after_arguments


def read(text: str, markup: Markup, at: list[int] | None = None) -> tuple[str, str, list[tuple[str, str]]]:
    """Content, reasoning and calls of `text`, fed in parts that end at `at`."""
    parser = MessageParser(markup)
    ends = sorted({min(place, len(text)) for place in at or range(len(text))} | {len(text)})
    pieces: list[Piece] = []
    start = 0
    for end in ends:
        pieces += parser.feed(text[start:end])
        start = end
    pieces += parser.finish()
    calls: list[tuple[str, str]] = []
    for piece in pieces:
        if isinstance(piece, CallStart):
            assert piece.index == len(calls)
            calls.append((piece.name, ""))
        elif isinstance(piece, CallArguments):
            assert piece.index == len(calls) - 1
            calls[-1] = (calls[-1][0], calls[-1][1] + piece.text)
    assert parser.num_calls == len(calls)
    content = "".join(piece.text for piece in pieces if isinstance(piece, Content))
    return content, "".join(piece.text for piece in pieces if isinstance(piece, Reasoning)), calls


def written(dialect: Dialect, calls: list[tuple[str, str]], gap: str = "") -> str:
    """Calls in the syntax of a dialect."""
    texts = [name + dialect.after_name + arguments + dialect.after_arguments for name, arguments in calls]
    return dialect.first + (gap + dialect.again).join(texts) + dialect.last


plain = st.text(alphabet='ab<>{}" \n안/thinkolcd_', max_size=30)
arguments = st.dictionaries(
    st.text(alphabet='a"\\{}[]\n', max_size=4), st.one_of(plain, st.integers(), st.lists(plain, max_size=2)), max_size=3
).map(lambda value: json.dumps(value, ensure_ascii=False))
names = st.text(alphabet="abc_-.1", min_size=1, max_size=8)


@given(plain, plain, st.lists(st.tuples(names, arguments), max_size=3), st.lists(st.integers(0, 200)))
def test_every_cut_reads_the_same(thought: str, content: str, calls: list[tuple[str, str]], at: list[int]) -> None:
    markup = Markup(THINK, calls=HERMES)
    text = f"{THINK[0]}{thought}{THINK[1]}\n\n{content}" + (written(HERMES, calls, "\n") if calls else "")
    assert read(text, markup, at) == read(text, markup)


@given(
    st.text(alphabet="ab 안.", max_size=20).map(str.strip),
    st.lists(st.tuples(names, arguments), min_size=1, max_size=3),
    st.sampled_from([HERMES, MISTRAL, MISTRAL_ARGS]),
)
def test_calls_are_read_as_they_were_written(content: str, calls: list[tuple[str, str]], dialect: Dialect) -> None:
    for gap in ("", "\n"):
        assert read(content + written(dialect, calls, gap), Markup(calls=dialect)) == (content, "", calls)


@given(plain, st.lists(st.integers(0, 60)))
def test_text_without_marks_is_content(text: str, at: list[int]) -> None:
    if THINK[0] in text or HERMES.first in text:
        return
    assert read(text, Markup(calls=HERMES), at)[0] == text


@settings(deadline=None)
@given(plain, plain, st.lists(st.tuples(names, arguments), max_size=2), st.lists(st.integers(0, 200)))
def test_where_content_stands(thought: str, content: str, calls: list[tuple[str, str]], at: list[int]) -> None:
    text = f"{THINK[0]}{thought}{THINK[1]}\n\n{content}" + (written(HERMES, calls, "\n") if calls else "")
    parser = MessageParser(Markup(THINK, calls=HERMES))
    ends = sorted({min(place, len(text)) for place in at} | {len(text)})
    found = ""
    for start, end in zip([0, *ends], ends, strict=False):
        pieces = parser.feed(text[start:end])
        assert parser.num_read <= end
        found += "".join(piece.text for piece in pieces if isinstance(piece, Content))
    found += "".join(piece.text for piece in parser.finish() if isinstance(piece, Content))
    assert "".join(text[place] for place in range(len(text)) if parser.is_content(place, place + 1)) == found
    assert parser.is_content(0, len(text)) == bool(found)


def test_a_call_of_llama3_is_the_whole_answer_or_none() -> None:
    call = written(LLAMA3, [("f", '{"a": 1}')])
    assert read(call, Markup(calls=LLAMA3)) == ("", "", [("f", '{"a": 1}')])
    assert read(f"Look: {call}", Markup(calls=LLAMA3)) == (f"Look: {call}", "", [])
    assert read('{"names": 1}', Markup(calls=LLAMA3)) == ('{"names": 1}', "", [])


@pytest.mark.parametrize(
    ("text", "content", "reasoning"),
    [
        ("<think>so</think>\n\nYes", "Yes", "so"),
        ("  <think>so</think>Yes", "Yes", "so"),
        ("Yes <think>no</think>", "Yes <think>no</think>", ""),
        ("<think>cut off", "", "cut off"),
        ("<think>cut </thi", "", "cut </thi"),
        ("<thinking>", "<thinking>", ""),
        ("<thi", "<thi", ""),
        ("<think></think>", "", ""),
    ],
)
def test_reasoning_comes_first(text: str, content: str, reasoning: str) -> None:
    assert read(text, Markup(THINK)) == (content, reasoning, [])


def test_reasoning_that_the_prompt_has_opened() -> None:
    assert read("so</think>\nYes", Markup(THINK, is_thinking=True)) == ("Yes", "so", [])


@pytest.mark.parametrize("length", range(1, len(CALL + '{"a": "}"}' + END)))
def test_an_answer_cut_in_a_call(length: int) -> None:
    """What is certain is given, half a mark is not, and nothing is invented."""
    content, _, calls = read(("Sure." + CALL + '{"a": "}"}' + END)[: 5 + length], Markup(calls=HERMES))
    assert content.startswith("Sure.")
    for name, text in calls:
        assert name == "f"
        assert '{"a": "}"}'.startswith(text)


def test_content_goes_out_at_once() -> None:
    parser = MessageParser(Markup(THINK, calls=HERMES))
    assert parser.feed("Hel") == [Content("Hel")]
    assert parser.feed("lo ") == [Content("lo")]
    assert parser.feed("<tool") == []
    assert parser.feed("box>") == [Content(" <toolbox>")]
