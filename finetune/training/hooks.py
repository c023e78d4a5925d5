"""The user's own code: `module:Name`, found from the current folder and the recipe's."""

from __future__ import annotations

import difflib
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from finetune.errors import RecipeUnusable


def load_hook(name: str, key: str, folders: Sequence[Path] = ()) -> Any:
    """The object that `module:Name` names, which can be called. Raises RecipeUnusable; `key` is what the recipe calls it."""
    module_name, _, attribute = name.partition(":")
    if not module_name or not attribute:
        raise RecipeUnusable(f"{key}: {name!r} is no `module:Name`, like my_hooks:Loader")
    found: Any = _module(module_name, key, folders)
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise RecipeUnusable(f"{key}: {module_name} has no {part!r}{_nearest(part, found)}")
        found = getattr(found, part)
    if not callable(found):
        raise RecipeUnusable(f"{key}: {name} is {type(found).__name__}, which cannot be called")
    return found


def _module(name: str, key: str, folders: Sequence[Path]) -> Any:
    places = [str(folder) for folder in (Path.cwd(), *folders)]
    sys.path.extend(place for place in places if place not in sys.path)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as exc:
        if exc.name is None or not (name == exc.name or name.startswith(f"{exc.name}.")):
            raise RecipeUnusable(f"{key}: {name} needs a module that is not there: {exc.name}") from exc
        raise RecipeUnusable(
            f"{key}: there is no module {name!r} in {' or '.join(dict.fromkeys(places))}, and none is installed"
        ) from exc
    except Exception as exc:
        raise RecipeUnusable(f"{key}: {name} cannot be imported: {type(exc).__name__}: {exc}") from exc


def _nearest(part: str, found: Any) -> str:
    names = [name for name in dir(found) if not name.startswith("_")]
    close = difflib.get_close_matches(part, names, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
