"""`forgegate quantize --to awq`: AutoAWQ in its own environment, as a child; a folder that is whole or absent."""

from __future__ import annotations

import asyncio
import glob
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from backends.awq import AwqPlan, plan_awq
from backends.derivation import Derivation, write_record
from backends.environments.interpreter import has_nvidia
from backends.errors import BackendError, NoRoom
from backends.llamacpp.quantize.estimate import perplexity, perplexity_ratio
from backends.llamacpp.quantize.levels import AWQ
from backends.modelfolder import stored_tensors, weight_files
from backends.plan import size_words
from backends.ram import free_ram
from backends.sourcedigests import compute_digest, source_digest
from gateway.exits import UsageError
from gateway.quantize.children import Children, Show, awq_python
from gateway.quantize.order import Form, Order
from gateway.quantize.place import owned, require_disk

DEPRECATED = (
    "AutoAWQ, which makes this, is no longer developed (last release 0.2.9, May 2025); its successor is the vLLM project's llm-compressor. "
    "vLLM serves what either makes"
)


def foretell(order: Order, notes: list[str]) -> Form:
    """Its size; what keeps this machine from making it goes to `notes`. Raises ModelUnusable."""
    plan = plan_awq(order.model)
    for check in _CHECKS:
        try:
            check(order, plan)
        except (UsageError, BackendError) as exc:
            notes.append(f"{AWQ} cannot be made as things are: {exc}")
    return Form(AWQ, plan.tensor_bytes, plan.bits_per_weight)


async def require(order: Order, children: Children) -> AwqPlan:
    """All that can be known before hours of other work. Raises CommandError, BackendError."""
    plan = await asyncio.to_thread(plan_awq, order.model)
    for check in _CHECKS:
        check(order, plan)
    if order.wanted.levels:
        await children.awq("check", **_texts(order))
    return plan


async def make(
    order: Order, plan: AwqPlan, children: Children, folder: Path, name: str, show: Show, notes: list[str]
) -> tuple[Form, str]:
    """The form and the digest of its source; `plan` is of `require`. Raises CommandError, BackendError."""
    show.note(f"note: {DEPRECATED}")
    digest = await asyncio.to_thread(source_digest, order.model, order.home.models)
    start, out = time.monotonic(), folder / f"{name}-{AWQ}"
    with owned(folder, name, order.home):
        require_disk(folder, {AWQ: plan.tensor_bytes})
        with _whole_folder(out) as temporary:
            told = await children.awq("quantize", out=str(temporary), group_size=plan.group_size, **_texts(order))
            content = await asyncio.to_thread(compute_digest, temporary)
            write_record(temporary, Derivation(AWQ, digest, content))
    size = sum(tensor.num_bytes for tensor in stored_tensors(weight_files(out)).values())
    seconds = round(time.monotonic() - start, 2)
    show.note(f"{AWQ}: {size_words(size)} in {seconds:.1f} s, groups of {plan.group_size}, on {told['device']}, {out}")
    notes.append(
        f"{AWQ} is measured by transformers against the F16 weights; its speed is that of vLLM: forgegate bench"
    )
    form = Form(AWQ, size, 8 * size / plan.num_values, out, seconds=seconds)
    return _with_losses(form, told["losses"], told["reference_losses"]), digest


def _with_losses(form: Form, losses: list[float], reference: list[float]) -> Form:
    if not losses:
        return form
    return replace(
        form,
        num_windows=len(losses),
        perplexity=perplexity(losses),
        perplexity_ratio=perplexity_ratio(losses, reference),
    )


def _texts(order: Order) -> dict[str, Any]:
    """What the child reads."""
    return {
        "model": str(order.model), "calibration": str(order.awq_calibration),
        "text": str(order.text) if order.text and order.measures else "", "most_windows": order.most_windows,
    }  # fmt: skip


def _require_environment(order: Order, _: AwqPlan) -> None:
    awq_python(order.home)


def _require_calibration(order: Order, _: AwqPlan) -> None:
    if order.awq_calibration is None:
        apart = ", in a command without --imatrix" if order.imatrix else ""
        raise UsageError(f"awq needs text like that of its later use to calibrate with: --calibrate FILE{apart}")


def _require_memory(_: Order, plan: AwqPlan) -> None:
    """All of the model is loaded, in F16 where a GPU computes, else in F32. Raises NoRoom."""
    needed, free = plan.num_values * (2 if has_nvidia() else 4), free_ram()
    if free is not None and needed > free:
        raise NoRoom(
            f"AutoAWQ loads the whole model, {size_words(needed)}, and {size_words(free)} of memory are free: take a GGUF level, which "
            "is made matrix by matrix, or a larger machine"
        )


_CHECKS: tuple[Callable[[Order, AwqPlan], None], ...] = (_require_environment, _require_calibration, _require_memory)


@contextmanager
def _whole_folder(path: Path) -> Iterator[Path]:
    """A folder beside `path` that takes its place when the block ends well. Raises OSError."""
    prefix = f".{path.name}.making-"
    for left in path.parent.glob(f"{glob.escape(prefix)}*"):
        shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=prefix, dir=path.parent) as name:
        made, old = Path(name) / "new", Path(name) / "old"
        made.mkdir()
        yield made
        if path.exists():
            path.rename(old)
        made.rename(path)
