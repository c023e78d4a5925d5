"""What a real vLLM 0.32.0 (CPU, the demo model) sent, byte for byte but for the date; 0.26's source has the same forms.

Its engine core was killed with -9 under running requests, or its server asked to end by SIGTERM.
"""

from __future__ import annotations

import asyncio

from tests.gateway.data.rig import Call, Script, chunk

_DATE = b"date: Mon, 30 Nov 2026 00:35:41 GMT\r\nserver: uvicorn\r\n"
STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\n" + _DATE + b"content-type: text/event-stream; charset=utf-8\r\nvary: Origin\r\n"
    b"transfer-encoding: chunked\r\n\r\n"
)
CHAT_EVENTS = (
    b'data: {"id":"chatcmpl-abc","object":"chat.completion.chunk","created":1795998941,"model":"demo","choices":[{"index":0,'
    b'"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}],"prompt_token_ids":null,'
    b'"prompt_text":null}\n\n',
    b'data: {"id":"chatcmpl-abc","object":"chat.completion.chunk","created":1795998941,"model":"demo","choices":[{"index":0,'
    b'"delta":{"content":"Quantization"},"logprobs":null,"finish_reason":null,"token_ids":null}]}\n\n',
)
MESSAGES_EVENTS = (
    b'event: message_start\ndata: {"type":"message_start","message":{"id":"chatcmpl-abc","type":"message","role":"assistant",'
    b'"content":[],"model":"demo","stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":17,"output_tokens":0}}}\n\n',
    b'event: content_block_start\ndata: {"type":"content_block_start","content_block":{"type":"text","text":""},"index":0}\n\n',
)
RESPONSES_EVENTS = (
    b'event: response.output_text.delta\ndata: {"content_index":0,"delta":"The","item_id":"msg_9aae3820c5d9335e",'
    b'"logprobs":[],"output_index":0,"sequence_number":595,"type":"response.output_text.delta"}\n\n',
)
DEATH_EVENT = (
    b'data: {"error": {"message": "EngineCore encountered an issue. See stack trace (above) for the root cause.", '
    b'"type": "InternalServerError", "param": null, "code": 500}}\n\n'
)
DONE_EVENT = b"data: [DONE]\n\n"
MESSAGES_DEATH_EVENT = (
    b'event: error\ndata: {"type":"error","error":{"type":"internal_error","message":"2 validation errors for '
    b"ChatCompletionStreamResponse\\nmodel\\n  Field required [type=missing, input_value={'error': {'message': "
    b"'En...am': None, 'code': 500}}, input_type=dict]\\n    For further information visit "
    b"https://errors.pydantic.dev/2.14/v/missing\\nchoices\\n  Field required [type=missing, input_value={'error': "
    b"{'message': 'En...am': None, 'code': 500}}, input_type=dict]\\n    For further information visit "
    b'https://errors.pydantic.dev/2.14/v/missing"}}\n\n'
)
DEATH = (
    b'{"error":{"message":"EngineCore encountered an issue. See stack trace (above) for the root cause.",'
    b'"type":"InternalServerError","param":null,"code":500}}'
)
SHUTDOWN = b'{"error":{"message":"cannot schedule new futures after shutdown","type":"InternalServerError","param":null,"code":500}}'
MESSAGES_DEATH = (
    b'{"type":"error","error":{"type":"InternalServerError","message":"EngineCore encountered an issue. See stack trace '
    b'(above) for the root cause."}}'
)
_UNKNOWN = b"The model `s@1` does not exist. Valid aliases: demo."
UNKNOWN_MODEL = b'{"error":{"message":"' + _UNKNOWN + b'","type":"NotFoundError","param":"model","code":404}}'
MESSAGES_UNKNOWN_MODEL = b'{"type":"error","error":{"type":"NotFoundError","message":"' + _UNKNOWN + b'"}}'


def answer(status: int, body: bytes) -> Script:
    """A whole answer, its head and its body apart, as vLLM writes them."""

    async def script(call: Call) -> None:
        head = b"HTTP/1.1 %d X\r\n%bcontent-length: %d\r\ncontent-type: application/json\r\nvary: Origin\r\n\r\n"
        await call.send(head % (status, _DATE, len(body)))
        await asyncio.sleep(0.002)
        await call.send(body)

    return script


def stream(*events: bytes, is_cut: bool = False) -> Script:
    """Each event in a chunk and a write of its own. `is_cut`: no last chunk; the connection is closed between two events."""

    async def script(call: Call) -> None:
        await call.send(STREAM_HEAD)
        for piece in (*(chunk(event) for event in events), *(() if is_cut else (b"0\r\n\r\n",))):
            await asyncio.sleep(0.002)
            await call.send(piece)
        if is_cut:
            call.writer.close()

    return script
