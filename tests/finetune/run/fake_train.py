"""`forgegate train` with a training process that is a fake, whose adapter nobody could export."""

from __future__ import annotations

import sys

import pytest

from finetune import train
from finetune.run import command
from tests.finetune.run.rig import FAKE

if __name__ == "__main__":
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(command, "export", lambda *_: None)
        sys.exit(train.main(sys.argv[1:], FAKE))
