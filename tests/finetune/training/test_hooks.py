"""`module:Name` from the current folder and the recipe's."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from finetune.errors import RecipeUnusable
from finetune.training.hooks import load_hook


@pytest.fixture(autouse=True)
def path_is_restored() -> Iterator[None]:
    before, modules = list(sys.path), set(sys.modules)
    yield
    sys.path[:] = before
    for name in set(sys.modules) - modules:
        del sys.modules[name]


def test_it_is_found_in_the_recipes_folder(tmp_path: Path) -> None:
    (tmp_path / "own_hooks_a.py").write_text("class Loader:\n    def rows(): ...\n")
    assert load_hook("own_hooks_a:Loader", "loader", [tmp_path]).__name__ == "Loader"
    assert load_hook("own_hooks_a:Loader.rows", "loader", [tmp_path]).__name__ == "rows"


def test_it_is_found_in_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_hooks_b.py").write_text("def loss(): ...\n")
    monkeypatch.chdir(tmp_path)
    assert load_hook("own_hooks_b:loss", "loss")() is None


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("own_hooks_c", "no `module:Name`"),
        ("own_hooks_missing:Loader", "there is no module 'own_hooks_missing' in "),
        ("own_hooks_c:Lodaer", "has no 'Lodaer'; did you mean 'Loader'?"),
        ("own_hooks_c:NUMBER", "is int, which cannot be called"),
        ("own_hooks_broken:Loader", "cannot be imported: ZeroDivisionError"),
        ("own_hooks_needs:Loader", "needs a module that is not there: some_package_of_theirs"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, name: str, words: str) -> None:
    (tmp_path / "own_hooks_c.py").write_text("class Loader: ...\nNUMBER = 3\n")
    (tmp_path / "own_hooks_broken.py").write_text("1 / 0\n")
    (tmp_path / "own_hooks_needs.py").write_text("import some_package_of_theirs\n")
    with pytest.raises(RecipeUnusable) as caught:
        load_hook(name, "hooks.loader", [tmp_path])
    assert words in str(caught.value)
    assert str(caught.value).startswith("hooks.loader: ")
