"""One attempt at a run, from the recipe to the adapter."""

from __future__ import annotations

import json
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig
from transformers.trainer_callback import PrinterCallback, TrainerState

from backends import artifacts
from finetune.dataset.tokens import ModelTokens
from finetune.errors import RecipeUnusable
from finetune.recipe.recipe import Recipe
from finetune.run.guards import Watch
from finetune.training import checkpoints, fisher, memory, metrics, reports
from finetune.training import model as models
from finetune.training.adapter import copy_adapter, write_adapter
from finetune.training.attention import choose_attention
from finetune.training.best import Best
from finetune.training.callbacks import Conductor, Teller
from finetune.training.events import Events
from finetune.training.ewc import Penalty
from finetune.training.fast import keeping, kernels, linear
from finetune.training.feed import Feed, batches_of
from finetune.training.hooks import load_hook
from finetune.training.losses import add_chunked_head
from finetune.training.memory import Meter
from finetune.training.model import Place
from finetune.training.probe import is_chunked_exact, require_isolation
from finetune.training.reading import Reader
from finetune.training.settings import optimizer_of, settings_of
from finetune.training.stopping import Stop
from finetune.training.tally import Tally
from finetune.training.threads import choose_threads, usable_cores
from finetune.training.trainer import AdapterTrainer, Shelf
from finetune.training.world import World

DONE, GUARD, STOPPED = 0, 1, 143


@dataclass(frozen=True, slots=True)
class Order:
    """What the command line asks for."""

    recipe: Recipe
    run: Path
    resume: Path | None = None
    memory_limit: int | None = None

    @property
    def checkpoints(self) -> Path:
        return self.run / "checkpoints"

    @property
    def best(self) -> Path:
        return self.run / "best"

    @property
    def adapter(self) -> Path:
        return self.run / "adapter"


