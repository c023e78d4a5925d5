"""How deep JSON may be nested: templates, copies and grammars follow it by recursion."""

from __future__ import annotations

from typing import Any

MAX_DEPTH = 120
"""llguidance takes 127 levels, with what is around a schema."""


def is_too_deep(value: Any) -> bool:
    """Whether lists and objects lie inside each other more than `MAX_DEPTH` levels."""
    level, depth = [value], 0
    while level:
        depth += 1
        if depth > MAX_DEPTH:
            return True
        level = [
            child
            for value in level
            for child in (value.values() if isinstance(value, dict) else value if isinstance(value, list) else ())
            if isinstance(child, dict | list)
        ]
    return False
