"""TRL's trainer with our batches, our loss, our checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import set_peft_model_state_dict
from safetensors.torch import load_file
from torch import Tensor
from trl import SFTTrainer

from finetune.errors import RecipeUnusable
from finetune.training import checkpoints
from finetune.training.adapter import WEIGHTS, write_files
from finetune.training.batches import EpochOrder
from finetune.training.ewc import Penalty
from finetune.training.losses import summed_loss
from finetune.training.tally import Tally, take

Loss = Callable[..., Tensor]
"""The user's: (outputs, labels, num_items_in_batch) -> the micro batch's part of the whole batch's loss, as transformers has it."""


@dataclass(frozen=True, slots=True)
class Shelf:
    """Where checkpoints stand, how many, and the digest of the data that they are of."""

    folder: Path
    data: str
    max_checkpoints: int


class AdapterTrainer(SFTTrainer):  # type: ignore[misc]
    """`batches` are those of `batches.Collator`. The loss is the mean over all trained tokens of an update, whichever micro batch and
    process they are in."""

    loss_is_scaled_for_ga = True
    control: Any

    def __init__(
        self,
        *,
        model: Any,
        order: EpochOrder,
        tally: Tally,
        is_chunked: bool,
        loss: Loss | None,
        shelf: Shelf,
        **settings: Any,
    ) -> None:
        self.is_abandoned = False
        """A stop was asked for while it was evaluated: no step follows that would tell."""
        self.penalty: Penalty | None = None
        """Added to what every update minimises, and not to the loss that is told."""
        self._is_penalty_due = False
        self._order, self._tally, self.is_chunked, self._loss, self._shelf = order, tally, is_chunked, loss, shelf
        own = {name: value.data for name, value in model.named_parameters() if value.requires_grad}
        super().__init__(model=model, **settings)
        # TRL makes adapters on four bits bfloat16, in whose rounding small steps are lost.
        for name, value in model.named_parameters():
            if name in own:
                value.data = own[name].to(value.device)

    # batches --------------------------------------------------------------------------------------------------------

    def _get_train_sampler(self, train_dataset: Any = None) -> EpochOrder:
        return self._order

    def get_batch_samples(
        self, epoch_iterator: Iterator[dict[str, Any]], num_batches: int, device: torch.device
    ) -> tuple[list[dict[str, Any]], Tensor]:
        """The micro batches of one update, and how many tokens it trains on all processes."""
        batches = []
        for _ in range(num_batches):
            batch = next(epoch_iterator, None)
            if batch is None:
                break
            batches.append(batch)
        trained = self._tally.add(batches)
        self._is_penalty_due = self.penalty is not None
        return batches, torch.tensor(trained, device=device)

    def floating_point_ops(self, inputs: Any) -> int:
        return 0

    # loss -----------------------------------------------------------------------------------------------------------

    def training_step(self, *args: Any, **kwargs: Any) -> Tensor:
        """The first micro batch of an update comes with the penalty, which is the same on all processes: their mean is that of one."""
        if self.penalty is not None and self._is_penalty_due:
            self._is_penalty_due = False
            self._penalise(self.penalty())
        loss: Tensor = super().training_step(*args, **kwargs)
        return loss

    def _penalise(self, penalty: Tensor) -> None:
        """In a backward pass of its own, while DistributedDataParallel waits for no gradients: it takes each of them once, and those of
        checkpointed blocks come by themselves, apart from whatever else the parameters are in."""
        self._tally.note_penalty(penalty.detach())
        self.accelerator.backward(penalty)

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Tensor | None = None
    ) -> Tensor:
        """This micro batch's part of the mean; the processes' parts are averaged later, so that each is multiplied by their number."""
        assert num_items_in_batch is not None
        inputs = {**inputs, "use_cache": False}
        scale = int(self.accelerator.num_processes)
        if self._loss is not None:
            labels = inputs.pop("labels")
            own: Tensor = self._loss(model(**inputs), labels, num_items_in_batch)
            return own * scale
        mean: Tensor = self._summed(model, inputs) / num_items_in_batch.clamp(min=1)
        return mean * scale

    def _summed(self, model: Any, inputs: dict[str, Any]) -> Tensor:
        if self.is_chunked:
            total: Tensor = model(**inputs, is_chunked=True).loss
            return total
        labels = inputs.pop("labels")
        return summed_loss(model(**inputs).logits, labels)

    @torch.no_grad()
    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """The mean cross entropy of all held-out tokens; nothing, and the run is to be stopped, where that is asked for meanwhile."""
        self.model.eval()
        total = torch.zeros(2, dtype=torch.float64, device=self.args.device)
        batches = self._own_eval_batches()
        for done, items in enumerate(batches, 1):
            if self._tally.is_stop_asked():
                return self._abandon()
            batch = self.data_collator(items)
            trained = take(batch).num_trained
            with self.compute_loss_context_manager():
                loss = self._summed(self.model, {**self._prepare_inputs(batch), "use_cache": False})
            total += torch.tensor([loss.double().item(), trained], dtype=torch.float64, device=self.args.device)
            self._tally.told_eval(done, len(batches))
        total = self.accelerator.reduce(total, "sum")
        metrics = {"eval_loss": float(total[0] / total[1]), "eval_tokens": int(total[1])}
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _own_eval_batches(self) -> list[list[dict[str, int]]]:
        """This process' part of the held-out packs: unlike those of a distributed loader, each of them is somebody's exactly once."""
        size = self.args.per_device_eval_batch_size
        own = list(self.eval_dataset)[self.accelerator.process_index :: self.accelerator.num_processes]
        return [own[start : start + size] for start in range(0, len(own), size)]

    def _abandon(self) -> dict[str, float]:
        self.is_abandoned = True
        self.control.should_evaluate = False
        self.control.should_save = self.control.should_training_stop = True
        return {}

    # checkpoints ----------------------------------------------------------------------------------------------------

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Dropout and order are functions of the step, so that one process' files hold all of it."""
        step = self.state.global_step
        if self.args.should_save:
            with checkpoints.writing(self._shelf.folder, step) as partial:
                write_files(self.model, partial, {})
                self._save_optimizer_and_scheduler(str(partial))
                self._save_scaler(str(partial))
                self._save_rng_state(str(partial))
                self.state.save_to_json(str(partial / "trainer_state.json"))
                checkpoints.seal(partial, step, self._shelf.data)
            checkpoints.prune(self._shelf.folder, self._shelf.max_checkpoints)
        self.accelerator.wait_for_everyone()
        self._tally.told_saved(step, self._shelf.folder / f"{checkpoints.PREFIX}{step}")

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """Raises RecipeUnusable where it is of another adapter."""
        stored = load_file(Path(resume_from_checkpoint, WEIGHTS))
        own = {name: value for name, value in self.model.named_parameters() if value.requires_grad}
        if len(stored) != len(own):
            raise RecipeUnusable(
                f"{resume_from_checkpoint}: its adapter has {len(stored)} tensors, the recipe's has {len(own)}"
            )
        try:
            result = set_peft_model_state_dict(self.model, stored)
        except RuntimeError as exc:
            raise RecipeUnusable(f"{resume_from_checkpoint}: its adapter is not the recipe's: {exc}") from exc
        if result.unexpected_keys:
            raise RecipeUnusable(
                f"{resume_from_checkpoint}: its adapter is on other layers than the recipe's: {result.unexpected_keys[0]}"
            )

    def _load_rng_state(self, checkpoint: str | None) -> None:
        """Each step draws from a seed of its own."""
