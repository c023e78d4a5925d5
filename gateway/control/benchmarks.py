"""Benchmarks of this gateway's own models: one at a time, each a child that asks the endpoint as any client does.

    begin -> users' traffic is looked at -> child `benchmarks.cli run` -> result.json, report.html -> run.json

The child is a black box with its own clock and parser, which the gateway does not import. It dies with its run, with control, and with
`stop`; a run that was under way when control ended is found by the next start, and said to have been cut.
"""

from __future__ import annotations

import asyncio
import json
import re
import secrets
import time
import traceback
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from backends.base import LaunchSpec
from backends.errors import SpawnFailed
from backends.logring import LogRing
from backends.process import Launcher, exit_words
from backends.pythons import import_env
from gateway import errors
from gateway import snapshot as wire
from gateway.control import benchmarkresult
from gateway.control.benchmarkorder import BenchmarkBody, command, load_words, require_sound
from gateway.control.benchmarkresult import NoResult, with_result
from gateway.control.benchmarkshelf import REPORT, RESULT, Run, RunState, Shelf
from gateway.control.benchmarktraffic import MAX_SHARE, Busy

KEY_VARIABLE = "FORGEGATE_API_KEY"
_MEASURED = (0, 1)
"""Exit codes of a run that has a result: valid, or void or an SLO that is not met."""
_BAD_USAGE = 2
FIRST_WORD_S = 20.0
"""So long who starts a run may wait for its child's first word, or for its refusal."""
_PROGRESS = re.compile(r"\[(\d+)/(\d+)\] (.*)")
_CUT = "the gateway ended while it ran: start it again"


@dataclass(frozen=True, slots=True)
class Target:
    """What is asked for by a name."""

    model: str
    """The base model whose engines answer."""
    resolved: str
    """Empty where the traffic is split."""
    capabilities: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Means:
    """What a run needs of the gateway around it."""

    launcher: Launcher
    busiest: Callable[[str], Awaitable[Busy | None]]
    """Of the engines, by what users take of them, where this base model is to be measured (`gateway.control.benchmarktraffic`)."""
    url: str
    """Of the endpoint."""
    key: str
    """With which the endpoint is asked."""
    find: Callable[[str], Target]
    """Raises ModelNotFound."""
    say: Callable[[str], None]
    """Tells the operator."""
    changed: Callable[[], Awaitable[object]]
    """The state of a run, and with it what was measured last, is another one now."""


