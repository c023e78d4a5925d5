"""Whether an endpoint answers as the trainer's adapter does: `forgegate parity`.

cases      held-out rows as training saw them: messages, token ids, where the answer begins
served     what the endpoint says of them: rendered ids, log-probabilities, greedy answers
reference  what transformers and PEFT say (a child: torch stays there)
checks     ids, log-probabilities, ends, greedy answers; causes names what is likely wrong (both pure)
measure    all of that in order, with the verdict
"""
