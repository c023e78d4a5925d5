"""How models of an endpoint answer a suite: scored, paired item by item, with what else changed in their answers. No torch.

suite       what is asked, and its digest (suitefile: its YAML; rows, demo, lmeval: where items come from)
items       an item, an answer, a task
scorers     an answer against what was expected (schema: JSON schemas; overlap: F1 and ROUGE-L)
asking      the client of an endpoint (session: many items of a model, by one version of it; cache: what it said before)
drift       length, repetition, language, lists, JSON; greetings: small talk in the style of the task
judge       a model that compares two answers, in both orders; perplexity, speed: beside the scores
run         all of that for several models
result      what was found, and its file (compare: one model against another; show: as lines and as Markdown)
command     `forgegate evaluate` (defaults: what its help names)
"""