class Benchmarks:
    """One run at a time: two would measure each other."""

    def __init__(self, shelf: Shelf, means: Means, clock: Callable[[], float] = time.time) -> None:
        self._shelf = shelf
        self._means = means
        self._clock = clock
        self._runs: dict[str, Run] = {}
        """Oldest first."""
        self._active: str | None = None
        """The id of the run that is on, or is about to begin."""
        self._task: asyncio.Task[None] | None = None
        self._beginning = asyncio.Lock()
        """Held from where a run can be seen until there is a task to break off: who ends it meanwhile waits for that."""
        self._first_word = asyncio.Event()
        """The child has said something, or the run is over."""
        self._refusal = ""
        """What it said in place of measuring anything."""
        self._ending = (RunState.CUT, _CUT)
        """What a run is that is broken off."""
        self._is_closed = False

    async def open(self) -> None:
        """Find what earlier runs left."""
        for run in await asyncio.to_thread(self._shelf.runs, self._means.say):
            self._runs[run.id] = run
            if run.state is RunState.RUNNING:
                await self._keep(replace(run, state=RunState.CUT, detail=_CUT, ended=self._clock()))

    async def close(self) -> None:
        """A run that is on is cut, and none begins any more."""
        self._is_closed = True
        async with self._beginning:
            pass
        await self._break_off()

    def runs(self) -> tuple[Run, ...]:
        """Newest first."""
        return tuple(reversed(self._runs.values()))

    def run(self, run_id: str) -> Run:
        """Raises NotFound."""
        if run_id not in self._runs:
            newest = next(reversed(self._runs), None)
            known = f"the newest is {newest}" if newest else "there is none yet: POST /admin/v1/benchmarks starts one"
            raise errors.NotFound(f"no benchmark {run_id!r}; {known}")
        return self._runs[run_id]

    def measured(self) -> tuple[wire.Measured, ...]:
        """What workers tell clients."""
        return benchmarkresult.measured(self._runs)

    async def begin(self, body: BenchmarkBody, who: str) -> Run:
        """Returns once it is under way. Raises BadRequest, also for what only the child finds wrong; ModelNotFound, Conflict."""
        require_sound(body)
        target = self._target(body)
        if self._active is not None:
            raise errors.Conflict(
                f"benchmark {self._active} is on, and two would measure each other: wait for it, or stop it with "
                f"DELETE /admin/v1/benchmarks/{self._active}"
            )
        at = self._clock()
        run = Run(_id(at), body, who, target.resolved, at)
        self._active = run.id
        try:
            run = replace(run, user_share=await self._require_quiet(body, target.model))
            async with self._beginning:
                await self._start(run)
        except BaseException:
            self._active = None
            self._runs.pop(run.id, None)
            raise
        self._means.say(f"benchmark {run.id}: {body.model} at {load_words(body)}, for {who}")
        with suppress(TimeoutError):
            await asyncio.wait_for(self._first_word.wait(), FIRST_WORD_S)
        if self._refusal:
            del self._runs[run.id]
            await asyncio.to_thread(self._shelf.remove, run.id)
            raise errors.BadRequest(self._refusal)
        return self._runs[run.id]

    async def _start(self, run: Run) -> None:
        """Raises Conflict, OSError."""
        if self._is_closed:
            raise errors.Conflict("the gateway is stopping: it begins no benchmark any more")
        await self._keep(run)
        self._ending, self._refusal = (RunState.CUT, _CUT), ""
        self._first_word.clear()
        self._task = asyncio.create_task(self._run(run), name=f"benchmark {run.id}")

    async def stop(self, run_id: str, who: str) -> Run:
        """Returns once it has ended; one that has ended already stays as it is. Raises NotFound."""
        if self.run(run_id).state is RunState.RUNNING:
            async with self._beginning:
                self._ending = (RunState.STOPPED, f"by {who}")
            await self._break_off()
        return self.run(run_id)

    async def document(self, run_id: str, *, is_page: bool) -> bytes:
        """The result as JSON, or as the page. Raises NotFound, Conflict."""
        run = self.run(run_id)
        if run.state is not RunState.DONE:
            raise errors.Conflict(f"benchmark {run_id} has no result: {benchmarkresult.words(run)}")
        read = self._shelf.report if is_page else self._shelf.result
        content = await asyncio.to_thread(read, run_id)
        if content is None:
            raise errors.NotFound(f"the files of benchmark {run_id} are gone from {self._shelf.folder(run_id)}")
        return content

    def _target(self, body: BenchmarkBody) -> Target:
        target = self._means.find(body.model)
        if body.endpoint not in target.capabilities:
            has = ", ".join(target.capabilities) or "nothing that is known yet"
            raise errors.BadRequest(
                f"endpoint: {body.model} does not serve {body.endpoint} (it serves: {has})", param="endpoint"
            )
        return target

    async def _require_quiet(self, body: BenchmarkBody, model: str) -> float:
        """The share that users take. Raises Conflict."""
        busiest = await self._means.busiest(model)
        if busiest is None:
            return 0.0
        if busiest.share > MAX_SHARE and not body.force:
            raise errors.Conflict(
                f"users' requests take {busiest.share:.0%} of {busiest.engine_id} ({busiest.words}), and beside more than "
                f"{MAX_SHARE:.0%} a benchmark slows them down and measures them: wait, or say `force: true`",
                param="force",
            )
        return round(busiest.share, 4)

    # The run ----------------------------------------------------------------------------------------------------------

    async def _run(self, run: Run) -> None:
        """The boundary of a run: it ends in exactly one state, whatever happens."""
        state, detail = RunState.FAILED, "internal error; the traceback is in the log of `forgegate serve`"
        try:
            await self._means.changed()
            run = await self._measure(run)
            state, detail = run.state, run.detail
        except asyncio.CancelledError:
            state, detail = self._ending
        except TimeoutError:
            detail = f"it had not ended after {run.body.longest_s:g} s (limit_s)"
        except (SpawnFailed, OSError, NoResult) as exc:
            detail = str(exc)
        except Exception:  # noqa: BLE001 - named boundary: logged, and told as what it is
            traceback.print_exc()
        finally:
            known = self._runs[run.id]
            run = replace(
                run, state=state, detail=detail, ended=self._clock(), num_done=known.num_done, num_parts=known.num_parts
            )
            await self._end(run)

    async def _end(self, run: Run) -> None:
        self._runs[run.id] = run
        self._active = None
        try:
            with suppress(OSError):  # a full disk costs the history, not the gateway
                await self._keep(run)
            self._means.say(f"benchmark {run.id}: {benchmarkresult.words(run)}")
            await self._means.changed()
        finally:
            self._first_word.set()

    async def _measure(self, run: Run) -> Run:
        """Raises SpawnFailed, OSError, TimeoutError, NoResult."""
        folder = self._shelf.folder(run.id)
        log = LogRing()
        log.on_line = lambda line: self._hear(run.id, line)
        code = await self._child(run, folder, log)
        if code == _BAD_USAGE and not self._first_word.is_set():
            self._refusal = _last_words(log, code)
        if code not in _MEASURED:
            return replace(run, state=RunState.FAILED, detail=_last_words(log, code))
        return with_result(run, await asyncio.to_thread(_read, folder / RESULT))

    async def _child(self, run: Run, folder: Path, log: LogRing) -> int:
        """Until it ends; it is dead when this returns, in whatever way."""
        argv = command(run.body, self._means.url, (folder / RESULT, folder / REPORT))
        child = await self._means.launcher.spawn(
            LaunchSpec(argv, {**import_env(), KEY_VARIABLE: self._means.key}, cwd=folder), log
        )
        try:
            async with asyncio.timeout(run.body.longest_s):
                return await child.wait()
        finally:
            child.kill()
            await asyncio.shield(asyncio.wait({child.end}, timeout=5.0))

    def _hear(self, run_id: str, line: str) -> None:
        run = self._runs[run_id]
        if found := _PROGRESS.match(line):
            run = replace(run, num_done=int(found[1]), num_parts=int(found[2]), detail=found[3])
        elif run.state is RunState.RUNNING and not run.num_parts:
            run = replace(run, detail=line)
        self._runs[run_id] = run
        if not line.startswith(("error: ", "help: ")):
            self._first_word.set()

    async def _break_off(self) -> None:
        if self._task is not None and not self._task.done():
            if not self._task.cancelling():  # a second one would break off its end
                self._task.cancel()
            await asyncio.wait({self._task})

    async def _keep(self, run: Run) -> None:
        """Raises OSError."""
        self._runs[run.id] = run
        await asyncio.to_thread(self._shelf.keep, run)
        for gone in await asyncio.to_thread(self._shelf.trim, run.id):
            self._runs.pop(gone, None)


