"""What follows training: curves in every case; an export, and a publication where it is asked for, of what was trained."""

from __future__ import annotations

from dataclasses import dataclass

from backends.errors import BackendError
from finetune import publish as publishing
from finetune.errors import TrainError
from finetune.export import Exported, export_adapter
from finetune.export.source import find
from finetune.jsonchild import Tell
from finetune.run.curves import draw
from finetune.run.folder import RunFolder, writing
from finetune.run.metrics import Metrics
from finetune.run.record import Record
from finetune.run.view import View
from finetune.running import find as find_gateway


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
    """Where an adapter is published. `url` and `token` None: those of the gateway that runs on this machine."""

    name: str
    url: str | None = None
    token: str | None = None


def warn_of_gateway(target: Target, view: View) -> None:
    """It has hours to be started in, so that its absence is no error yet."""
    try:
        find_gateway(target.url, target.token)
    except (TrainError, BackendError) as exc:
        view.say(f"warning: --publish {target.name}: {exc}. It is needed when training has ended")


def publish(exported: Exported, record: Record, view: View, target: Target) -> None:
    """As a candidate that is proven before the alias moves. Raises TrainError, BackendError."""
    done = publishing.publish(exported, target.name, target.url, target.token, tell_by(view))
    record.published = {"name": target.name, **done.as_json()}
    record.keep()
    for note in done.notes:
        view.say(f"note: {note}")
    view.say(done.words)
