"""When a recipe's run is looked at, kept and ended, and who is told."""

from __future__ import annotations

from finetune.recipe.given import Given
from finetune.recipe.recipe import Watch

REPORTS = ("tensorboard", "wandb")
_SWITCHES = {"use_tensorboard": "tensorboard", "use_wandb": "wandb"}
_WANDB = {
    "wandb_project": "project", "wandb_entity": "entity", "wandb_name": "name", "wandb_run_id": "run_id", "wandb_mode": "mode",
}  # fmt: skip


def read_watch(given: Given, has_eval: bool, callbacks: tuple[str, ...]) -> Watch:
    """`has_eval`: whether there is evaluation data."""
    usual = Watch()
    wandb = {name: given.get(key) for key, name in _WANDB.items() if given.get(key)}
    return Watch(
        logging_steps=given.get("logging_steps", usual.logging_steps),
        eval_steps=_interval(given, "eval"),
        evals_per_epoch=given.get("evals_per_epoch", usual.evals_per_epoch),
        save_steps=_interval(given, "save"),
        saves_per_epoch=given.get("saves_per_epoch", usual.saves_per_epoch),
        max_checkpoints=given.get("save_total_limit", usual.max_checkpoints),
        early_stop_patience=_patience(given, has_eval),
        report_to=_reports(given, wandb),
        wandb=wandb,
        callbacks=callbacks,
    )


def check_evaluation(given: Given, has_eval: bool) -> None:
    """What is asked of evaluation, where there is data for it and where there is none."""
    strategy = given.get(given.first("eval_strategy", "evaluation_strategy"))
    asked = next((name for name in ("eval_steps", "evals_per_epoch") if given.has(name)), "")
    if strategy == "no" and has_eval:
        given.problem(
            given.first("eval_strategy", "evaluation_strategy"),
            "no, and there is evaluation data: leave out one of them",
        )
    elif asked and not has_eval:
        given.note(asked, "there is no evaluation data (val_set_size or test_datasets), so that nothing is evaluated")


def _interval(given: Given, kind: str) -> int:
    """Steps from one to the next; 0: once an epoch."""
    name, per_epoch = f"{kind}_steps", f"{kind}s_per_epoch"
    strategy_name = given.first("eval_strategy", "evaluation_strategy") if kind == "eval" else "save_strategy"
    steps, strategy = given.get(name, 0), given.get(strategy_name)
    if steps and given.has(per_epoch):
        given.problem(per_epoch, f"{name} is given too: keep one of them")
    if steps and steps != int(steps):
        what = f"write {per_epoch}, or a whole number of steps"
        given.problem(name, f"{steps:g}: a share of all steps is not known before the data is read: {what}")
    if strategy in ("epoch", "no") and (steps or (strategy == "epoch" and given.has(per_epoch))):
        given.problem(strategy_name, f"{strategy} contradicts {name if steps else per_epoch}: keep one of them")
    if strategy == "steps" and not given.has(name) and not given.has(per_epoch):
        given.problem(strategy_name, f"steps, and no {name}: write it")
    return int(steps)


def _patience(given: Given, has_eval: bool) -> int:
    patience = int(given.get("early_stopping_patience", 0))
    if patience and not has_eval:
        given.problem(
            "early_stopping_patience", "there is no evaluation data to stop by: write val_set_size or test_datasets"
        )
    if patience and given.get("load_best_model_at_end") is False:
        given.problem(
            "load_best_model_at_end",
            "false contradicts early_stopping_patience: the adapter of the best evaluation is what is left: leave out one of them",
        )
    if given.get("load_best_model_at_end") and not patience:
        given.problem(
            "load_best_model_at_end",
            "write early_stopping_patience too: the adapter of the best evaluation is what is left then",
        )
    return patience


def _reports(given: Given, wandb: dict[str, str]) -> tuple[str, ...]:
    asked = _named_reports(given)
    is_none = [name.lower() for name in given.get("report_to", ())] == ["none"]
    for switch, name in _SWITCHES.items():
        if given.get(switch) is True and is_none:
            given.problem(switch, "true contradicts report_to: none")
        elif given.get(switch) is True and name not in asked:
            asked.append(name)
        if given.get(switch) is False and name in asked:
            given.problem(switch, f"false contradicts report_to: {name}")
    if wandb.get("mode") == "disabled":
        asked = [name for name in asked if name != "wandb"]
    elif wandb.get("mode") == "offline" and "wandb" not in asked and given.get("use_wandb") is None:
        if is_none:
            given.problem("wandb_mode", "offline records for wandb, and report_to is none: leave out one of them")
        asked.append("wandb")
    elif wandb and "wandb" not in asked:
        name = next(key for key, own in _WANDB.items() if own in wandb)
        given.note(name, "kept, and nothing is uploaded: that takes report_to: wandb, which is never assumed")
    return tuple(asked)


def _named_reports(given: Given) -> list[str]:
    names = [name.lower() for name in given.get("report_to", ())]
    for name in names:
        if name not in (*REPORTS, "none"):
            given.problem(
                "report_to", f"{name}: known are none, {' and '.join(REPORTS)}; metrics.jsonl is always written"
            )
    if "none" in names and len(names) > 1:
        given.problem("report_to", "none stands alone")
    return [name for name in names if name in REPORTS]
