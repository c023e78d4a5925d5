"""Where the time of a training update goes: a callback for a recipe's `hooks: {callbacks: [benchmarks.train_speed_profile:Profile]}`.

It lets the updates before `FORGEGATE_PROFILE_AT` pass, watches two, and writes profile.txt and profile.json into the run's folder.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch.autograd import DeviceType  # type: ignore[attr-defined]
from torch.profiler import ProfilerActivity, profile
from transformers import TrainerCallback

from benchmarks import train_speed_kernels
from benchmarks.train_speed_kernels import Launched
from benchmarks.train_speed_plan import PROFILE_AT

NUM_UPDATES = 2
TEXT, JSON = "profile.txt", "profile.json"


class Profile(TrainerCallback):  # type: ignore[misc]
    """On a GPU its kernels are what is counted, on a CPU the operations' own times."""

    def __init__(self) -> None:
        self._at = int(os.environ.get(PROFILE_AT, "3"))
        self._profile: Any = None

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step != self._at:
            return
        _settle()
        activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * torch.cuda.is_available()
        self._profile = profile(activities=activities, record_shapes=True)
        self._profile.start()

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        if self._profile is None or state.global_step != self._at + NUM_UPDATES:
            return
        _settle()
        self._profile.stop()
        kernels = launched(self._profile)
        self._profile = None
        config = model.config.get_text_config()
        found = train_speed_kernels.summary(kernels, config.vocab_size, model.peft_config["default"].r)
        folder = Path(args.output_dir)
        (folder / JSON).write_text(json.dumps(found, indent=1) + "\n", "utf-8")
        (folder / TEXT).write_text(train_speed_kernels.text(found, f"{NUM_UPDATES} updates"), "utf-8")


def launched(watched: Any) -> list[Launched]:
    """Of a profile that has ended: a GPU's kernels, with the shapes of the operations that launched them; where there are none, the
    operations themselves."""
    # The events' own form: torch's summaries of them leave out which operation launched a kernel.
    events = watched.profiler.kineto_results.events()
    kernels = [event for event in events if event.device_type() == DeviceType.CUDA and not event.is_user_annotation()]
    if not kernels:
        return list(_operations(watched.events()))
    widths = {
        event.correlation_id(): _widths(event.shapes()) for event in events if event.device_type() == DeviceType.CPU
    }
    return [_kernel(event, widths.get(event.linked_correlation_id(), frozenset())) for event in kernels]


def _kernel(event: Any, widths: frozenset[int]) -> Launched:
    start_us = event.start_ns() / 1e3
    return Launched(event.name(), start_us, start_us + event.duration_ns() / 1e3, widths)


def _operations(events: Any) -> Iterator[Launched]:
    """Each with its own time, without that of the operations that it is made of."""
    for event in events:
        if event.self_cpu_time_total > 0 and not event.is_user_annotation:
            start = event.time_range.start
            yield Launched(event.name, start, start + event.self_cpu_time_total, _widths(event.input_shapes or ()))


def _widths(shapes: Any) -> frozenset[int]:
    known = [shape for shape in shapes if isinstance(shape, list | tuple)]
    return frozenset(size for shape in known for size in shape if isinstance(size, int))


def _settle() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
