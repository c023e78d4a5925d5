"""What is claimed of each way to serve faster, held against runs of its own: `python -m benchmarks.claims`.

claim            what somebody says, and what a measured ratio makes of it (pure)
figures          the figures of a run that claims are about (pure)
contest          contestants that stay up side by side, measured one at a time, in turns; whole turns are kept
contestants      who is measured: an engine over HTTP, static batches on it, transformers' generate
side_by_side     contests of configurations that differ in one thing
fleet            one gateway for each configuration, started together
setting          what a section is measured on, and the engines' options for it
models           model folders: where they lie, what they take
batching         continuous batching, PagedAttention
prompts          prefix caching, chunked prefill
speculation      speculation with a real draft, and with given acceptance
serving          adapters, the gateway
draft_shape      a folder for a draft of random weights
offline          quantisation, attention: measured by a child, not over HTTP
sections         all of them
page             their tables

static_batching and attention_speed are scripts that run in a process of their own, with torch; child talks to them.
"""
