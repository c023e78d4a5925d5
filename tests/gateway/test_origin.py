"""Faults of pools that show only once an engine is looked at, told with the line of the configuration file."""

from __future__ import annotations

import pytest

from backends.errors import BackendError, BadSpec, EngineUnavailable, ModelUnusable, NoRoom
from gateway.configfile import parse
from gateway.exits import BAD_INPUT, UNABLE
from gateway.origin import Origin, PoolsRefused

FILE = """models:
- name: a
  pools:
  - engine: vllm
    model: demo
    resident: on_demand
    python: /usr/bin/python3
    options:
      gpu_memory_utilization: 0.5
      lora:
        target_modules: [lm_head]
      speculative: {method: ngram, num_speculative_tokens: 2}
"""


def origin() -> Origin:
    found = parse(FILE, "f.yaml").models[0].pools[0].origin
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("error", "line"),
    {
        "option": (BadSpec(["gpu_memory_utilization: this vLLM runs on the CPU"]), 9),
        "option in a group": (BadSpec(["lora.target_modules: without lm_head"]), 11),
        "group": (BadSpec(["speculative.model: none"]), 12),
        "none of the options that are written": (BadSpec(["max_num_seqs: write it"]), 8),
        "option that is a file": (ModelUnusable("speculative.model: /d: no such folder"), 12),
        "key of the pool": (BadSpec(["resident: no"]), 6),
        "model": (ModelUnusable("/x: no such folder"), 5),
        "interpreter": (EngineUnavailable("/x/python cannot be run"), 7),
        "the whole pool": (NoRoom("it does not fit"), 4),
    }.values(),
)
def test_the_line_of_what_an_error_is_about(error: BackendError, line: int) -> None:
    (told,) = origin().told(error)
    within = ".options" if line in (9, 11, 12) else ""
    assert told == f"f.yaml:{line}: models[0].pools[0]{within}: {error}"


def test_all_faults_of_all_pools_are_one_error() -> None:
    refused = PoolsRefused([(origin(), BadSpec(["lora: no", "x: y"])), (None, NoRoom("it does not fit"))])
    assert str(refused).splitlines() == [
        "f.yaml:10: models[0].pools[0].options: lora: no",
        "f.yaml:8: models[0].pools[0]: x: y",
        "it does not fit",
    ]
    assert refused.exit_code == BAD_INPUT
    assert PoolsRefused([(None, NoRoom("full"))]).exit_code == UNABLE
