"""How much of an expected text an answer has: F1 of tokens and ROUGE-L, for Korean and English alike.

A token is a word of letters or digits, or one Korean, Chinese or Japanese character: Korean words carry their particles, so that as
whole words `서울은` and `서울이` would have nothing in common. Case, width of characters and punctuation do not count.

F1     Rajpurkar et al., SQuAD, https://arxiv.org/abs/1606.05250 (without its dropping of English articles)
ROUGE-L Lin, https://aclanthology.org/W04-1013, F-measure with equal weights
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence

_TOKEN = re.compile(
    r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7a3]|[^\W_\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7a3]+"
)


def tokens(text: str) -> list[str]:
    return _TOKEN.findall(unicodedata.normalize("NFKC", text).casefold())


def f1(expected: str, answer: str) -> float:
    """In [0, 1]; of two texts without a token 1."""
    wanted, found = tokens(expected), tokens(answer)
    return _f_measure((Counter(wanted) & Counter(found)).total(), len(wanted), len(found))


def rouge_l(expected: str, answer: str) -> float:
    """In [0, 1]; of two texts without a token 1."""
    wanted, found = tokens(expected), tokens(answer)
    return _f_measure(_longest_common(wanted, found), len(wanted), len(found))


def _f_measure(num_common: int, num_wanted: int, num_found: int) -> float:
    if num_wanted == num_found == 0:
        return 1.0
    return 2 * num_common / (num_wanted + num_found)


def _longest_common(left: Sequence[str], right: Sequence[str]) -> int:
    """Length of the longest common subsequence."""
    row = [0] * (len(right) + 1)
    for token in left:
        diagonal = 0
        for place, other in enumerate(right, 1):
            diagonal, row[place] = row[place], diagonal + 1 if token == other else max(row[place], row[place - 1])
    return row[-1]
