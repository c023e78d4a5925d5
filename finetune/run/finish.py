"""What follows training: curves in every case; an export, and a publication where it is asked for, of what was trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from backends.admin_client import AdminClient
from backends.errors import BackendError
from finetune import publish as publishing
from finetune.errors import TrainError
from finetune.export import Exported, export_adapter
from finetune.export.source import find
from finetune.gating.document import read as read_verdict
from finetune.jsonchild import Tell
from finetune.release import GateNegative, Plan
from finetune.run.curves import draw
from finetune.run.folder import RunFolder, writing
from finetune.run.metrics import Metrics
from finetune.run.record import Record
from finetune.run.view import View
from finetune.running import find as find_gateway
from finetune.verdictwords import lines


def tell_by(view: View) -> Tell:
    """How exports say how far they are."""

    def tell(stage: str, text: str, done: int, total: int) -> None:
        view({"event": "progress", "stage": stage, "text": text, "done": done, "total": total})

    return tell


def draw_curves(folder: RunFolder, record: Record, view: View) -> bool:
    """A picture that cannot be drawn costs no run: it is said."""
    try:
        return draw(Metrics.read(folder.metrics), folder.curves, folder.path.name, record.findings)
    except (TrainError, OSError) as exc:
        view.say(f"warning: no curves: {exc}")
        return False


def export(folder: RunFolder, record: Record, view: View) -> Exported:
    """The canonical adapter with its references, in the run's folder. Raises TrainError, BackendError."""
    with writing(folder.export):
        done = export_adapter(find(folder.path, None), folder.export, tell_by(view))
    record.exported = done.as_json()
    record.keep()
    return done


@dataclass(frozen=True, slots=True)
class Target:
    """Where an adapter is published. `url` and `token` None: those of the gateway that runs on this machine; `model` empty: the only one
    of it that takes adapters."""

    name: str
    url: str | None = None
    token: str | None = None
    model: str = ""


def warn_of_gateway(target: Target, view: View) -> None:
    """It has hours to be started in, so that its absence is no error yet; nor is what else would keep it from taking the adapter."""
    try:
        gateway = find_gateway(target.url, target.token)
        with AdminClient(gateway.admin_url, gateway.token) as client:
            problem = _misfit(target, [str(model["name"]) for model in client.models()])
    except (TrainError, BackendError) as exc:
        problem = f"{exc}. It is needed when training has ended"
    if problem:
        view.say(f"warning: --publish {target.name}: {problem}")


def _misfit(target: Target, models: Sequence[str]) -> str:
    """Empty where nothing is known to be wrong."""
    if target.name in models:
        return (
            f"{target.name!r} is the name of a model of the gateway, not of an adapter: choose another with --publish"
        )
    if target.model and target.model not in models:
        return f"the gateway has no model {target.model!r}, it has {', '.join(models)}: --model names one of them"
    return ""


def publish(exported: Exported, record: Record, view: View, target: Target, plan: Plan) -> None:
    """As a candidate that is proven and judged before the alias moves. Raises TrainError, BackendError."""
    try:
        done = publishing.publish(
            exported, target.name, target.url, target.token, tell_by(view), plan=plan, model=target.model
        )
    except GateNegative as exc:
        record.published = {"name": target.name, **exc.as_json()}
        record.keep()
        raise
    record.published = {"name": target.name, **done.as_json()}
    record.keep()
    if done.judged is not None:
        view.say("\n".join(lines(done.judged, read_verdict(done.judged).verdict)))
    for note in done.notes:
        view.say(f"note: {note}")
    view.say(done.words)
