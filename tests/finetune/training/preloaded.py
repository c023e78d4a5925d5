"""What the server of `forked.Forked` imports once, set up as `finetune.training.child` does it before it imports the same."""

from __future__ import annotations

from finetune.training import environment

environment.prepare()
environment.silence()
import finetune.training.attempt  # noqa: E402, F401
