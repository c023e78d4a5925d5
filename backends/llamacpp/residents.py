"""What the thread that owns the context does with adapters: load, put on the context, free.

An adapter leaves between two steps, once no request uses it: what was computed with it is dropped from the cache, the
context goes on with the base model where it held it, and only then is it freed. Whoever cancels the future before keeps it.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future
from typing import cast

from backends.llamacpp.adapter_file import AdapterFile
from backends.llamacpp.adapters import LoadedAdapter
from backends.llamacpp.binding.adapter import Adapter, Applied
from backends.llamacpp.binding.context import Context
from backends.llamacpp.binding.errors import AdapterError
from backends.llamacpp.binding.model import Model
from backends.llamacpp.scheduler import Scheduler
from backends.llamacpp.step import Step


class Residents:
    """Used by the engine thread only, but for `num_requests` and `num_switches`."""

    def __init__(self, model: Model, context: Context, scheduler: Scheduler) -> None:
        self._model = model
        self._scheduler = scheduler
        self._applied = Applied(context)
        self._held: dict[LoadedAdapter, None] = {}
        self._leaving: list[tuple[LoadedAdapter, Future[None]]] = []
        self._end: Exception | None = None

    @property
    def num_switches(self) -> int:
        """How often the context was given another adapter."""
        return self._applied.num_switches

    def num_requests(self) -> Mapping[str, int]:
        """Requests that have not ended, by adapter. Any thread."""
        return {adapter.name: self._scheduler.num_present.get(adapter, 0) for adapter in tuple(self._held)}

    def load(self, name: str, file: AdapterFile, loaded: Future[LoadedAdapter]) -> None:
        if self._end is not None:
            loaded.set_exception(self._end)
            return
        try:
            adapter = LoadedAdapter(name, file, Adapter(self._model, file.path))
        except AdapterError as error:
            loaded.set_exception(error)
            return
        self._held[adapter] = None
        loaded.set_result(adapter)

    def unload(self, adapter: LoadedAdapter, freed: Future[None]) -> None:
        """Free it as soon as no request uses it; new ones are refused already."""
        self._leaving.append((adapter, freed))
        if self._end is not None:
            self.end(self._end)

    def free_unused(self) -> None:
        """Let those go that wait for it and are not used any more. Between two steps."""
        if not self._leaving:
            return
        staying = []
        for adapter, freed in self._leaving:
            if self._scheduler.num_present[adapter]:
                if not freed.cancelled():
                    staying.append((adapter, freed))
                continue
            # From here on it cannot be withdrawn.
            if not freed.set_running_or_notify_cancel():
                continue
            self._scheduler.forget(adapter)
            self._applied.free(adapter.weights)
            del self._held[adapter]
            freed.set_result(None)
        self._leaving = staying

    def apply(self) -> None:
        """Let the context compute the step that was just planned."""
        adapter = cast("LoadedAdapter | None", self._scheduler.adapter)
        self._applied.apply(adapter.weights if adapter else None)

    def took(self, step: Step, duration_s: float) -> None:
        """How long the step took decides how long turns are; without adapters there are none."""
        if self._held:
            self._scheduler.turns.ran(len(step.tokens), duration_s, is_decoding=not step.chunks)

    def end(self, reason: Exception) -> None:
        """Nothing is loaded or unloaded any more; whoever waits is told why."""
        self._end = reason
        for _, freed in self._leaving:
            if freed.set_running_or_notify_cancel():
                freed.set_exception(reason)
        self._leaving.clear()

    def close(self) -> None:
        """Free what is left: after the context, before the model."""
        for adapter in self._held:
            adapter.weights.close()
        self._held.clear()
