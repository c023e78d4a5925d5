"""What was trained, as others take it: the canonical adapter with its references, or a model with the adapter merged into it.

source   a run's folder or an adapter's, and the base that it was trained on
adapter  canonical PEFT, manifest, references: what `forgegate adapters publish` sends, and a gateway takes without a trainer
working  where it is made: beside what is written, one process at a time
merge    base + scale * B A, tensor by tensor, rounded once (numpy, no torch)
merged   a whole model folder made of that, verified before it is there
"""

from finetune.export.adapter import Exported, export_adapter
from finetune.export.merged import Merged, export_merged

__all__ = ["Exported", "Merged", "export_adapter", "export_merged"]
