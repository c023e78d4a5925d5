"""The family's chat format: ChatML with Hermes-style tool calls, as a Jinja template and as an equal renderer in plain Python.

The template is what transformers and the engines use; the renderer is what training uses, because it is a hundred times faster and marks
which text the assistant generates. A test holds them equal.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

BOS, EOS, UNK, PAD = "<s>", "<|im_end|>", "<unk>", "</s>"
IM_START, IM_END = "<|im_start|>", "<|im_end|>"
CONTROL_TOKENS = (
    IM_START, IM_END, "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<tools>", "</tools>",
)  # fmt: skip

TOOLS_HEAD = "You can call these tools:\n<tools>"
TOOLS_TAIL = "\n</tools>"

CHAT_TEMPLATE = """\
{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- if messages and messages[0].role == 'system' %}
        {{- messages[0].content + '\\n\\n' }}
    {%- endif %}
    {{- 'You can call these tools:\\n<tools>' }}
    {%- for tool in tools %}
        {{- '\\n' }}
        {{- (tool.function if tool.function is defined else tool) | tojson }}
    {%- endfor %}
    {{- '\\n</tools><|im_end|>\\n' }}
{%- elif messages and messages[0].role == 'system' %}
    {{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
    {%- if message.role == 'system' and not loop.first %}
        {{- '<|im_start|>system\\n' + message.content + '<|im_end|>\\n' }}
    {%- elif message.role == 'user' %}
        {{- '<|im_start|>user\\n' + message.content + '<|im_end|>\\n' }}
    {%- elif message.role == 'tool' %}
        {{- '<|im_start|>user\\n<tool_response>\\n' + message.content + '\\n</tool_response><|im_end|>\\n' }}
    {%- elif message.role == 'assistant' %}
        {{- '<|im_start|>assistant\\n' }}
        {%- generation %}
        {{- message.content or '' }}
        {%- for call in message.tool_calls or [] %}
            {%- set call = call.function if call.function is defined else call %}
            {{- '<tool_call>\\n{"name": ' + (call.name | tojson) + ', "arguments": ' }}
            {{- call.arguments if call.arguments is string else (call.arguments | tojson) }}
            {{- '}\\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>' }}
        {%- endgeneration %}
        {{- '\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""

Message = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Segment:
    """A run of rendered text; `is_control` text is parsed for control tokens, other text never; `is_generated` is the assistant's."""

    text: str
    is_control: bool
    is_generated: bool = False


def render(
    messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] = (), add_generation_prompt: bool = False
) -> list[Segment]:
    """The conversation as segments whose concatenated text equals the Jinja template's output."""
    segments = _render_system(messages, tools)
    rest = messages[1:] if messages and messages[0]["role"] == "system" else messages
    for message in rest:
        segments += _render_message(message)
    if add_generation_prompt:
        segments.append(Segment(f"{IM_START}assistant\n", True))
    return segments


def _render_system(messages: Sequence[Message], tools: Sequence[Mapping[str, Any]]) -> list[Segment]:
    has_system = bool(messages) and messages[0]["role"] == "system"
    if not tools:
        return _block("system", [Segment(messages[0]["content"], False)]) if has_system else []
    inner = [Segment(messages[0]["content"], False), Segment("\n\n", True)] if has_system else []
    inner.append(Segment(TOOLS_HEAD, True))
    for tool in tools:
        inner += [Segment("\n", True), Segment(to_json(tool.get("function", tool)), False)]
    return _block("system", [*inner, Segment(TOOLS_TAIL, True)])


def _render_message(message: Message) -> list[Segment]:
    role = message["role"]
    if role == "assistant":
        return _render_assistant(message)
    content = Segment(message["content"], False)
    if role == "tool":
        return _block("user", [Segment("<tool_response>\n", True), content, Segment("\n</tool_response>", True)])
    return _block(role, [content])


def _render_assistant(message: Message) -> list[Segment]:
    segments = [Segment(f"{IM_START}assistant\n", True)]
    if message.get("content"):
        segments.append(Segment(message["content"], False, True))
    for call in message.get("tool_calls") or ():
        segments += [
            Segment("<tool_call>\n", True, True),
            Segment(call_text(call), False, True),
            Segment("\n</tool_call>", True, True),
        ]
    return [*segments, Segment(IM_END, True, True), Segment("\n", True)]


def _block(role: str, inner: list[Segment]) -> list[Segment]:
    return [Segment(f"{IM_START}{role}\n", True), *inner, Segment(f"{IM_END}\n", True)]


def call_text(call: Mapping[str, Any]) -> str:
    """The JSON between `<tool_call>` and `</tool_call>`; `arguments` may be a mapping or, as on OpenAI's wire, JSON text."""
    function = call.get("function", call)
    arguments = function["arguments"]
    text = arguments if isinstance(arguments, str) else to_json(arguments)
    return f'{{"name": {to_json(function["name"])}, "arguments": {text}}}'


def answer_text(message: Message) -> str:
    """What the model must generate for an assistant message, without the end token."""
    return "".join(part.text for part in _render_assistant(message)[1:-2])


def to_json(value: Any) -> str:
    """JSON as transformers' `tojson` filter writes it."""
    return json.dumps(value, ensure_ascii=False)
