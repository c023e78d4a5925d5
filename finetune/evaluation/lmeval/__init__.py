"""Task files of lm-evaluation-harness, asked of an endpoint: the YAML as it is, the data from files beside it, nothing from a hub.

folder        the files of a folder: tasks, groups, what they include
config        one task file's keys, each honoured, without effect, or refused by name
documents     rows of the data files
template      texts made of a row: a column's name, or a Jinja template
filters       what is cut out of a generated answer, and how it is compared
task          items and scores

What is reported is what lm-eval reports: `acc` and `acc_norm` of multiple_choice, `exact_match` by filter of generate_until. lm-eval
0.4.13, asking the demo model's endpoint the same files (150 documents plain, 150 with two examples, 60 answers), reports the same numbers.
Texts are continued as they are: no chat template is put around them, and control tokens in them are text where the endpoint has it so.
https://github.com/EleutherAI/lm-evaluation-harness/blob/main/docs/task_guide.md
"""

from finetune.evaluation.lmeval.folder import tasks_of

__all__ = ["tasks_of"]
