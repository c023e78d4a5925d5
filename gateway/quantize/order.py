"""What `forgegate quantize` is to do, and what came of it. Values."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from backends.llamacpp.quantize.estimate import Interval
from backends.llamacpp.quantize.levels import Wanted
from gateway.home import Home


@dataclass(frozen=True, slots=True)
class Order:
    """What the user wants; texts and matrices are files that exist."""

    model: Path
    wanted: Wanted
    home: Home
    out: Path | None
    imatrix: Path | None
    calibration: Path | None
    """Of the GGUF levels: an importance matrix is computed from it."""
    awq_calibration: Path | None
    text: Path | None
    text_name: str
    most_windows: int
    measures: bool
    is_forced: bool
    is_dry_run: bool


@dataclass(frozen=True, slots=True)
class Form:
    """One form of the model, and what is known of it."""

    name: str
    size_bytes: int
    bits_per_weight: float
    path: Path | None = None
    is_source: bool = False
    """What the others were made from, measured beside them."""
    seconds: float | None = None
    """What making it took."""
    num_windows: int = 0
    perplexity: Interval | None = None
    perplexity_ratio: Interval | None = None
    prefill: float | None = None
    decode: float | None = None
    prefill_ratio: Interval | None = None
    decode_ratio: Interval | None = None


@dataclass(frozen=True, slots=True)
class Result:
    model: Path
    source_digest: str
    reference: str
    """The form that ratios refer to."""
    text: str
    imatrix: Path | None
    forms: tuple[Form, ...]
    notes: tuple[str, ...]
    serve: str = ""
    """How one of them is served: arguments of `forgegate serve`."""
    failure: str = ""
    """Why what was made could not be measured; empty where it was, or where nothing was to be."""
