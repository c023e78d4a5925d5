"""`forgegate decide`: prompting, RAG, fine-tuning or optimisation.

chart.py    which question follows which answer (pure)
words.py    questions, outcomes, table and cases, in English and Korean
ask.py      the questions in a plain terminal
numbers.py  what `forgegate train --plan` says, for fine-tuning
page.py     the decision as Markdown and JSON (pure)
"""
