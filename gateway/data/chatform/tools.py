"""Tools of a request, as the log keeps them: what they are, never how they are reached.

A tool that the server runs itself comes with addresses, headers and tokens of its own (`server_url`, `authorization`), and no pattern
knows an opaque token: of all that is no function only members named here are kept.
"""

from __future__ import annotations

from typing import Any

_TEXTS = ("type", "name", "server_label", "description")
_CHOSEN = ("type", "name", "server_label", "mode")
_WITHIN = ("function", "custom", "allowed_tools")
"""Types of a choice with a member of the same name, which says what is chosen."""


def function(name: Any, description: Any, parameters: Any) -> dict[str, Any]:
    """One that the client runs."""
    given = {"name": name, "description": description, "parameters": parameters}
    return {"type": "function", "function": {key: value for key, value in given.items() if value is not None}}


def other(given: Any) -> dict[str, Any]:
    """One that is no function."""
    if not isinstance(given, dict):
        return {}
    kept: dict[str, Any] = _texts(given, _TEXTS)
    if isinstance(given.get("parameters"), dict):
        kept["parameters"] = given["parameters"]
    return kept


def choice(given: Any) -> Any:
    """Which may or must be called: a word, or tools by their names."""
    if isinstance(given, str):
        return given
    if not isinstance(given, dict):
        return {}
    kept: dict[str, Any] = _texts(given, _CHOSEN)
    if (kind := given.get("type")) in _WITHIN and kind in given:
        kept[kind] = choice(given[kind])
    if isinstance(given.get("tools"), list):
        kept["tools"] = [choice(each) for each in given["tools"]]
    return kept


def _texts(given: dict[str, Any], names: tuple[str, ...]) -> dict[str, str]:
    return {name: given[name] for name in names if isinstance(given.get(name), str)}
