"""Whole characters only, stop strings found across token borders, nothing of them sent."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from backends.llamacpp.text import TextStream


def run(stream: TextStream, pieces: list[bytes]) -> list[str]:
    sent = []
    for piece in pieces:
        sent.append(stream.push(piece))
        if stream.stopped_by is not None:
            return sent
    return [*sent, stream.finish()]


def cut(data: bytes, at: list[int]) -> list[bytes]:
    borders = sorted({min(a, len(data)) for a in at} | {0, len(data)})
    return [data[a:b] for a, b in itertools.pairwise(borders)]


@given(st.text(), st.lists(st.integers(0, 60)))
def test_text_arrives_whole_however_it_is_cut(text: str, at: list[int]) -> None:
    sent = run(TextStream(), cut(text.encode(), at))
    assert "".join(sent) == text
    assert all("\ufffd" not in piece for piece in sent) or "\ufffd" in text


@given(
    st.text(alphabet="abc안", max_size=40),
    st.lists(st.integers(0, 60)),
    st.lists(st.text(alphabet="abc안", min_size=1, max_size=4), min_size=1, max_size=5),
)
def test_stops_are_found_across_borders(text: str, at: list[int], stops: list[str]) -> None:
    stream = TextStream(stops)
    sent = "".join(run(stream, cut(text.encode(), at)))
    found = [text.index(stop) for stop in stops if stop in text]
    assert (stream.stopped_by is not None) == bool(found)
    if found:
        # A stop that ends later than another may begin earlier: what ends first, ends the answer.
        first_end = min(text.index(stop) + len(stop) for stop in stops if stop in text)
        assert sent == text[: len(sent)]
        assert not any(stop in sent for stop in stops)
        assert len(sent) < first_end or not at
    else:
        assert sent == text


def test_half_a_character_at_the_end_is_replaced() -> None:
    assert "".join(run(TextStream(), ["안".encode()[:2]])) == "\ufffd"


def test_a_possible_stop_is_held_back_until_it_is_known() -> None:
    stream = TextStream(["END"])
    assert stream.push(b"the E") == "the "
    assert stream.push(b"N") == ""
    assert stream.push(b"TRY") == "ENTRY"
    assert stream.push(b" EN") == " "
    assert stream.push(b"D more") == ""
    assert stream.stopped_by is not None
