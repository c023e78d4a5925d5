"""What was asked and answered by each API that has conversations, in the form of chat completions. Pure.

message      a message of a chat: made, joined
tools        what may be called
chat         /v1/chat/completions, whose form it is
responses    /v1/responses
messages     /v1/messages

Each API has three functions: `asked` reads a request, `whole` an answer, `streamed` the events of one. Whatever a client may have sent
comes here, sense or nonsense: what is no conversation raises Unreadable, and a user's parts that are no text stay as they came. Of what
the model said or did beside text, thoughts and calls, such as what a server's own tool was sent and sent back, only the type is kept.
"""
