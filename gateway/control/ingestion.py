"""The children that work on an upload: one checks, stores and converts it, one computes its reference. Each in an environment of its own.

The gateway itself imports neither numpy nor torch; what the children leave behind when they are killed, the next one sweeps.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Collection, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backends.adapter.manifest import Manifest, VersionUnusable, read_manifest
from backends.adapter.sealed import remove_tree
from backends.adapter.store import Store
from backends.base import LaunchSpec, Places
from backends.demo.goldens import shipped_golden
from backends.errors import EngineUnavailable, ModelUnusable, SpawnFailed
from backends.llamacpp.launch import converter_python
from backends.modelfolder import read_config
from backends.process import Launcher
from backends.pythons import choose_python, command_of, import_env, lacking
from gateway import errors
from gateway.control.basefacts import BaseFacts, Bases
from gateway.control.jsonchild import Outcome, Tell, run_child
from gateway.control.spool import Spool

GOLDEN = "golden.safetensors"
KNOWN = "known"
"""A mark in a version's folder: it was made durable once."""
CHECK_MODULES = ("numpy", "msgspec", "backends.adapter")
INGEST_MODULES = ("gguf", *CHECK_MODULES)
GOLDEN_MODULES = ("torch", "transformers", "peft", "safetensors", "finetune")
INGEST_S = 2700.0
"""Above what its own conversion may take, so that the child is the one to say what took too long."""
GOLDEN_S = 3600.0
_OURS = ("LlamaForCausalLM", "MistralForCausalLM")
"""Architectures whose adapters are converted without llama.cpp's own script."""
_REFUSED = 2


class AdapterRefused(errors.BadRequest):
    """The upload is no adapter that this model's engines can serve; `problems` has each with its fix."""

    code = "adapter_refused"

    def __init__(self, problems: list[dict[str, Any]]) -> None:
        self.problems = problems
        super().__init__("the adapter is refused:\n" + "\n".join(map(_problem_words, problems)))


class PublishFailed(errors.GatewayError):
    """This machine cannot do it: the disk, an environment, a child that died."""

    status = 503
    code = "publish_failed"


@dataclass(frozen=True, slots=True)
class Stored:
    """A version on the disk, whole."""

    manifest: Manifest
    is_new: bool
    seconds: Mapping[str, float]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Reference:
    """Whether the version has one; if not, why and how it would get one."""

    is_there: bool
    note: str = ""


