"""Nothing that is imported here looks at the network."""

from __future__ import annotations

import os
from contextlib import suppress

from finetune.training import environment

_before = dict(os.environ)
environment.prepare()
environment.silence()
with suppress(ImportError):  # it reads what was set, once and for all
    import huggingface_hub.constants  # noqa: F401
# What other tests start is not told to stay away from hubs.
for name in os.environ.keys() - _before.keys():
    del os.environ[name]
os.environ.update(_before)
