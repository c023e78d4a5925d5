"""Text that was decoded with the wrong encoding: found, and undone where no byte was lost.

What happens in practice to Korean: UTF-8 read as Latin-1 or cp1252, cp949 read as either of them, UTF-8 read as cp949, and each of them
with `errors="replace"` or `"ignore"`, so that bytes are gone.
"""

from __future__ import annotations

import re
import unicodedata

_CP1252 = {code: bytes([byte]) for byte in range(0x80, 0xA0) if (code := bytes([byte]).decode("cp1252", "ignore"))}
_HIGH = "\u0080-\u00ff" + "".join(map(re.escape, _CP1252))
_LATIN_RUN = re.compile(f"[{_HIGH}]{{2,}}(?:[ ]?[{_HIGH}]+)*")
_NEEDS_A_LOOK = re.compile(
    f"[\ufffd{_HIGH}\u0100-\u07ff\u4e00-\u9fff\uac00-\ud7a3\ud800-\udfff\x00-\x08\x0b\x0c\x0e-\x1f\x7f?]"
)
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f]")
_ESCAPES = re.compile(r"(?:\\u[0-9a-fA-F]{4}\s?){3,}")
_SURROGATE = re.compile("[\ud800-\udfff]")
_LOST = re.compile(r"(?:(?<=\s)|^)\?{2,}")
_HANGUL = re.compile("[\uac00-\ud7a3]")
_CHINESE = re.compile("[\u4e00-\u9fff\uf900-\ufaff]")
_KS_X_1001 = frozenset(
    bytes([lead, trail]).decode("euc_kr") for lead in range(0xB0, 0xC9) for trail in range(0xA1, 0xFF)
)
"""Its 2,350 syllables: Korean hardly uses others, garbled bytes mostly hit them."""
_COMMON = frozenset(
    "이다는에을가의고하지한로기사자어리해도서시대나인아은있스라정그일수들으를보상과게전부주제여만원니요세드면것성구장동안거공선조미유경문비러모음적"
    "오국우되습합없내소방신마위바관계개학실물무저와연재작반품년알려받결확처회차조번호진생때요송배교환불입점까된였했않할될네"
)
"""Syllables that make up more than half of any Korean text."""
_MIN_COMMON, _ENOUGH_LETTERS = 0.25, 16
_MARK_WITHIN = re.compile("[?][\uac00-\ud7a3\u4e00-\u9fff]")
_MIXED_WORD = re.compile("[\uac00-\ud7a3][\u4e00-\u9fff\uf900-\ufaff]|[\u4e00-\u9fff\uf900-\ufaff][\uac00-\ud7a3]")
_SCRIPT_WORD = re.compile("[^\\W\\d_]*[\u0180-\u07bf][^\\W\\d_]*")
_DECOMPOSED = re.compile("[\u1100-\u11ff]")


def why_broken(text: str) -> str | None:
    """What is wrong with the encoding of a text; None where nothing is."""
    if "\\u" in text and _ESCAPES.search(text):
        return "escapes such as \\\\uc548 that were not decoded"
    if text.isascii():
        return _why_plain(text)
    if not _NEEDS_A_LOOK.search(text):
        return None
    if "\ufffd" in text:
        return "U+FFFD: bytes were lost when it was decoded"
    if _SURROGATE.search(text):
        return "half of a surrogate pair"
    if any(_undo_latin(run.group()) for run in _LATIN_RUN.finditer(text)):
        return "UTF-8 or cp949 that was read as Latin-1"
    if _CONTROL.search(text):
        return "control characters"
    if _is_cp949_garble(text):
        return "UTF-8 that was read as cp949"
    if _is_script_salad(text):
        return "letters of unrelated scripts within words, as after decoding with errors ignored"
    return _why_plain(text)


