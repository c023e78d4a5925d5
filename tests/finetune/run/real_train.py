"""`forgegate train` as it is, but for the export of what it trained."""

from __future__ import annotations

import sys

import pytest

from finetune import train
from finetune.run import command

if __name__ == "__main__":
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(command, "export", lambda *_: None)
        sys.exit(train.main(sys.argv[1:]))
