"""The engines' own schemas of options: the one place from which this package looks at `backends`.

What they refuse a minute before a start need not cost that minute, and their words name the nearest option there is.
"""

from collections.abc import Callable, Mapping
from typing import Any

from backends.llamacpp import options as llamacpp
from backends.vllm import options as vllm
from benchmarks.engine_choice import LLAMACPP, VLLM

_READ: Mapping[str, Callable[[Mapping[str, Any]], object]] = {
    LLAMACPP: llamacpp.Options.from_mapping,
    VLLM: vllm.Options.from_mapping,
}


def problems_of(kind: str, options: Mapping[str, Any]) -> list[str]:
    """What an engine of this kind refuses in these options, one sentence each."""
    try:
        _READ[kind](options)
    except llamacpp.OptionsError as exc:
        return exc.problems
    return []