def repair(text: str) -> str:
    """The text with every run restored that can be restored without loss, and in Unicode's composed form (NFC).

    What was lost stays lost: ask `why_broken` again.
    """
    whole = _undo_cp949(text) if _is_cp949_garble(text) else None
    if whole is None:
        whole = _LATIN_RUN.sub(lambda run: _undo_latin(run.group()) or run.group(), text)
    whole = _ESCAPES.sub(lambda run: run.group().encode("ascii").decode("unicode_escape"), whole)
    if _SURROGATE.search(whole):
        whole = whole.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return unicodedata.normalize("NFC", whole)


def is_decomposed(text: str) -> bool:
    """Whether Korean is written in single letters (jamo), as macOS names files: another sequence of tokens for the same words."""
    return bool(_DECOMPOSED.search(text)) and unicodedata.normalize("NFC", text) != text


def _why_plain(text: str) -> str | None:
    if _CONTROL.search(text):
        return "control characters"
    runs = _LOST.findall(text)
    if len(runs) >= 2 and text.count("?") >= 0.3 * len("".join(text.split())):
        return "question marks in place of letters"
    return None


def _undo_latin(run: str) -> str | None:
    """The text that these Latin-1 characters are the bytes of; None where they are meant."""
    raw = b"".join(_CP1252.get(char) or char.encode("latin-1", "ignore") for char in run)
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        return _undo_korean(raw) or _undo_partly(raw)
    return text if any(ord(char) > 0x7F for char in text) else None


def _undo_korean(raw: bytes) -> str | None:
    """cp949, if nearly all of it is Hangul: four letters with accents in a row are no word of any language."""
    try:
        text = raw.decode("cp949")
    except UnicodeDecodeError:
        return None
    letters = [char for char in text if not char.isspace()]
    num_hangul = sum("\uac00" <= char <= "\ud7a3" for char in letters)
    return text if len(letters) >= 2 and num_hangul >= 0.8 * len(letters) else None


def _undo_partly(raw: bytes) -> str | None:
    """A long run that is UTF-8 but for a few bytes that got lost."""
    text = raw.decode("utf-8", "replace")
    num_lost = text.count("\ufffd")
    return text if len(raw) >= 6 and len(text) - num_lost >= 2 * num_lost else None


def _is_cp949_garble(text: str) -> bool:
    """UTF-8 of Korean, read as cp949, is rare syllables and Chinese characters, mixed within words."""
    syllables = _HANGUL.findall(text)
    if "占쏙옙" in text:
        return True
    rare, chinese = len(set(syllables) - _KS_X_1001), len(_CHINESE.findall(text))
    if rare + chinese == 0:
        return False
    letters = chinese + len(syllables)
    is_unlike_korean = sum(char in _COMMON for char in syllables) < _MIN_COMMON * letters
    if letters >= _ENOUGH_LETTERS:
        return is_unlike_korean
    if rare >= 2 and rare >= 0.3 * len(set(syllables)):
        return is_unlike_korean
    if len(_MIXED_WORD.findall(text)) >= 3 and chinese >= 0.2 * letters:
        return True
    return len(_MARK_WITHIN.findall(text)) >= max(4, 0.1 * letters) or _is_utf8_inside(text)


def _is_utf8_inside(text: str) -> bool:
    """Whether the text's cp949 bytes are, for the greater part, Korean in UTF-8. Those of real Korean never are."""
    raw = text.encode("cp949", "ignore")
    num_foreign = sum(byte > 0x7F for byte in raw)
    return 2 * 3 * len(_HANGUL.findall(raw.decode("utf-8", "ignore"))) >= num_foreign >= 6


def _undo_cp949(text: str) -> str | None:
    try:
        return text.encode("cp949").decode("utf-8")
    except UnicodeError:
        return None


def _is_script_salad(text: str) -> bool:
    words = _SCRIPT_WORD.findall(text)
    mixed = sum(len({_script(char) for char in word}) >= 2 for word in words)
    return mixed >= 2 or (mixed == 1 and len(words) == 1 and len(text) < 20)


def _script(char: str) -> str:
    if char < "\u0180":
        return "LATIN"
    return unicodedata.name(char, "?").partition(" ")[0]
