"""The processes of an attempt: one, or as many as `accelerate launch` started."""

from __future__ import annotations

import os
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class World:
    size: int = 1
    rank: int = 0
    local_rank: int = 0

    @classmethod
    def of_environment(cls) -> World:
        return cls(
            *(
                int(os.environ.get(name, default))
                for name, default in (("WORLD_SIZE", 1), ("RANK", 0), ("LOCAL_RANK", 0))
            )
        )

    @property
    def is_main(self) -> bool:
        """The process that talks and writes."""
        return self.rank == 0
