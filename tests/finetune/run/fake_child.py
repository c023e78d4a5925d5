"""A training process without torch: it tells the same events, writes the same checkpoints, heeds the same signals.

FAKE_CHILD in the environment is JSON: how it behaves.
    step_s          seconds of a step
    most            the largest micro batch that fits, "mode" steps without checkpointing among them
    end             {"attempt": 1, "at": 7, "how": "nan" | "fail" | "kill" | "refuse" | "crash" | "linger"}
"""

from __future__ import annotations

import argparse
import json
import math
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from finetune.run import parentwatch
from finetune.run.guards import Watch
from finetune.training import checkpoints, metrics

NUM_STEPS = 20
MIB = 1 << 20


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--attempt", type=int, required=True)
    parser.add_argument("--resume", type=Path)
    parser.add_argument("--memory-limit", type=int)
    args = parser.parse_args()
    stopped: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: stopped.append(number))
    parentwatch.watch()
    return Fake(args, stopped).run()


class Fake:
    def __init__(self, args: argparse.Namespace, stopped: list[int]) -> None:
        self.args, self.stopped = args, stopped
        self.recipe: dict[str, Any] = json.loads((args.run / "attempts" / f"{args.attempt}.json").read_text())
        self.manner: dict[str, Any] = json.loads(os.environ.get("FAKE_CHILD", "{}"))
        self.end = self.manner.get("end", {})
        self.num_steps = self.recipe["steps"]["max_steps"] or NUM_STEPS
        self.folder = args.run / "checkpoints"

    def tell(self, event: str, **fields: Any) -> None:
        with suppress(OSError):
            print(json.dumps({"event": event, **fields}), flush=True)

    def run(self) -> int:
        print("a library's greeting", flush=True)
        begin = 0 if self.args.resume is None else checkpoints.choose(self.args.resume, self.folder)[0].step  # type: ignore[union-attr]
        metrics.cut(self.args.run / metrics.NAME, begin)
        checkpoints.discard_after(self.folder, begin)
        self.tell("stage", name="load", text="loading nothing")
        time.sleep(self.manner.get("load_s", 0.0))
        if self.stopped:
            self.tell("stopped", step=begin, checkpoint=None)
            return 143
        self.tell("data", num_rows=40, num_dropped=1, num_truncated=0, num_masked_out=0, num_packs=40, num_tokens=4000,
                  num_trained_tokens=1000, num_padding=0, num_eval_rows=4)  # fmt: skip
        self.tell("start", num_steps=self.num_steps, num_trainable=1000, num_parameters=100_000, resumed_from=begin or None,
                  device="fake", dtype="float32", attention="none", notes=["a note"])  # fmt: skip
        if self.recipe["steps"]["micro_batch_size"] > self.manner.get("most", 1 << 20):
            return self.oom(begin)
        return self.steps(begin)

    def oom(self, begin: int) -> int:
        """In the step after the first checkpoint, so that there is one to go on from."""
        for step in range(begin + 1, min(begin + 6, self.num_steps)):
            self.step(step)
        self.tell("oom", stage="train", message="the fake device is full",
                  memory={"weights": 800 * MIB, "activations": 1600 * MIB, "adapter": 5})  # fmt: skip
        return 4

    def steps(self, begin: int) -> int:
        watch = Watch()
        for step in range(begin + 1, self.num_steps + 1):
            is_end = self.end.get("at") == step and self.end.get("attempt", 1) == self.args.attempt
            if is_end and self.end["how"] != "nan":
                return self.finish_badly(self.end["how"])
            found = watch.look(self.step(step, math.nan if is_end else None))
            if found is not None:
                self.tell(**found.as_event())
                if found.is_fatal:
                    return 1
            if self.stopped:
                self.save(step)
                self.tell("stopped", step=step, checkpoint=str(self.folder / f"checkpoint-{step}"))
                return 143
        adapter = self.args.run / "adapter"
        adapter.mkdir(exist_ok=True)
        self.tell("done", adapter=str(adapter), num_steps=self.num_steps, loss=1.0, eval_loss=None, peak_bytes=300 * MIB,
                  seconds=1.0, reason="finished")  # fmt: skip
        return 0

    def step(self, step: int, loss: float | None = None) -> dict[str, Any]:
        time.sleep(self.manner.get("step_s", 0.0))
        batch = self.recipe["steps"]["micro_batch_size"]
        told = {
            "step": step, "epoch": step / 10, "loss": 2 * math.exp(-step / 10) if loss is None else loss, "grad_norm": 0.5,
            "learning_rate": 1e-4, "num_tokens": 100, "num_trained_tokens": 25, "tok_s": 1000.0, "memory_bytes": 100 * MIB,
            "peak_bytes": 100 * MIB * batch, "total_bytes": 1 << 34, "seconds": 0.1, "rows": [step],
        }  # fmt: skip
        self.tell("step", **told)
        metrics.append(self.args.run / metrics.NAME, {"event": "step", **told})
        if step % (self.recipe["watch"]["save_steps"] or 5) == 0:
            self.save(step)
        return {"event": "step", **told}

    def save(self, step: int) -> None:
        with checkpoints.writing(self.folder, step) as path:
            (path / "state").write_text(str(step))
            checkpoints.seal(path, step, "the fake's data")
        self.tell("saved", step=step, path=str(self.folder / f"checkpoint-{step}"))

    def finish_badly(self, how: str) -> int:
        match how:
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case "refuse":
                self.tell("refused", message="base_model: it is no model")
                return 2
            case "fail":
                self.tell("failed", message="OSError: [Errno 28] No space left on device")
                return 3
            case "linger":  # its own child holds the output open
                subprocess.Popen(["sleep", "60"])
                os.kill(os.getpid(), signal.SIGKILL)
        raise RuntimeError("the fake crashed")


if __name__ == "__main__":
    sys.exit(main())
