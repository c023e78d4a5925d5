"""The curves of a run, as a picture: loss, learning rate, norm of the gradients, memory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from backends.atomicfile import atomic_path
from finetune.errors import LacksPackage
from finetune.run.folder import writing
from finetune.run.metrics import Metrics, smooth

SIZE_INCHES = (11, 7)
DPI = 110
GIB = 1 << 30
SHOWN_SHARE = 0.4
"""Of the device: with less in use its limit would only flatten the curve."""


def draw(metrics: Metrics, path: Path, title: str, findings: Sequence[dict[str, Any]] = ()) -> bool:
    """Write the PNG; False where there is no step to draw. `findings` of guards are marked. Raises LacksPackage, FolderUnusable."""
    if not metrics.steps:
        return False
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as exc:
        raise LacksPackage(f"curves need {exc.name}: run `forgegate install trainer`") from exc
    figure = Figure(figsize=SIZE_INCHES, dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    if _is_drawable(title):
        figure.suptitle(title, parse_math=False)
    axes = figure.subplots(2, 2, sharex=True)
    _loss(axes[0][0], metrics, findings)
    _line(axes[0][1], "learning rate", *metrics.series("learning_rate"))
    _line(axes[1][0], "gradient norm", *metrics.series("grad_norm"))
    _memory(axes[1][1], metrics)
    for axis in axes[1]:
        axis.set_xlabel("step")
    with writing(path), atomic_path(path) as temporary:
        figure.savefig(temporary, format="png")
    return True


def _is_drawable(text: str) -> bool:
    """Whether the picture's font has its characters, as it has no Korean ones."""
    from matplotlib.font_manager import FontProperties, findfont, get_font

    font = get_font(findfont(FontProperties()))
    return all(font.get_char_index(ord(character)) for character in text)


def _loss(axis: Any, metrics: Metrics, findings: Sequence[dict[str, Any]]) -> None:
    steps, losses = metrics.series("loss")
    axis.plot(steps, losses, color="C0", alpha=0.3, linewidth=0.8)
    axis.plot(steps, smooth(losses), color="C0", label="train")
    evals = [(each["step"], each["loss"]) for each in metrics.evals if each.get("loss") is not None]
    if evals:
        axis.plot(*zip(*evals, strict=True), color="C1", marker="o", markersize=3, label="eval")
    for finding in findings:
        axis.axvline(finding["step"], color="C3", linewidth=0.8, linestyle=":")
    axis.set_title("loss")
    axis.legend()
    _grid(axis)


def _memory(axis: Any, metrics: Metrics) -> None:
    for name, label in (("memory_bytes", "now"), ("peak_bytes", "peak")):
        steps, values = metrics.series(name)
        axis.plot(steps, [value / GIB for value in values], label=label)
    totals, peaks = metrics.series("total_bytes")[1], metrics.series("peak_bytes")[1]
    if totals and peaks and max(peaks) > SHOWN_SHARE * totals[-1] > 0:
        axis.axhline(0.8 * totals[-1] / GIB, color="C3", linewidth=0.8, linestyle="--", label="80 % of the device")
    axis.set_title("memory, GiB")
    axis.set_ylim(0, 1.1 * axis.dataLim.y1 or None)
    axis.legend()
    _grid(axis)


def _line(axis: Any, title: str, steps: list[int], values: list[float]) -> None:
    axis.plot(steps, values, color="C0", linewidth=1)
    axis.set_title(title)
    _grid(axis)


def _grid(axis: Any) -> None:
    axis.grid(alpha=0.3)
