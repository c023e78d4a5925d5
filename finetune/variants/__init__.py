"""`forgegate data vary`: new rows after the pattern of seed rows, made by a model of any OpenAI-compatible endpoint.

After Self-Instruct (Wang et al., https://arxiv.org/abs/2212.10560): a request shows some seeds and asks for new ones; what is too like
a seed or an earlier row (ROUGE-L 0.7), in another language, or faulty by the doctor is left out.

seeds.py      which rows are seeds, and which of them a request shows (pure)
prompting.py  what is asked, and what is read from the reply (pure)
novelty.py    whether a question is new (pure)
journal.py    every reply in a file: what was cut off goes on from there
making.py     the requests, many at once, within a budget
command.py    arguments to rows
"""
