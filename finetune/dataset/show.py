"""Rows as the model sees them: every token, those that the loss counts in colour."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

from rich.text import Text

from finetune.dataset.row import Row
from finetune.dataset.tokens import ModelTokens, Rendered

_TRAINED, _ENDS, _CUT = "bold green", "bold black on green", "strike red"


@dataclass(frozen=True, slots=True)
class Span:
    text: str
    is_trained: bool
    is_end: bool
    is_cut: bool


@dataclass(frozen=True, slots=True)
class View:
    number: int
    form: str
    rendered: Rendered
    spans: tuple[Span, ...]
    num_kept: int

    @property
    def num_trained(self) -> int:
        return sum(self.rendered.is_trained[: self.num_kept])

    @property
    def is_end_trained(self) -> bool:
        return any(span.is_end and span.is_trained and not span.is_cut for span in self.spans)


def view_of(row: Row, tokens: ModelTokens, max_length: int) -> View:
    """Raises DataUnusable where the chat template refuses the row."""
    rendered = tokens.render(row)
    marked = [
        (number, is_trained, number in tokens.ends, place >= max_length)
        for place, (number, is_trained) in enumerate(zip(rendered.ids, rendered.is_trained, strict=True))
    ]
    spans = tuple(
        Span(tokens.text([number for number, *_ in part]), *kind)
        for kind, part in groupby(marked, key=lambda mark: (mark[1], mark[2], mark[3]))
    )
    return View(row.number, row.form, rendered, spans, min(len(rendered), max_length))


def summary(view: View) -> str:
    words = f"row {view.number} ({view.form}): {len(view.rendered)} tokens, {view.num_trained} trained"
    if view.num_kept < len(view.rendered):
        words += f", {len(view.rendered) - view.num_kept} cut off by max_length"
    return words + ("" if view.is_end_trained else "; the end of the answer is NOT trained")


def coloured(view: View) -> Text:
    text = Text()
    for span in view.spans:
        style = (
            _CUT
            if span.is_cut
            else _ENDS
            if span.is_end and span.is_trained
            else _TRAINED
            if span.is_trained
            else "dim"
        )
        text.append(span.text, style)
    return text


def marked(view: View) -> str:
    """For pipes: what is trained stands within ⟦ ⟧, what is cut off within ✂ ✂."""
    return "".join(_marked(view))


def _marked(view: View) -> Iterator[str]:
    for (is_trained, is_cut), spans in groupby(view.spans, key=lambda span: (span.is_trained, span.is_cut)):
        text = "".join(span.text for span in spans)
        yield f"✂{text}✂" if is_cut else f"⟦{text}⟧" if is_trained else text