def target_of(snapshot: wire.Snapshot, name: str) -> Target:
    """Of a model, an alias or a version. Raises ModelNotFound."""
    models = {model.name: model for model in snapshot.models}
    if name in models:
        return Target(name, models[name].resolved, models[name].capabilities)
    of_alias = next((alias for alias in snapshot.aliases if alias.name == name), None)
    shares = {share.adapter for share in of_alias.shares if share.weight > 0} if of_alias else {name}
    version = next((adapter for adapter in snapshot.adapters if adapter.name in shares), None)
    if version is None or version.model not in models:
        known = ", ".join(sorted({*models, *(alias.name for alias in snapshot.aliases)}))
        raise errors.ModelNotFound(f"model: {name!r} is not served here; there are: {known}", param="model")
    return Target(version.model, version.name if len(shares) == 1 else "", models[version.model].capabilities)


def _id(at: float) -> str:
    """Ids sort as their runs began."""
    return f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime(at))}-{secrets.token_hex(2)}"


def _read(path: Path) -> dict[str, object]:
    """Raises NoResult."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError) as exc:
        raise NoResult(f"it ended well and left no result ({exc})") from exc
    if not isinstance(found, dict):
        raise NoResult("it ended well and left no result")
    return found


def _last_words(log: LogRing, code: int) -> str:
    """Its error, which is one line; else how it ended."""
    said = [line.removeprefix("error: ") for line in log.tail(10) if line.startswith("error: ")]
    return said[-1] if said else f"it ended without a word ({exit_words(code)})"
