"""One attempt at a training run, as a process of its own.

python -m finetune.training.child --run RUN --attempt N [--resume RUN/checkpoints/checkpoint-S] [--memory-limit BYTES]

RUN/attempts/N.json is the recipe, in full. RUN/checkpoints/, RUN/metrics.jsonl and at last RUN/adapter/ are written. Standard output has
one JSON object a line:
    stage {name, text}, progress {stage, done, total}, data {...}, start {...}, step {...}, eval {...}, saved {step, path}, guard {...}
at last one of
    done {adapter, num_steps, loss, eval_loss, peak_bytes, seconds, reason}     exit code 0
    guard {name, message, step, rows, is_fatal: true}                           1, more steps would be wasted
    refused {message}                                                           2, what the recipe says cannot be done
    failed {message}                                                            3
    oom {stage, message, memory: {part: bytes}}                                 4
    stopped {step, checkpoint}                                                  143, after SIGTERM or SIGINT: the checkpoint is whole
Tracebacks and what libraries say are on standard error. With WORLD_SIZE, as `accelerate launch` sets it, only the first process talks.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

from finetune.dataset.errors import DataError
from finetune.errors import TrainError
from finetune.run import parentwatch
from finetune.training import environment
from finetune.training.events import Events
from finetune.training.stopping import Stop, StopAsked
from finetune.training.world import World

if TYPE_CHECKING:
    from finetune.training.attempt import Attempt

REFUSED, FAILED, NO_MEMORY, STOPPED = 2, 3, 4, 143


def main(argv: list[str] | None = None) -> int:
    args = _parse(argv)
    world = World.of_environment()
    events = Events.on_stdout(world.is_main)
    stop = Stop()
    stop.listen()
    parentwatch.watch(lambda: _orphaned(events))
    environment.prepare()
    environment.silence()
    running = _Running(events, stop, world)
    try:
        return running.run(args)
    except StopAsked:
        running.tell_stopped()
        return STOPPED
    except (TrainError, DataError) as exc:
        return _told(events, exc)
    except Exception as exc:  # noqa: BLE001 - named boundary: told as what it is
        return running.failed(exc)


class _Running:
    """What torch is needed for: it is imported late, and may be missing."""

    def __init__(self, events: Events, stop: Stop, world: World) -> None:
        self._events, self._stop, self._world = events, stop, world
        self._attempt: Attempt | None = None
        self._spare: bytearray | None = bytearray(8 << 20)
        """Given up when memory has run out, so that it can be said."""

    def run(self, args: argparse.Namespace) -> int:
        self._events.stage("load", "loading torch")
        from finetune.recipe.plain import from_json
        from finetune.training.attempt import Attempt, Order, read_order

        recipe = from_json(read_order(args.run, args.attempt))
        order = Order(recipe, args.run, args.resume, args.memory_limit)
        self._attempt = Attempt(order, self._events, self._stop, self._world)
        return self._attempt.run()

    def tell_stopped(self) -> None:
        if self._attempt is None:
            self._events.tell("stopped", step=0, checkpoint=None)
        else:
            self._attempt.tell_stopped()

    def failed(self, error: Exception) -> int:
        self._spare = None
        traceback.print_exc()
        if isinstance(error, ModuleNotFoundError):
            self._events.tell("failed", message=f"training needs {error.name}: run `forgegate install trainer`")
            return FAILED
        if not _is_out_of_memory(error):
            self._events.tell("failed", message=f"{type(error).__name__}: {error}")
            return FAILED
        stage = self._events.stage_name
        parts = self._attempt.memory_by_part() if self._attempt is not None else {}
        self._events.tell("oom", stage=stage, message=_first_line(error), memory=parts)
        return NO_MEMORY


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return text.split("\n")[0] if text else "there is no memory left"


def _is_out_of_memory(error: Exception) -> bool:
    if isinstance(error, MemoryError):
        return True
    try:
        from finetune.training.memory import is_out_of_memory
    except (ImportError, OSError):
        return False
    return is_out_of_memory(error)


def _told(events: Events, error: TrainError | DataError) -> int:
    if error.exit_code == REFUSED:
        events.tell("refused", message=str(error))
        return REFUSED
    events.tell("failed", message=str(error))
    return FAILED


def _orphaned(events: Events) -> None:
    events.mute()
    os.kill(os.getpid(), signal.SIGTERM)


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m finetune.training.child", description="One attempt at a training run."
    )
    parser.add_argument("--run", type=Path, required=True, help="folder of the run")
    parser.add_argument("--attempt", type=int, required=True, help="number of the attempt: RUN/attempts/N.json")
    parser.add_argument("--resume", type=Path, help="checkpoint to go on from")
    parser.add_argument(
        "--memory-limit", type=int, help="bytes that the process may take, of the GPU's memory where there is one"
    )
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
