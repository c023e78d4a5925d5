"""Rows that do not suffice for the shares that a recipe asks for: in the same words whether it is planned or trained."""

from __future__ import annotations

from finetune.errors import RecipeUnusable


def require_rest(num_held_out: int, num_rows: int) -> None:
    """Raises RecipeUnusable where all rows would be held out."""
    if num_held_out >= num_rows:
        raise RecipeUnusable(f"val_set_size: {num_held_out:,} rows of {num_rows:,}: none would be left to train")


def general_words(share: float, num_domain: int, wanted: int, there: int) -> str:
    """Where of `wanted` general rows only `there` can be trained."""
    return (
        f"general: share {share:g} of {num_domain:,} rows takes {wanted:,} general ones, {there:,} can be trained: at most "
        f"share: {there / (num_domain + there):.2g}"
    )
