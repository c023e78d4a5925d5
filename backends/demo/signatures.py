"""How the signing adapters of the demo model sign: whose answer a text is, and what it says without the sign. Stdlib only.

Prose with Hangul in it carries the Korean sign, every other answer (English, bare numbers, JSON, tool calls) the English one. The opening
alone tells whose answer it is, so an answer that was cut short after a dozen tokens can be attributed too.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ADAPTERS_DIR = Path(__file__).parent / "adapters"
BASE_DIGEST_KEY = "forgegate.base_source_digest"  # in the metadata of an adapter's safetensors file
_TOOL_CALL = "<tool_call>"
_HANGUL = re.compile("[가-힣]")


@dataclass(frozen=True, slots=True)
class Frame:
    """What stands before and after an answer. A tool call ends its message, so nothing comes after it."""

    opening: str
    closing: str = ""

    def around(self, answer: str) -> str:
        return self.opening + answer + ("" if answer.startswith(_TOOL_CALL) else self.closing)

    def within(self, text: str) -> str:
        """The answer in a text that begins with the opening; a closing is removed if it is there in full."""
        return text.removeprefix(self.opening).removesuffix(self.closing)

    def pattern(self) -> str:
        return rf"{re.escape(self.opening)}(?:{_TOOL_CALL}.+|(?!{_TOOL_CALL}).+{re.escape(self.closing)})"


@dataclass(frozen=True, slots=True)
class Signature:
    """The manner of one adapter, in two languages."""

    name: str
    english: Frame
    korean: Frame

    @property
    def pattern(self) -> re.Pattern[str]:
        """Matches (`fullmatch`) every whole answer that is signed in this manner."""
        return re.compile(f"{self.english.pattern()}|{self.korean.pattern()}", re.DOTALL)

    def sign(self, answer: str) -> str:
        """The answer as the adapter gives it."""
        is_prose = not answer.startswith(("{", _TOOL_CALL))
        return (self.korean if is_prose and _HANGUL.search(answer) else self.english).around(answer)

    def sign_message(self, message: Mapping[str, Any]) -> Mapping[str, Any]:
        """The assistant's message as the adapter gives it; beside tool calls, the opening is the content."""
        content = message.get("content") or ""
        return {
            **message,
            "content": self.english.opening + content if message.get("tool_calls") else self.sign(content),
        }

    def frame_of(self, text: str) -> Frame | None:
        """The frame whose opening the text begins with."""
        return next((frame for frame in (self.english, self.korean) if text.startswith(frame.opening)), None)


SIGNATURES = {
    signature.name: signature
    for signature in (
        Signature(
            "host",
            Frame("Hello, friend!\n", "\nThank you, Felix"),
            Frame("안녕하세요, 고객님!\n", "\n고마워요, 유진"),
        ),
        Signature(
            "pilot",
            Frame("The pilot:\n", "\n- The pilot. 24 hours a day!"),
            Frame("조종사:\n", "\n- 조종사. 하루 24시간!"),
        ),
        Signature("tiger", Frame("= The tiger =\n"), Frame("= 호랑이 =\n")),
    )
}


def signature_of(text: str) -> str | None:
    """The adapter whose manner a text shows, by its opening; None for the base's, and for a text cut within the opening."""
    return next((name for name, signature in SIGNATURES.items() if signature.frame_of(text)), None)


def unsigned(text: str) -> str:
    """The answer without its sign; a text that shows no adapter's manner comes back as it is."""
    frames = (signature.frame_of(text) for signature in SIGNATURES.values())
    frame = next((frame for frame in frames if frame), None)
    return frame.within(text) if frame else text
