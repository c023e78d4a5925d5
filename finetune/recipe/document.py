"""YAML as a tree in which every value knows its place. Scalars stay texts: what `2e-4` or `no` means is for its key to say."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

from finetune.errors import RecipeUnusable
from finetune.recipe.findings import Findings, Place

MAX_DEPTH = 16
MAX_NODES = 20_000
"""Aliases of aliases grow without bounds."""
_NULLS = frozenset({"", "~", "null", "Null", "NULL"})
RECIPE = (
    "a recipe is keys and values, such as `lora_r: 16`",
    "the recipe is empty: it needs at least base_model, datasets and adapter",
)
SUITE = ("a suite is keys and values, such as `general: demo`", "the suite is empty: it needs at least a task")
"""What a file should be, and what is said of an empty one."""
_YAML = "tag:yaml.org,2002:"
_MERGE = _YAML + "merge"
_TAGS = frozenset(_YAML + name for name in ("str", "int", "float", "bool", "null", "timestamp", "value"))


@dataclass(slots=True)
class Node:
    value: str | list[Node] | dict[str, Node]
    place: Place
    is_plain: bool = False
    """A scalar without quotes."""

    @property
    def is_null(self) -> bool:
        """`key:` with nothing behind it."""
        return self.is_plain and self.value in _NULLS

    @property
    def shown(self) -> str:
        """For messages."""
        if isinstance(self.value, str):
            return "nothing" if self.is_null else repr(self.value[:80])
        return "a list" if isinstance(self.value, list) else "keys and values"

    @property
    def items(self) -> Iterator[tuple[str, Node]]:
        """Of keys and values; none of anything else."""
        return iter(self.value.items() if isinstance(self.value, dict) else ())


def read_text(path: Path) -> str:
    """Raises RecipeUnusable."""
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        raise RecipeUnusable(f"{path}: it is no UTF-8 text: save it as UTF-8") from exc
    except OSError as exc:
        raise RecipeUnusable(f"{path}: {exc.strerror or exc}") from exc


def parse(text: str, source: str, findings: Findings, what: tuple[str, str] = RECIPE) -> Node | None:
    """The tree of a file; None where that is no YAML, or no keys and values, which is reported."""
    root = _compose(text, Place(False, 1, f"{source}:1"), source, findings, empty=what[1])
    if root is None:
        return None
    tree = _Builder(findings, lambda line: Place(False, line, f"{source}:{line}")).build(root, MAX_DEPTH)
    if not isinstance(tree.value, dict):
        findings.problem(tree.place, "", f"{what[0]}; this is {tree.shown}")
        return None
    return tree


def override(root: Node, text: str, number: int, findings: Findings) -> None:
    """`key=value` in place of what the file says; `a.b=value` goes into `a`, `datasets.0.path=value` into its first item."""
    key, sign, value = text.partition("=")
    place = Place(True, number, "--set")
    path = [step.strip() for step in key.split(".")]
    if not sign or not all(path):
        findings.problem(place, "", f"{text!r} is not of the form key=value, for example --set lora_r=8")
        return
    node = _compose(value or "null", place, "--set", findings, key)
    if node is None:
        return
    parent = root
    for step in path[:-1]:
        below = _child(parent, step, place)
        if below is None:
            findings.problem(
                place, key, f"{step} is no place in the recipe: keys, or numbers from 0 for the items of a list"
            )
            return
        parent = below
    new = _Builder(findings, lambda _: place).build(node, MAX_DEPTH)
    if not _put(parent, path[-1], new):
        findings.problem(
            place, key, f"{path[-1]} is no place in the recipe: keys, or numbers from 0 for the items of a list"
        )


def _compose(
    text: str, first: Place, source: str, findings: Findings, key: str = "", empty: str = RECIPE[1]
) -> yaml.Node | None:
    try:
        node: yaml.Node | None = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as exc:
        line = exc.problem_mark.line + 1 if exc.problem_mark else 1
        place = first if first.is_override else Place(False, line, f"{source}:{line}")
        findings.problem(place, key, _fault(exc.problem or str(exc)))
        return None
    except (yaml.YAMLError, RecursionError) as exc:
        findings.problem(first, key, f"not valid YAML: {str(exc).splitlines()[0]}")
        return None
    if node is None:
        findings.problem(first, key, empty)
    return node


def _fault(problem: str) -> str:
    if "'\\t'" in problem:
        return "a tab stands where YAML wants spaces"
    if "expected a single document" in problem or "but found another document" in problem:
        return "a second document begins here (`---`): a recipe is one"
    return f"not valid YAML: {problem}"


class _Builder:
    """Turns what PyYAML composed into nodes; aliases are copied, so that an override reaches one place only."""

    def __init__(self, findings: Findings, place_of_line: Callable[[int], Place]) -> None:
        self._findings = findings
        self._place_of_line = place_of_line
        self._num_nodes = 0

    def build(self, node: yaml.Node, depth: int) -> Node:
        place = self._place_of_line(node.start_mark.line + 1)
        self._num_nodes += 1
        if depth == 0 or self._num_nodes > MAX_NODES:
            self._findings.problem(place, "", "nested too deeply, or repeated too often by aliases")
            return Node("", place, is_plain=True)
        if isinstance(node, yaml.MappingNode):
            return Node(self._pairs(node, depth), place)
        if isinstance(node, yaml.SequenceNode):
            return Node([self.build(child, depth - 1) for child in node.value], place)
        assert isinstance(node, yaml.ScalarNode)
        if node.tag not in _TAGS:
            self._findings.problem(
                place, "", f"the tag {node.tag.removeprefix(_YAML)} means nothing here: leave it out"
            )
        return Node(str(node.value), place, is_plain=node.style is None)

    def _pairs(self, node: yaml.MappingNode, depth: int) -> dict[str, Node]:
        own: dict[str, Node] = {}
        merged: dict[str, Node] = {}
        for key_node, value_node in node.value:
            place = self._place_of_line(key_node.start_mark.line + 1)
            if key_node.tag == _MERGE:
                merged |= self._merged(value_node, place, depth - 1)
            elif not isinstance(key_node, yaml.ScalarNode):
                self._findings.problem(place, "", "a key is a word, not a list or keys and values")
            elif (key := str(key_node.value)) in own:
                first = own[key].place.words.rpartition(":")[2]
                self._findings.problem(place, key, f"it is given twice, first on line {first}: keep one of them")
            else:
                own[key] = self.build(value_node, depth - 1)
                own[key].place = place
        return {**merged, **own}

    def _merged(self, node: yaml.Node, place: Place, depth: int) -> dict[str, Node]:
        """What `<<` brings: one mapping, or several of which the first wins."""
        sources = node.value if isinstance(node, yaml.SequenceNode) else [node]
        pairs: dict[str, Node] = {}
        for source in sources:
            built = self.build(source, depth).value
            if not isinstance(built, dict):
                self._findings.problem(place, "<<", "it merges keys and values, such as `*defaults`")
                return {}
            pairs = {**built, **pairs}
        return pairs


def _child(parent: Node, step: str, place: Place) -> Node | None:
    """What lies at `step`, made where an override needs it; None where there is no such place."""
    if parent.is_null:
        parent.value, parent.is_plain = {}, False
    if isinstance(parent.value, dict):
        return parent.value.setdefault(step, Node("", place, is_plain=True))
    if isinstance(parent.value, list) and step.isdecimal() and int(step) <= len(parent.value):
        if int(step) == len(parent.value):
            parent.value.append(Node("", place, is_plain=True))
        return parent.value[int(step)]
    return None


def _put(parent: Node, step: str, new: Node) -> bool:
    if parent.is_null:
        parent.value, parent.is_plain = {}, False
    if isinstance(parent.value, dict):
        parent.value[step] = new
    elif isinstance(parent.value, list) and step.isdecimal() and int(step) < len(parent.value):
        parent.value[int(step)] = new
    elif isinstance(parent.value, list) and step.isdecimal() and int(step) == len(parent.value):
        parent.value.append(new)
    else:
        return False
    return True
