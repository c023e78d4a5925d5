"""Tools as the log keeps them."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.data.chatform import tools

SECRET = "q7Vd0Zr3opaqueJ1xW"


def test_a_function_has_what_was_said_of_it() -> None:
    assert tools.function("f", None, {"type": "object"}) == {
        "type": "function", "function": {"name": "f", "parameters": {"type": "object"}},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ({"type": "web_search", "user_location": {"city": SECRET}}, {"type": "web_search"}),
        ({"type": "mcp", "server_label": "crm", "server_url": SECRET, "authorization": SECRET}, {"type": "mcp", "server_label": "crm"}),
        ({"type": "custom", "name": "python", "description": "d", "format": {"definition": SECRET}},
         {"type": "custom", "name": "python", "description": "d"}),
        ({"type": "x", "parameters": {"type": "object"}, "headers": [SECRET]}, {"type": "x", "parameters": {"type": "object"}}),
        ({"type": [SECRET], "name": {"key": SECRET}, "description": 7, "parameters": SECRET}, {}),
        (SECRET, {}),
        (None, {}),
    ],
)  # fmt: skip
def test_of_any_other_tool_only_what_it_is(given: Any, kept: dict[str, Any]) -> None:
    assert tools.other(given) == kept


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("required", "required"),
        ({"type": "function", "function": {"name": "f", "key": SECRET}}, {"type": "function", "function": {"name": "f"}}),
        ({"type": "mcp", "server_label": "crm", "name": "f", "headers": SECRET}, {"type": "mcp", "server_label": "crm", "name": "f"}),
        ({"type": "mcp", "function": {"name": SECRET}}, {"type": "mcp"}),
        ({"type": "allowed_tools", "mode": "auto", "tools": [{"type": "mcp", "authorization": SECRET}, 7]},
         {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "mcp"}, {}]}),
        ({"type": [SECRET]}, {}),
        (7, {}),
    ],
)  # fmt: skip
def test_of_a_choice_only_its_names(given: Any, kept: Any) -> None:
    assert tools.choice(given) == kept
