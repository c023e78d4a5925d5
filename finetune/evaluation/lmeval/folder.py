"""The task files of a folder: each `task:` a task, each `group:` several that are judged as one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from finetune.errors import RecipeUnusable
from finetune.evaluation.items import Item, Task
from finetune.evaluation.lmeval.config import Config, Function, read
from finetune.evaluation.lmeval.task import items_of, task_of

_MAX_INCLUDES = 8
_GROUP_KEYS = frozenset(("group", "group_alias", "task", "aggregate_metric_list", "metadata"))


def tasks_of(folder: Path, names: Sequence[str] = ()) -> tuple[Task, ...]:
    """The groups, and the tasks that are in none; or those of `names`. Raises RecipeUnusable with all that is wrong, DataError."""
    problems: list[str] = []
    files = _files(folder, problems)
    groups = {
        str(told["group"]): told for told in files.values() if "group" in told and isinstance(told.get("task"), list)
    }
    configs = _configs(files, problems)
    members = {name: _members(name, told, configs, problems) for name, told in groups.items()}
    _require(names, [*members, *configs], folder, problems)
    if problems:
        raise RecipeUnusable(problems)
    inside = {member for group in members.values() for member in group}
    wanted = names or [*members, *(name for name in configs if name not in inside)]
    return tuple(_task(name, members.get(name, [name]), configs, folder) for name in wanted)


def _task(name: str, members: Sequence[str], configs: Mapping[str, tuple[Config, Path]], folder: Path) -> Task:
    made: list[tuple[Config, list[Item]]] = []
    for member in members:
        config, where = configs[member]
        made.append((config, items_of(config, where)))
    return task_of(name, made)


def _files(folder: Path, problems: list[str]) -> dict[Path, Mapping[str, Any]]:
    """Those that are tasks or groups, with what they include; others are there to be included."""
    if not folder.is_dir():
        raise RecipeUnusable(f"{folder}: there is no such folder of task files")
    found = {}
    for path in sorted(folder.rglob("*.yaml")) + sorted(folder.rglob("*.yml")):
        try:
            told = _included(path, _MAX_INCLUDES)
        except RecipeUnusable as exc:
            problems += exc.problems
            continue
        if "task" in told:
            found[path] = told
    if not found and not problems:
        raise RecipeUnusable(f"{folder}: it has no task file (YAML with `task:`)")
    return found


def _included(path: Path, depth: int) -> Mapping[str, Any]:
    """With what `include:` brings, which the file's own keys override. Raises RecipeUnusable."""
    try:
        told = yaml.load(path.read_bytes(), Loader=_Loader)
    except OSError as exc:
        raise RecipeUnusable(f"{path}: {exc.strerror or exc}") from exc
    except (yaml.YAMLError, RecursionError, ValueError) as exc:
        raise RecipeUnusable(f"{path}: not valid YAML: {str(exc).splitlines()[0]}") from exc
    if not isinstance(told, dict):
        raise RecipeUnusable(f"{path}: a task file is keys and values")
    own = {str(name): value for name, value in told.items() if name != "include"}
    several = told.get("include", [])
    for name in [several] if isinstance(several, str) else several:
        if depth == 0:
            raise RecipeUnusable(f"{path}: files include each other without end")
        own = {**_included(path.parent / str(name), depth - 1), **own}
    return own


def _configs(files: Mapping[Path, Mapping[str, Any]], problems: list[str]) -> dict[str, tuple[Config, Path]]:
    found: dict[str, tuple[Config, Path]] = {}
    for path, told in files.items():
        if isinstance(told.get("task"), list):
            continue
        # Of old files: `group` beside a task's own name is a tag.
        config, faults = read({name: value for name, value in told.items() if name != "group"})
        problems += [f"{path}: {fault}" for fault in faults]
        if config is None:
            continue
        if config.name in found:
            problems.append(f"{path}: another file names its task {config.name!r} too")
        found[config.name] = (config, path.parent)
    return found


def _members(
    name: str, told: Mapping[str, Any], configs: Mapping[str, tuple[Config, Path]], problems: list[str]
) -> list[str]:
    problems += [f"group {name}: {key}: this key is not supported" for key in told if key not in _GROUP_KEYS]
    for each in told.get("aggregate_metric_list") or ():
        if not isinstance(each, dict) or each.get("weight_by_size", True) is not True:
            problems.append(f"group {name}: aggregate_metric_list: supported is weight_by_size: true")
    found = []
    for member in told["task"]:
        if not isinstance(member, str) or member not in configs:
            problems.append(f"group {name}: {member!r} is no task of this folder")
        else:
            found.append(member)
    return found


def _require(names: Sequence[str], known: Sequence[str], folder: Path, problems: list[str]) -> None:
    problems += [f"{folder}: it has no task {name!r}; it has {', '.join(known)}" for name in names if name not in known]


class _Loader(yaml.SafeLoader):
    """Knows lm-eval's tag for code."""


def _function(loader: yaml.SafeLoader, node: yaml.Node) -> Function:
    return Function(str(node.value))


_Loader.add_constructor("!function", _function)
