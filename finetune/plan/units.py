"""Sizes and durations in words."""

from __future__ import annotations

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30


def size_words(num_bytes: float) -> str:
    """`36.8 GiB`, `160 MiB`"""
    if num_bytes >= GIB:
        return f"{num_bytes / GIB:,.1f} GiB"
    return f"{num_bytes / MIB:,.0f} MiB"


def duration_words(seconds: float) -> str:
    """`40 s`, `12 min`, `3.4 h`, `2.1 days`"""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    if seconds < 48 * 3600:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 86400:.1f} days"
