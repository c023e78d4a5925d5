"""What `forgegate train` does, from parsed arguments to an exit code."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace

from backends.errors import BackendError
from finetune.dataset.errors import DataError
from finetune.dataset.progress import watch
from finetune.dataset.tokens import Estimate
from finetune.errors import OutOfMemory, RecipeUnusable, TrainError, TrainingStopped
from finetune.plan.adapter import with_rank
from finetune.plan.device import detect
from finetune.plan.facts import measure
from finetune.plan.memory import estimate
from finetune.plan.plan import limited, micro_batch_tokens
from finetune.plan.plan import plan as make_plan
from finetune.recipe.reading import Reading, read
from finetune.recipe.recipe import Recipe
from finetune.release import GateNegative, Plan
from finetune.run import ending
from finetune.run.again import again_command, again_words
from finetune.run.begin import begin
from finetune.run.ending import DONE, Outcome, failure_words
from finetune.run.environment import gpus
from finetune.run.finish import Target, draw_curves, export, publish, warn_of_gateway
from finetune.run.folder import RunFolder
from finetune.run.interrupts import terminable
from finetune.run.releasing import foreseen, plan_of, with_suite
from finetune.run.room import require_room
from finetune.run.session import CHILD as CHILD
from finetune.run.session import Policy, Session
from finetune.run.summary import summary
from finetune.run.view import View, make_view


def train(args: argparse.Namespace, child: Sequence[str]) -> int:
    """Raises TrainError, BackendError."""
    _require_gpus(args.processes)
    reading = _read(args)
    with watch() as bars:
        facts = measure(reading.recipe, Estimate(), bars)
    recipe = with_rank(reading.recipe, facts)
    folder, device = RunFolder(recipe.output_dir), detect()
    device = device if args.memory_limit is None else limited(device, args.memory_limit)
    planned = make_plan(recipe, facts, device, num_devices=args.processes)
    require_room(planned.num_trainable, recipe, folder.path)
    policy = Policy(args.on_oom == "retry", args.allow_shorter, args.memory_limit, device.is_gpu, args.processes, child)

    def predict(stepped: Recipe) -> Mapping[str, int]:
        return estimate(planned.shape, stepped, device, micro_batch_tokens(stepped, facts)).parts

    with terminable(), folder.owned(), make_view(args.json) as view:
        begun = begin(folder, recipe, args.recipe.read_text(encoding="utf-8"), planned.as_json(), args.resume)
        for words in (*(f"note: {note}" for note in reading.notes), begun.words):
            if words:
                view.say(words)
        release = plan_of(args, recipe, folder) if args.publish else None
        if release is not None:
            warn_of_gateway(_target(args), view)
            if problem := foreseen(release, recipe):
                view.say(f"warning: --publish {args.publish}: {problem}")
        session = Session(folder, begun, policy, view, predict)
        outcome = None if begun.record.status == DONE else session.run()
        has_curves = draw_curves(folder, session.record, view)
        if outcome is not None and outcome.status != DONE:
            return _unfinished(outcome, session, args)
        is_live = _deliver(session, args, view, release)
    _tell_end(session, has_curves, args)
    return 0 if is_live else 1


def _require_gpus(num_processes: int) -> None:
    """Raises RecipeUnusable. Without any GPU, processes share the processor."""
    num_gpus = len(gpus())
    if 0 < num_gpus < num_processes:
        raise RecipeUnusable(
            f"--processes {num_processes}: each process takes a GPU, of which there is {num_gpus} here"
        )


def _read(args: argparse.Namespace) -> Reading:
    """Raises RecipeUnusable with all that is wrong."""
    reading = read(args.recipe, args.set)
    if args.out is None:
        return reading
    return replace(reading, recipe=replace(reading.recipe, output_dir=args.out.absolute()))


def _target(args: argparse.Namespace) -> Target:
    return Target(args.publish, args.url, args.token, args.model or "")


def _unfinished(outcome: Outcome, session: Session, args: argparse.Namespace) -> int:
    """The exit code of a run that was stopped. Raises TrainError for one that ended otherwise."""
    again = again_words(session.folder.path, args)
    match outcome.status:
        case ending.STOPPED:
            with suppress(OSError):  # nobody reads any more
                print(f"stopped; {again}", file=sys.stderr)
            return 128 + (session.stop_signal or signal.SIGTERM)
        case ending.OOM:
            raise OutOfMemory(f"{session.oom_words(outcome)}\n{again}")
        case ending.GUARD:
            raise TrainingStopped(f"{outcome.message}\nthe numbers until then: {session.folder.curves}")
        case ending.REFUSED:
            raise RecipeUnusable(outcome.message)
    log = f"its log: {session.folder.log}"
    raise TrainError(f"{failure_words(outcome.message)}\n{log}; {again}")


def _deliver(session: Session, args: argparse.Namespace, view: View, release: Plan | None) -> bool:
    """Whether it went as far as was asked; False: the gate did not let it. What was trained is whole already: what fails here can be done
    again by itself. Raises TrainError, BackendError."""
    try:
        exported = export(session.folder, session.record, view)
        if release is not None:
            publish(exported, session.record, view, _target(args), with_suite(release, session.folder))
    except GateNegative as exc:
        view.say(str(exc))
        return False
    except (TrainError, BackendError, DataError, KeyboardInterrupt):
        print(
            f"the adapter is trained, it is in {session.folder.adapter}; what follows can be repeated:", file=sys.stderr
        )
        print(f"  {again_command(args)}", file=sys.stderr)
        raise
    return True


def _tell_end(session: Session, has_curves: bool, args: argparse.Namespace) -> None:
    if args.json:
        print(json.dumps({"event": "end", **session.record.as_json()}, ensure_ascii=False), flush=True)
    else:
        print(summary(session.folder, session.record, session.recipe, has_curves))