class Ingestion:
    """Starts the children and believes none of them further than what it left on the disk."""

    def __init__(self, store: Store, bases: Bases, places: Places, launcher: Launcher, spool: Spool) -> None:
        self.store = store
        self._bases = bases
        self._places = places
        self._launcher = launcher
        self._spool = spool

    def mark(self, digest: str) -> None:
        """It is known until it is removed: whoever finds it unknown later has another database, and leaves it alone."""
        with suppress(FileNotFoundError):  # its folder is gone: whoever loads it is told
            self.store.mark(digest, KNOWN)

    def remove_strays(self, known: Collection[str], digests: Collection[str] | None = None) -> None:
        """Versions without a mark that nobody knows, removed or never made known; of all, or of these."""
        for digest in known if digests is None else ():
            self.mark(digest)  # killed between the database and the mark
        for digest in self.store.versions() if digests is None else digests:
            folder = self.store.version(digest)
            if digest not in known and folder.is_dir() and not (folder / KNOWN).exists():
                going = folder.with_name(f".work-stray-{digest[:16]}")
                folder.rename(going)  # killed in the middle, the next publication sweeps it
                remove_tree(going)

    async def ingest(self, base: BaseFacts, source: Path, tell: Tell) -> Stored:
        """`source`: an archive or a folder, read only. Raises AdapterRefused, PublishFailed."""
        described = self._spool.new_file(".json")
        try:
            described.write_bytes(base.to_json())
            argv = await asyncio.to_thread(self._ingest_argv, base, source, described)
            outcome = await self._run(argv, tell, INGEST_S)
        except (EngineUnavailable, OSError) as exc:
            raise PublishFailed(f"the adapter cannot be checked here: {exc}") from exc
        finally:
            described.unlink(missing_ok=True)
        if outcome.code == _REFUSED and outcome.event == "refused":
            raise AdapterRefused(list(outcome.last["problems"]))
        if outcome.code != 0 or outcome.event != "stored":
            raise PublishFailed(f"the adapter could not be stored: {outcome.words}")
        return self._stored(outcome)

    async def reference(self, base: BaseFacts, digest: str, tell: Tell) -> Reference:
        """What the engines' scores are held against: there already, or computed now where that is possible."""
        if await asyncio.to_thread(self._is_known, digest):
            return Reference(is_there=True)
        if base.folder is None:
            return Reference(False, f"unattested: {base.name} is a bare GGUF; a reference needs its safetensors folder")
        try:
            python = await asyncio.to_thread(
                choose_python, "trainer", GOLDEN_MODULES, None, self._places.envs_dir
            )  # fmt: skip
        except EngineUnavailable:
            return Reference(
                False,
                "unattested: references need the trainer's environment: run `forgegate install trainer`, publish again",
            )
        return await self._compute(base, base.folder, digest, python, tell)

    async def _compute(self, base: BaseFacts, folder: Path, digest: str, python: str, tell: Tell) -> Reference:
        """A file of the store's own working folder: killed in the middle, the next one sweeps it."""
        with ExitStack() as stack:
            work = await asyncio.to_thread(stack.enter_context, self.store.working())
            out = work.folder / GOLDEN
            argv = (
                python, "-P", "-m", "finetune.golden", "--base", str(folder), "--adapter", str(self.store.version(digest)),
                "--out", str(out),
            )  # fmt: skip
            try:
                outcome = await self._run(argv, tell, GOLDEN_S)
            except PublishFailed as exc:
                return Reference(False, f"unattested: its reference could not be computed: {exc}")
            if outcome.code != 0 or not out.is_file():
                return Reference(False, f"unattested: its reference could not be computed: {outcome.words}")
            await asyncio.to_thread(self.store.attach, digest, GOLDEN, out)
        return Reference(is_there=True)

    async def _run(self, argv: tuple[str, ...], tell: Tell, limit_s: float) -> Outcome:
        env = {**import_env(), "FORGEGATE_HOME": str(self._places.envs_dir.parent)}
        try:
            return await run_child(self._launcher, LaunchSpec(argv, env), tell, limit_s)
        except SpawnFailed as exc:
            raise PublishFailed(str(exc)) from exc
        except TimeoutError as exc:
            raise PublishFailed(f"{argv[3]} did not end within {limit_s:g} s and was killed") from exc

    def _is_known(self, digest: str) -> bool:
        """Attached already, or shipped with the demo model and attached now."""
        if self.store.attachment(digest, GOLDEN) is not None:
            return True
        shipped = shipped_golden(digest)
        if shipped is None:
            return False
        with self.store.working() as work:
            shutil.copyfile(shipped, work.folder / GOLDEN)
            self.store.attach(digest, GOLDEN, work.folder / GOLDEN)
        return True

    def _ingest_argv(self, base: BaseFacts, source: Path, described: Path) -> tuple[str, ...]:
        """Blocks while interpreters are asked what they have. Raises EngineUnavailable."""
        python = self._ingest_python(base)
        argv = [
            python, "-P", "-m", "backends.adapter.ingest", "--upload", str(source), "--store", str(self.store.root),
            "--base", str(described), "--engines", ",".join(base.engines), "--max-bytes", str(self._spool.max_bytes),
            "--tools", str(self._places.tools_dir),
        ]  # fmt: skip
        if "llamacpp" in base.engines and base.folder is not None and not _is_ours(base.folder):
            argv += ["--python", converter_python(python, self._places.envs_dir)]
        return tuple(argv)

    def _ingest_python(self, base: BaseFacts) -> str:
        """llama.cpp's, which makes GGUFs; any that has numpy where only vLLM serves it."""
        envs_dir = self._places.envs_dir
        if "llamacpp" in base.engines:
            pool = self._bases.engine_pool(base.name, "llamacpp")
            return choose_python("llamacpp", INGEST_MODULES, pool.python, envs_dir)
        own = self._bases.engine_pool(base.name, base.engines[0]).python
        command = command_of(own) if own is not None else ()
        if len(command) == 1 and not lacking(command[0], CHECK_MODULES):
            return command[0]
        try:
            return choose_python(base.engines[0], CHECK_MODULES, None, envs_dir, others=("vllm-cpu", "llamacpp"))
        except EngineUnavailable as exc:
            raise EngineUnavailable(
                f"no python here has {' and '.join(CHECK_MODULES[:2])}: install an environment with `forgegate install vllm`, "
                "vllm-cpu or llamacpp"
            ) from exc

    def _stored(self, outcome: Outcome) -> Stored:
        try:
            manifest = read_manifest(self.store.version(str(outcome.last["digest"])))
        except VersionUnusable as exc:
            raise PublishFailed(f"the adapter could not be stored: {exc}") from exc
        told = outcome.last
        notes = tuple(map(str, told.get("notes", ())))
        return Stored(manifest, bool(told.get("is_new", True)), dict(told.get("seconds", {})), notes)


def _is_ours(folder: Path) -> bool:
    try:
        named = read_config(folder).get("architectures")
    except ModelUnusable:
        return True  # whoever reads it next says what is wrong
    return isinstance(named, list) and bool(named) and named[0] in _OURS


def _problem_words(problem: Mapping[str, Any]) -> str:
    about = (
        f" ({problem['tensor']})"
        if problem.get("tensor") and str(problem["tensor"]) not in str(problem["message"])
        else ""
    )
    return f"  {problem['rule']}{about}: {problem['message']}\n    fix: {problem['fix']}"
