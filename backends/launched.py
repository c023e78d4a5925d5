"""What holds of every engine that is a child on this machine, whatever its kind."""

from __future__ import annotations

import asyncio

from backends.base import LOOPBACK, Address, BackendDefaults, Places, PoolSpec, Reply
from backends.restart import RestartPolicy
from backends.status import Timing


class Launched(BackendDefaults):
    """It answers on a port of its own, with the secret of its launch."""

    ready_path = "/health"
    policy = RestartPolicy()

    def __init__(self, spec: PoolSpec, places: Places) -> None:
        self.timing = Timing(start_timeout_s=spec.start_timeout_s)
        self._spec = spec
        self._places = places
        self._preparing = asyncio.Lock()
        """Replicas start together; the work is done once."""

    def address(self, port: int) -> Address:
        return Address(LOOPBACK, port)

    def secret_for(self, launch_secret: str) -> str:
        return launch_secret

    def refusal(self, reply: Reply) -> str:
        return ""