class Attempt:
    """`run` returns the exit code. What it raises: TrainError, DataError, StopAsked before the first step, and what torch raises."""

    def __init__(self, order: Order, events: Events, stop: Stop, world: World) -> None:
        self._order, self._events, self._stop, self._world = order, events, stop, world
        self._recipe = order.recipe
        self._began = time.monotonic()
        self._notes: list[str] = []
        self._model: Any = None
        self._is_mixed = True
        self._trainer: Any = None
        self._meter: Meter | None = None
        self._reader: Reader | None = None
        self._best = Best(order.best, self._write)
        self._is_eval_missing = False
        """Where the attempt goes on from: a stop left it out."""
        self.resumed: checkpoints.Checkpoint | None = None

    def run(self) -> int:
        recipe = self._recipe
        os.environ.update(reports.variables(recipe.watch.report_to, recipe.watch.wandb, str(self._order.run)))
        reports.require(recipe.watch.report_to)
        hooks = self._hooks()
        config = self._config()
        place = self._place(config)
        has_kernels = self._has_kernels(place, config)
        self._share_cores(place)
        self._meter = Meter(place.device, self._order.memory_limit)
        self._meter.limit()
        tokens = ModelTokens(recipe.base)
        feed = self._feed(tokens, hooks["loader"], place)
        self._find_checkpoint(feed)
        self._load(place, has_kernels)
        self._trainer, conductor = self._build(feed, place, tokens, hooks)
        self._trainer.penalty = self._penalty(place, _pad_id(tokens.tokenizer))
        self._tell_start(feed, place)
        with self._stop.deferred():
            self._stop.raise_if_asked()
            return self._train(feed, conductor)

    # before training ------------------------------------------------------------------------------------------------

    def _hooks(self) -> dict[str, Any]:
        """The user's code, imported before anything that takes long."""
        recipe, folders = self._recipe, [self._recipe.folder]
        return {
            "loader": recipe.data.loader and load_hook(recipe.data.loader, "hooks.loader", folders),
            "loss": recipe.steps.loss and load_hook(recipe.steps.loss, "hooks.loss", folders),
            "callbacks": [load_hook(name, "hooks.callbacks", folders)() for name in recipe.watch.callbacks],
        }

    def _place(self, config: Any) -> Place:
        wanted, device = self._recipe.memory, models.choose_device(self._world.local_rank)
        dtype = models.choose_dtype(wanted, device)
        return Place(device, dtype, choose_attention(wanted, device, dtype, config))

    def _config(self) -> Any:
        """The model's. Raises RecipeUnusable where it cannot be read, or where rows may be longer than what the model reads."""
        recipe = self._recipe
        try:
            config = AutoConfig.from_pretrained(
                recipe.base, local_files_only=True, trust_remote_code=recipe.trust_remote_code
            )
        except (KeyError, OSError, TypeError, ValueError) as exc:
            raise RecipeUnusable(f"{recipe.base}: transformers cannot read its configuration: {exc}") from exc
        limit = getattr(config.get_text_config(), "max_position_embeddings", None)
        if limit is not None and recipe.data.max_length > limit:
            raise RecipeUnusable(
                f"sequence_len: {recipe.data.max_length:,}: {recipe.base_name or recipe.base} reads {limit:,} tokens at most"
            )
        return config

    def _share_cores(self, place: Place) -> None:
        cores = usable_cores()
        chosen = choose_threads(cores, os.getloadavg()[0]) if place.device.type == "cpu" else None
        if chosen is None:
            return
        torch.set_num_threads(chosen)
        if chosen < cores:
            self._notes.append(
                f"{chosen} of {cores} cores are used, others keep the rest busy; OMP_NUM_THREADS says otherwise"
            )

    def _feed(self, tokens: ModelTokens, loader: Any, place: Place) -> Feed:
        self._events.stage("read", "reading data")
        self._reader = Reader(self._recipe.data, tokens, self._recipe.seed, self._events, loader or None)
        prepared = self._reader.prepare()
        self._events.stage("pack", "packing rows" if self._recipe.memory.packing else "ordering rows")
        feed = Feed.of(self._recipe, prepared, self._world.size)
        self._events.tell("data", **feed.facts(place.is_flat))
        return feed

    def _find_checkpoint(self, feed: Feed) -> None:
        """Raises RecipeUnusable where what the order names is of other data."""
        if self._order.resume is None:
            return
        self.resumed, words = checkpoints.choose(self._order.resume, self._order.checkpoints)
        self._notes += [words] if words else []
        if self.resumed is not None and self.resumed.data != feed.digest():
            raise RecipeUnusable(
                f"{self.resumed.path.name} is of other data, another sequence_len, seed or batch: steps that follow would not be those "
                "of one run. Begin anew without it"
            )

    def _load(self, place: Place, has_kernels: bool) -> None:
        recipe = self._recipe
        if recipe.lora is None:
            raise RecipeUnusable(
                "adapter: none: all weights of a model are not trained here; use adapter: qlora or lora"
            )
        self._events.stage("load", f"loading {recipe.base_name or recipe.base}")
        base = models.load_base(recipe, place)
        if has_kernels:
            kernels.patch(base)
        if recipe.memory.chunked_loss:
            add_chunked_head(base)
        self._model = models.add_adapter(base, recipe.lora, str(recipe.base), recipe.seed)
        if recipe.memory.load_in_4bit:
            self._is_mixed = linear.fuse(self._model) < models.count_adapted(self._model)
        if recipe.memory.packing:
            require_isolation(self._model, place.is_flat, place.device)
        if recipe.memory.gradient_checkpointing:
            self._checkpoint_activations()

    def _has_kernels(self, place: Place, config: Any) -> bool:
        """Raises RecipeUnusable where the recipe wants what cannot be had."""
        wanted = self._recipe.memory.liger
        reason = kernels.obstacle(config, place.device)
        if wanted and reason:
            raise RecipeUnusable(f"{kernels.KEY}: true: {reason}: leave it out, and the model's own code is used")
        return wanted is not False and not reason

    def _checkpoint_activations(self) -> None:
        """Raises RecipeUnusable for layers that are not there."""
        if missing := [name for name in self._recipe.memory.keep_outputs if not keeping.keep(self._model, [name])]:
            raise RecipeUnusable(f"keep_outputs: {', '.join(missing)}: no adapted layer in four bits has that name")
        models.checkpoint_activations(self._model, self._recipe)

    def _is_chunked(self, place: Place) -> bool:
        if not self._recipe.memory.chunked_loss:
            return False
        if is_chunked_exact(self._model, place.device):
            return True
        self._notes.append(
            f"the loss is computed from all logits at once: the output head of {self._model.config.model_type} is not known here"
        )
        return False

    def _build(self, feed: Feed, place: Place, tokens: ModelTokens, hooks: dict[str, Any]) -> tuple[Any, Conductor]:
        recipe, order = self._recipe, self._order
        tally = Tally(self._events, self._stop)
        path = order.run / metrics.NAME
        step = self.resumed.step if self.resumed else 0
        earlier = [entry for entry in metrics.read(path) if entry["step"] <= step]
        watch = Watch(recipe.steps, place.dtype_name, feed.schedule.num_steps)
        teller = Teller(self._events, path if self._world.is_main else None, self._meter_of(place), watch)
        teller.recall(earlier)
        keep = self._best.offer if recipe.watch.early_stop_patience and self._world.is_main else None
        conductor = Conductor(
            feed.schedule, recipe.watch.early_stop_patience, recipe.seed, feed.order, tally, teller, keep
        )
        train, held_out = feed.datasets()
        self._is_eval_missing = feed.schedule.is_eval_due(step) and step not in teller.outcome.eval_steps
        trainer: Any = AdapterTrainer(
            model=self._model,
            order=feed.order,
            tally=tally,
            is_chunked=self._is_chunked(place),
            loss=hooks["loss"] or None,
            shelf=Shelf(order.checkpoints, feed.digest(), recipe.watch.max_checkpoints),
            args=settings_of(recipe, place, feed.schedule, order.run, self._is_mixed),
            train_dataset=train,
            eval_dataset=held_out,
            data_collator=feed.collator(_pad_id(tokens.tokenizer), place.is_flat),
            processing_class=tokens.tokenizer,
            callbacks=[*hooks["callbacks"], conductor],
        )
        trainer.remove_callback(PrinterCallback)
        self._notes += filter(None, [optimizer_of(recipe, place)[1]])
        return trainer, conductor

    def _penalty(self, place: Place, pad_id: int) -> Penalty | None:
        """None where the recipe wants none. What it is made of is measured once in a run, before the adapter changes anything."""
        recipe, path = self._recipe, self._order.run / fisher.NAME
        if recipe.ewc is None or self._reader is None:
            return None
        if self.resumed is not None and path.is_file():
            return Penalty.of(recipe.ewc.strength, self._model, fisher.load(path, place.device))
        self._events.stage("measure", "measuring what general rows need of the base")
        rows = self._reader.measured(recipe.ewc)
        batches = batches_of(recipe, rows, pad_id, place.is_flat)
        inputs = (
            self._trainer._prepare_inputs(batch) for batch in self._events.follow("measure", batches, len(batches))
        )
        factors = fisher.measure(
            self._model, inputs, self._trainer.is_chunked, recipe.seed, self._trainer.compute_loss_context_manager
        )
        if self._world.is_main:
            fisher.save(path, factors)
        return Penalty.of(recipe.ewc.strength, self._model, factors)

    def _meter_of(self, place: Place) -> Meter:
        return self._meter or Meter(place.device)

    def _tell_start(self, feed: Feed, place: Place) -> None:
        trained, total = models.count_parameters(self._model)
        self._events.tell(
            "start", num_steps=feed.schedule.num_steps, num_trainable=trained, num_parameters=total,
            resumed_from=self.resumed.step if self.resumed else None, device=_device_name(place.device), dtype=place.dtype_name,
            attention=place.attention, num_processes=self._world.size, notes=self._notes,
        )  # fmt: skip

    # training and after ---------------------------------------------------------------------------------------------

    def _train(self, feed: Feed, conductor: Conductor) -> int:
        outcome, trainer = conductor.outcome, self._trainer
        if self._world.is_main:
            self._clear()
        self._events.stage("train", "training")
        if self.resumed is None:
            trainer.train()
        elif not self._is_over(self.resumed, feed, conductor):
            trainer.train(resume_from_checkpoint=str(self.resumed.path))
        if outcome.fatal is not None:
            return GUARD
        if outcome.is_stopped or trainer.is_abandoned:
            self.tell_stopped()
            return STOPPED
        self._finish(feed, conductor)
        return DONE

    def _is_over(self, at: checkpoints.Checkpoint, feed: Feed, conductor: Conductor) -> bool:
        """Whether no step follows the one that is gone on from; then, and where its evaluation is made up for, the model is as it was."""
        trainer, is_last = self._trainer, at.step >= feed.schedule.num_steps
        if not (is_last or self._is_eval_missing or conductor.ends_early(at.step)):
            return False
        trainer._load_from_checkpoint(str(at.path))
        trainer.state.global_step = at.step
        trainer.state.epoch = TrainerState.load_from_json(str(at.path / "trainer_state.json")).epoch
        if self._is_eval_missing:
            trainer.evaluate()
        return is_last or trainer.is_abandoned or conductor.ends_early(at.step)

    def _clear(self) -> None:
        """What an earlier attempt left behind the step that this one begins at."""
        step = self.resumed.step if self.resumed else 0
        metrics.cut(self._order.run / metrics.NAME, step)
        checkpoints.sweep(self._order.checkpoints)
        checkpoints.discard_after(self._order.checkpoints, step)
        shutil.rmtree(self._order.adapter, ignore_errors=True)
        self._best.drop_after(step)

    def _write(self, out: Path) -> None:
        write_adapter(self._model, out, self._base_digest())

    def _finish(self, feed: Feed, conductor: Conductor) -> None:
        outcome, step = conductor.outcome, int(self._trainer.state.global_step)
        losses = outcome.eval_losses
        best = self._best.found() if self._recipe.watch.early_stop_patience else None
        if self._world.is_main:
            self._events.stage("save", "saving the adapter")
            if best is not None:
                copy_adapter(self._best.adapter, self._order.adapter)
            else:
                self._write(self._order.adapter)
        reason = "early_stop" if outcome.is_early else "max_steps" if feed.schedule.ends_early else "finished"
        self._events.tell(
            "done", adapter=str(self._order.adapter), num_steps=step, loss=outcome.loss,
            eval_loss=best.loss if best is not None else losses[-1] if losses else None,
            peak_bytes=self._meter.peak_bytes() if self._meter else 0, seconds=round(time.monotonic() - self._began, 2), reason=reason,
        )  # fmt: skip

    def _base_digest(self) -> str:
        home = os.environ.get("FORGEGATE_HOME")
        return artifacts.source_digest(self._recipe.base, Path(home, "models") if home else self._order.run)

    # ends of other kinds --------------------------------------------------------------------------------------------

    def tell_stopped(self) -> None:
        """With the last whole checkpoint; null where there is none yet."""
        found = checkpoints.whole_ones(self._order.checkpoints)
        last = found[-1] if found else None
        self._events.tell("stopped", step=last.step if last else 0, checkpoint=str(last.path) if last else None)

    def memory_by_part(self) -> dict[str, int]:
        """When there was not enough of it."""
        if self._meter is None:
            return {}
        return memory.by_part(self._model, getattr(self._trainer, "optimizer", None), self._meter)


def _pad_id(tokenizer: Any) -> int:
    """Any will do: what is padded is neither seen nor trained."""
    return int(next((found for found in (tokenizer.pad_token_id, tokenizer.eos_token_id) if found is not None), 0))


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def read_order(run: Path, number: int) -> Any:
    """RUN/attempts/N.json. Raises RecipeUnusable."""
    path = run / "attempts" / f"{number}.json"
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError) as exc:
        raise RecipeUnusable(f"{path}: it cannot be read: {exc}") from exc
