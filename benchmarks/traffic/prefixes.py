"""Prompts that begin alike: what a prefix cache lives on."""

import random
import re
from dataclasses import dataclass

from benchmarks.traffic.errors import WorkloadError


@dataclass(frozen=True, slots=True)
class SharedPrefix:
    """`share` of all requests begin with the prefix of one of `num_groups` groups, drawn uniformly; it comes on top of
    their own prompt.
    """

    num_groups: int
    num_tokens: int
    share: float = 1.0

    @classmethod
    def parse(cls, text: str) -> "SharedPrefix":
        """`8x512` or, for some of the requests, `8x512@0.9`; raises WorkloadError."""
        found = re.fullmatch(r"(\d+)x(\d+)(?:@(\d*\.?\d+))?", text)
        prefix = cls(int(found[1]), int(found[2]), float(found[3] or 1)) if found else None
        if prefix is None or prefix.num_groups < 1 or prefix.num_tokens < 1 or not 0 <= prefix.share <= 1:
            raise WorkloadError(
                f"{text!r} is no shared prefix: write 8x512 for 8 prefixes of 512 tokens, 8x512@0.9 for 90 %"
            )
        return prefix

    def draw_group(self, rng: random.Random) -> int | None:
        """A request's group; None shares nothing."""
        group = rng.randrange(self.num_groups)
        return group if rng.random() < self.share else None

    def __str__(self) -> str:
        return f"{self.num_groups}x{self.num_tokens}" + ("" if self.share == 1 else f"@{self.share:g}")
