"""Messages that are one turn, made one message: templates write a turn's reasoning, text and calls together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from backends.llamacpp.api.chat import Message


def join_turns(messages: Iterable[Message], goes_on: Callable[[Message, Message], bool]) -> list[Message]:
    """Messages with each run of them made one in which every message, by `goes_on`, goes on with the one before it."""
    runs: list[list[Message]] = []
    for message in messages:
        if runs and goes_on(runs[-1][-1], message):
            runs[-1].append(message)
        else:
            runs.append([message])
    return [join(run) for run in runs]


def join(run: Sequence[Message]) -> Message:
    """One message of all; texts have a blank line between them."""
    first = run[0]
    if len(run) == 1:
        return first
    return Message(
        role=first.role,
        content="\n\n".join(message.content for message in run if isinstance(message.content, str) and message.content),
        reasoning_content="\n\n".join(message.reasoning_content for message in run if message.reasoning_content)
        or None,
        tool_calls=[call for message in run for call in message.tool_calls or ()] or None,
    )
