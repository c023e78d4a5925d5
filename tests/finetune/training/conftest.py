"""Nothing that is imported here looks at the network."""

from __future__ import annotations

from finetune.training import environment

environment.prepare()
environment.silence()
