"""The work of `forgegate quantize`: children that convert, quantise, calibrate and measure, and the files that come of it.

What is written is whole or absent: every file is made under another name and renamed at its end. A child that computes cannot be asked to
stop; it is killed, by us or, should we die, by the guardian.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from backends.atomicfile import atomic_path
from backends.digests import file_digest
from backends.errors import ModelUnusable
from backends.llamacpp.folder import ModelFolder
from backends.llamacpp.header import FLOAT_TYPES, Header, read_parts
from backends.llamacpp.launch import read_model
from backends.llamacpp.quantize.estimate import perplexity, perplexity_ratio, rate_ratio
from backends.llamacpp.quantize.levels import AWQ, Level
from backends.llamacpp.quantize.request import TYPE_NAMES, base_name, main_type, refuse_quantised, split_by_gain
from backends.llamacpp.quantize.sizes import Size, num_fallbacks, predicted, size_of, types_told
from backends.llamacpp.quantize.skeleton import ShapeUnknown, write_skeleton
from backends.modelfolder import display_name
from backends.plan import size_words
from backends.process import Launcher
from backends.ram import free_ram
from gateway.exits import UsageError
from gateway.quantize import awq
from gateway.quantize.children import Children, Show, WorkFailed
from gateway.quantize.order import Form, Order, Result
from gateway.quantize.place import owned, require_disk

CALIBRATION_WINDOWS = 128
"""Of 512 tokens: what llama.cpp's and AutoAWQ's authors use."""


async def carry_out(order: Order, show: Show) -> Result:
    """Raises CommandError, BackendError. What is not finished when it is cancelled leaves nothing."""
    launcher = await Launcher.start()
    try:
        job = _Job(order, Children(launcher, order.home, show), show)
        return await (job.foretell() if order.is_dry_run else job.make())
    finally:
        await launcher.close()


@dataclass(slots=True)
class _Job:
    order: Order
    children: Children
    show: Show
    notes: list[str] = field(default_factory=list)
    failure: str = ""

    # Sizes only --------------------------------------------------------------------------------------------------------

    async def foretell(self) -> Result:
        """Nothing is written but a few kilobytes for a moment."""
        foretold = [awq.foretell(self.order, self.notes)] if self.order.wanted.awq else []
        forms: list[Form] = []
        if self.order.wanted.levels:
            with tempfile.TemporaryDirectory(prefix="forgegate-quantize-") as name:
                path, parts = await asyncio.to_thread(self._heads, Path(name))
                sizes = await self._predict(path, parts, self._levels(parts))
            forms = [Form(name, size.file_bytes, size.bits_per_weight) for name, size in sizes.items()]
        return self._result("", [*forms, *foretold], "", None)

    def _heads(self, work: Path) -> tuple[Path, Sequence[Header]]:
        model = read_model(self.order.model)
        if not isinstance(model, ModelFolder):
            refuse_quantised(model, self.order.is_forced)
            return self.order.model, model
        try:
            path = write_skeleton(model, work / "skeleton.gguf")
        except ShapeUnknown as exc:
            raise WorkFailed(f"{self.order.model}: {exc}; give its F16 GGUF, or leave out --dry-run", 3) from exc
        return path, read_parts(path)

    async def _predict(self, path: Path, parts: Sequence[Header], levels: Sequence[Level]) -> dict[str, Size]:
        told = await self.children.work(
            "predict", source=str(path), file_types=[level.file_type for level in levels], is_requantizing=True
        )
        lines = {level.name: told["lines"][str(level.file_type)] for level in levels}
        larger = [f"{count} in {name}" for name, each in lines.items() if (count := num_fallbacks(each))]
        if larger:
            words = "matrices are kept in larger types, because their rows are no multiple of the level's blocks"
            self.notes.append(f"{words}: {', '.join(larger)}")
        return {name: predicted(parts, types_told(each)) for name, each in lines.items()}

    def _levels(self, parts: Sequence[Header]) -> list[Level]:
        """Those that can make something of the source. Raises UsageError for a level that was named and cannot."""
        kept, useless = split_by_gain(parts, self.order.wanted.levels)
        if not useless:
            return kept
        names = ", ".join(level.name for level in useless)
        words = f"{names}: no smaller than what {self.order.model.name} holds ({TYPE_NAMES.get(main_type(parts), '?')})"
        if not self.order.wanted.is_all or not kept:
            raise UsageError(f"{words}, so that nothing is gained; ask for a smaller level")
        self.notes.append(f"{words}: left out")
        return kept

    # Files -------------------------------------------------------------------------------------------------------------

    async def make(self) -> Result:
        order = self.order
        forms: list[Form] = []
        digest, reference, imatrix = "", "", None
        plan = await awq.require(order, self.children) if order.wanted.awq else None
        if order.wanted.levels:
            digest, reference, imatrix, forms = await self._ggufs({AWQ: plan.tensor_bytes} if plan else {})
        if plan is not None:
            form, digest = await awq.make(
                order, plan, self.children, self._folder(), self._name(), self.show, self.notes
            )
            reference = reference or "F16"
            forms.append(form)
        if order.text is not None and order.text in (order.calibration, order.awq_calibration):
            self.notes.append("it was calibrated on the text that it is measured on: its perplexity flatters")
        return self._result(digest, forms, reference, imatrix)

    async def _ggufs(self, others: dict[str, int]) -> tuple[str, str, Path | None, list[Form]]:
        """`others`: bytes of what is made after them. The source's digest, the reference, the importance matrix, the forms."""
        order = self.order
        model = await asyncio.to_thread(read_model, order.model)
        # Rather now than after an hour of conversion.
        given = await self._entries(order.imatrix) if order.imatrix else {}
        if isinstance(model, ModelFolder):
            self.show.note(f"{order.model}: {model.architecture}, {size_words(model.num_bytes)} of weights")
            source = await self.children.convert(order.model, model.is_ours)
            parts: Sequence[Header] = await asyncio.to_thread(read_parts, source)
        else:
            refuse_quantised(model, order.is_forced)
            source, parts = order.model, model
        levels = self._levels(parts)
        digest = parts[0].source_digest or await asyncio.to_thread(
            file_digest, source, order.home.models / "file-digests.json"
        )
        folder = self._folder()
        is_measured = order.measures and await self._can_measure(source)
        with owned(folder, self._name(), order.home):
            sizes = await self._predict(source, parts, levels)
            require_disk(folder, {**{name: size.file_bytes for name, size in sizes.items()}, **others})
            imatrix = await self._imatrix(source, parts, folder, given)
            forms = [await self._quantize(source, parts, level, folder, digest, imatrix) for level in levels]
        reference, forms = await self._measured(source, parts, forms, is_measured)
        return digest, reference, imatrix, forms

    def _folder(self) -> Path:
        return self.order.out or self.order.home.models / "quantized" / self._name()

    def _name(self) -> str:
        model = self.order.model
        return display_name(model) if model.is_dir() else base_name(model)

    async def _entries(self, imatrix: Path) -> dict[str, int]:
        """By tensor, how many values. Raises WorkFailed where it is no importance matrix, or not a whole one."""
        sizes: dict[str, int] = (await self.children.work("check-imatrix", imatrix=str(imatrix)))["sizes"]
        return sizes

    async def _imatrix(
        self, source: Path, parts: Sequence[Header], folder: Path, entries: dict[str, int]
    ) -> Path | None:
        """The importance matrix to use, computed where a text is given; held against the model. `entries`: of one that is given."""
        path = self.order.imatrix
        if path is None and self.order.calibration is not None:
            path = folder / f"{self._name()}-imatrix.gguf"
            self.show.note(f"computing an importance matrix from {self.order.calibration.name}")
            with atomic_path(path) as temporary:
                await self.children.work(
                    "calibrate", source=str(source), text=str(self.order.calibration), out=str(temporary),
                    most_windows=CALIBRATION_WINDOWS,
                )  # fmt: skip
            self.notes.append(f"importance matrix: {path}")
            entries = await self._entries(path)
        if path is not None:
            _require_match(path, entries, parts)
        return path

    async def _quantize(
        self, source: Path, parts: Sequence[Header], level: Level, folder: Path, digest: str, imatrix: Path | None
    ) -> Form:
        start, out = time.monotonic(), folder / f"{self._name()}-{level.name}.gguf"
        if out.exists() and out.samefile(source):
            raise UsageError(f"{out} is what shall be quantised: name another folder with --out")
        metadata = {} if parts[0].source_digest else {"forgegate.source_digest": digest}
        with atomic_path(out) as temporary:
            await self.children.work(
                "quantize", source=str(source), out=str(temporary), file_type=level.file_type, level=level.name,
                imatrix=str(imatrix) if imatrix else "", metadata=metadata, is_requantizing=main_type(parts) not in FLOAT_TYPES,
            )  # fmt: skip
            made = await asyncio.to_thread(read_parts, temporary)
            if made[0].source_digest != digest:
                raise WorkFailed(f"{out}: llama.cpp's quantiser left out the digest of its source", 3)
        size = size_of(made)
        seconds = round(time.monotonic() - start, 2)
        self.show.note(f"{level.name}: {size_words(size.file_bytes)} in {seconds:.1f} s, {out}")
        return Form(level.name, size.file_bytes, size.bits_per_weight, out, seconds=seconds)

    # Measurements ------------------------------------------------------------------------------------------------------

    async def _can_measure(self, source: Path) -> bool:
        """Asked before the hours of work. Raises WorkFailed (the text is too short), UsageError."""
        order = self.order
        told = await self.children.work(
            "foresee", source=str(source), text=str(order.text or ""), most_windows=order.most_windows
        )
        if told["can_generate"]:
            return True
        if order.text is not None:
            raise UsageError(f"{order.model}: it generates no text, so that there is no perplexity: leave out --text")
        self.notes.append("not measured: this model generates no text")
        return False

    async def _measured(
        self, source: Path, parts: Sequence[Header], forms: list[Form], is_measured: bool
    ) -> tuple[str, list[Form]]:
        """The reference's name, and the forms with what was measured; what cannot be measured is told in a note."""
        order = self.order
        if all(form.name != "F16" for form in forms):
            size, kind = size_of(parts), TYPE_NAMES.get(main_type(parts), "?")
            forms = [Form(f"{kind} (source)", size.file_bytes, size.bits_per_weight, source, is_source=True), *forms]
        if not is_measured:
            return forms[0].name, forms
        if order.text is None:
            self.notes.append("perplexity is left out: give a text with --text FILE")
        fitting = self._fitting(forms)
        files = [str(form.path) for form in fitting]
        try:
            if not files:
                return forms[0].name, forms
            told = await self.children.work(
                "measure", files=files, text=str(order.text or ""), most_windows=order.most_windows
            )
        except WorkFailed as exc:
            self.failure = f"the files are made, and not measured: {exc}"
            self.notes.append(f"not measured: {exc}")
            return forms[0].name, forms
        measured = {form.name: _with_results(form, told, index) for index, form in enumerate(fitting)}
        return fitting[0].name, [measured.get(form.name, form) for form in forms]

    def _fitting(self, forms: list[Form]) -> list[Form]:
        free = free_ram()
        too_large = [form for form in forms if free is not None and form.size_bytes > free]
        if too_large:
            names = ", ".join(f"{form.name} ({size_words(form.size_bytes)})" for form in too_large)
            self.notes.append(f"{names}: not measured, because {size_words(free or 0)} of memory are free")
        return [form for form in forms if form not in too_large]

    def _result(self, digest: str, forms: list[Form], reference: str, imatrix: Path | None) -> Result:
        has_text = any(form.perplexity for form in forms)
        made = [_serving(form) for form in forms if form.path is not None and not form.is_source]
        text = f"{self.order.text_name}, {max(form.num_windows for form in forms)} windows" if has_text else ""
        notes = [f"perplexity of {text}", *self.notes] if has_text else self.notes
        return Result(
            self.order.model, digest, reference, text, imatrix, tuple(forms), tuple(notes), made[0] if made else "", self.failure,
        )  # fmt: skip


