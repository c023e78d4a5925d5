"""What several end-to-end tests share, because it takes long to start."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conftest import processes_of_this_run
from tests.e2e.vllm_stage import MixedGateway
from tests.processes import eventually
from tests.vllm_environment import MISSING, Starts, vllm_python

GONE_S = 5.0


@pytest.fixture(scope="session")
def mixed_gateway(tmp_path_factory: pytest.TempPathFactory, vllm_starts: Starts) -> Iterator[MixedGateway]:
    """One model on vLLM and llama.cpp. Who uses it leaves it as it was found; the last test of test_vllm_pools kills it."""
    python = vllm_python()
    if python is None:
        pytest.skip(MISSING)
    before = processes_of_this_run()
    vllm_starts.note("pools")
    with MixedGateway(tmp_path_factory.mktemp("pools"), python) as gateway:
        gateway.wait_ready()
        yield gateway
    eventually(lambda: not processes_of_this_run().keys() - before.keys(), GONE_S)
