"""What a recipe gives: values of its honoured keys, and where each stands."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from finetune.recipe.document import Node
from finetune.recipe.findings import Findings, Place
from finetune.recipe.honoured import HONOURED
from finetune.recipe.keys import asks_nothing, meant
from finetune.recipe.noted import NOTED
from finetune.recipe.refused import REFUSED
from finetune.recipe.values import Unfit


@dataclass(slots=True)
class Given:
    root: Place
    findings: Findings
    _values: dict[str, Any] = field(default_factory=dict)
    _places: dict[str, Place] = field(default_factory=dict)

    @classmethod
    def of(cls, tree: Node, findings: Findings) -> Given:
        """Reports what is unknown, refused or of the wrong type; a key with nothing behind it is not given."""
        given = cls(tree.place, findings)
        for name, node in tree.items:
            if name in REFUSED:
                if not asks_nothing(name, node):
                    findings.problem(node.place, name, f"refused: {REFUSED[name]}")
            elif name in NOTED:
                if not node.is_null:
                    findings.note(name, f"without effect: {NOTED[name]}")
            elif name in HONOURED:
                given._take(name, node)
            else:
                close = meant(name)
                findings.problem(
                    node.place,
                    name,
                    f"unknown key{f'; did you mean {close}?' if close else ': `forgegate train --keys` lists them'}",
                )
        return given

    def _take(self, name: str, node: Node) -> None:
        if node.is_null:
            return
        self._places[name] = node.place
        try:
            self._values[name] = HONOURED[name].kind.read(node)
        except Unfit as exc:
            self.problem(name, str(exc))

    def has(self, name: str) -> bool:
        """Also with a value that was reported."""
        return name in self._places

    def get(self, name: str, default: Any = None) -> Any:
        return self._values.get(name, default)

    def first(self, *names: str) -> str:
        """The one of these that is given; the first of them where none is. Those that say the same key are reported if they differ."""
        found = [name for name in names if name in self._values]
        for other in found[1:]:
            if self._values[other] != self._values[found[0]]:
                self.problem(other, f"it contradicts {found[0]}: keep one of them")
        return found[0] if found else names[0]

    def place(self, name: str) -> Place:
        """Where it stands; the recipe's beginning where it does not."""
        return self._places.get(name, self.root)

    def problem(self, name: str, reason: str) -> None:
        self.findings.problem(self.place(name), name, reason)

    def note(self, name: str, words: str) -> None:
        self.findings.note(name, words)
