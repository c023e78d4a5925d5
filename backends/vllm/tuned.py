"""With which depth of speculation an engine starts: as configured, or as measured here."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from backends.vllm.measured import Memory, Record, Subject, draft_identity, machine, relevant_options
from backends.vllm.options import Options
from backends.vllm.speculation import OFF, Setting
from backends.vllm.versions import release_of

if TYPE_CHECKING:
    from backends.base import Backend

ALWAYS = "always"
FIRST_WITH_ROWS = (0, 26)
"""The oldest vLLM that was seen to take a depth per batch size."""


class Tuned:
    """One pool's speculation. `at`: the same engine with other options, for one that takes no traffic."""

    def __init__(
        self,
        options: Options,
        models_dir: Path,
        at: Callable[[Options], Backend],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._memory = Memory(models_dir)
        self.subject: Subject | None = None
        """Known once the pool is prepared."""
        self.options = options
        """What the next launch gets; changes only in `settle`."""
        self.record: Record | None = None
        """What was measured of it, if anything; followed where `is_open`."""
        self._configured = options
        self._models_dir = models_dir
        self._at = at
        self._clock = clock

    @property
    def is_configured(self) -> bool:
        return self._configured.speculative is not None

    @property
    def is_open(self) -> bool:
        """Whether the configuration leaves the depth to measurement."""
        speculative = self._configured.speculative
        if speculative is None:
            return False
        return speculative.schedule != ALWAYS and not speculative.num_speculative_tokens_per_batch_size

    @property
    def max_depth(self) -> int:
        """0 where the drafter decides itself how much it proposes."""
        speculative = self._configured.speculative
        return (speculative.num_speculative_tokens or 0) if speculative else 0

    @property
    def max_num_seqs(self) -> int | None:
        return self._configured.max_num_seqs

    @property
    def why_fixed(self) -> str:
        """Why one engine has one depth for every batch size; empty where it may have several."""
        if self._configured.data_parallel_size > 1:
            return "beside data_parallel_size above 1 vLLM has one depth for every batch size"
        release = release_of(self.subject.version) if self.subject else None
        if release is not None and release < FIRST_WITH_ROWS:
            return f"vLLM {release[0]}.{release[1]} has one depth for every batch size"
        return ""

    @property
    def setting(self) -> Setting:
        return setting_of(self.options)

    def settle(self, model: str, draft: str, version: str) -> None:
        """Before a launch: look up what is remembered. `draft`: where it is, or its name. Blocks. Raises ModelUnusable."""
        if self._configured.speculative is None:
            return
        self.subject = Subject(
            model, draft_identity(draft, self._models_dir), version, relevant_options(self._configured), machine()
        )
        found = self._memory.find(self.subject)
        self._take(found.as_of(self._clock()) if found is not None else None)

    def keep(self, record: Record) -> None:
        """Remember it, for the next launch. Raises OSError."""
        self._memory.note(record)
        self.record = record

    def engine(self, setting: Setting) -> Backend:
        """One that has this setting, whatever is remembered."""
        return self._at(with_setting(self._configured, setting))

    def _take(self, record: Record | None) -> None:
        self.record = record
        self.options = self._configured
        if record is not None and self.is_open:
            self.options = with_setting(self._configured, record.setting)


def with_setting(options: Options, setting: Setting) -> Options:
    """Speculating so, and nowise else."""
    if setting == OFF or options.speculative is None:
        return replace(options, speculative=None)
    speculative = replace(
        options.speculative, schedule=ALWAYS, num_speculative_tokens=setting.depth,
        num_speculative_tokens_per_batch_size=setting.schedule,
        synthetic_acceptance_rates=options.speculative.synthetic_acceptance_rates[: setting.depth],
    )  # fmt: skip
    return replace(options, speculative=speculative)


def setting_of(options: Options) -> Setting:
    """How an engine with these options speculates."""
    speculative = options.speculative
    if speculative is None:
        return OFF
    return Setting(speculative.num_speculative_tokens or 0, speculative.num_speculative_tokens_per_batch_size)