def _serving(form: Form) -> str:
    return f"--model {form.path}" + (" --engine vllm" if form.name == AWQ else "")


def _with_results(form: Form, told: dict[str, Any], index: int) -> Form:
    losses, prefill, decode = told["losses"], told["prefill"], told["decode"]
    form = replace(
        form, prefill=_median(prefill[index]), decode=_median(decode[index]),
        prefill_ratio=rate_ratio(prefill[index], prefill[0]), decode_ratio=rate_ratio(decode[index], decode[0]),
    )  # fmt: skip
    if not losses[index]:
        return form
    return replace(
        form, num_windows=len(losses[index]), perplexity=perplexity(losses[index]),
        perplexity_ratio=perplexity_ratio(losses[index], losses[0]),
    )  # fmt: skip


def _median(values: Sequence[float]) -> float:
    return sorted(values)[len(values) // 2]


def _require_match(path: Path, sizes: dict[str, int], parts: Sequence[Header]) -> None:
    """Raises ModelUnusable where the importance matrix is another model's."""
    tensors = {tensor.name: tensor for part in parts for tensor in part.tensors}
    known = [name for name in sizes if name in tensors]
    if not known:
        raise ModelUnusable(f"{path}: an importance matrix of another model: no tensor of this one is in it")
    for name in known:
        shape = tensors[name].shape
        columns = shape[0] * (shape[2] if len(shape) > 2 else 1)
        if sizes[name] != columns:
            raise ModelUnusable(
                f"{path}: an importance matrix of another model: {name} has {columns:,} columns here, {sizes[name]:,} there"
            )
