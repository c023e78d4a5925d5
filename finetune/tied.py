"""Run a module that ends with whoever started it: python -m finetune.tied MODULE [ARGUMENT...]

Standard input is a pipe that the parent holds open; at its end the module is told to end, and killed where it does not.
"""

from __future__ import annotations

import runpy
import sys

from finetune.run import parentwatch

PATIENCE_S = 10.0


def main() -> None:
    parentwatch.watch(patience_s=PATIENCE_S)
    _, module, *arguments = sys.argv
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
