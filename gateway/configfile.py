"""Reading forgegate.yaml: every fault is reported at once, with its line and the nearest known key.

`${NAME}` and `${NAME:-default}` are replaced in values after parsing, so that what an environment variable holds can never
become YAML structure; `$${` is a literal `${`. While YAML is parsed, marks stand in their place: `{port: ${PORT}}` would
not be YAML.
"""

from __future__ import annotations

import dataclasses
import difflib
import itertools
import math
import os
import re
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml

from backends.errors import BadSpec
from backends.registry import kind_of, option_problems
from backends.remote import parse_base_url
from gateway.config import ApiKey, Config, Pool, hash_key, keys_of
from gateway.exits import UsageError
from gateway.origin import OPTIONS, Origin, option_of, plain

_VARIABLE = re.compile(r"\$(?:\$\{|\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}\n]*))?\})")
_MARK = re.compile("\ue000([0-9]+)\ue001")  # private-use characters: plain text to YAML, in any context
_MAX_DEPTH = 16
_GROUP_DEPTH = 4
"""Of a pool: its keys, its options, those in groups, and what these hold."""
_COMMON_POOL_KEYS = frozenset({"engine", "replicas"})
_START_KEY = "start_timeout_s"
"""Kinds of engines that are started here have it."""
_RESIDENCY_KEYS = frozenset({"resident", "idle_timeout_s", "sleep_level"})
_WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}

T = TypeVar("T")


@dataclasses.dataclass(frozen=True, slots=True, order=True)
class Problem:
    line: int
    text: str


class ConfigError(UsageError):
    """A configuration that cannot be used; `problems` has every fault that was found, in the order of lines."""

    def __init__(self, source: str, problems: Iterable[Problem]) -> None:
        self.problems = tuple(sorted(set(problems)))
        super().__init__("\n".join(f"{source}:{problem.line}: {problem.text}" for problem in self.problems))


class _Invalid(Exception):
    """A value was reported as wrong; whatever holds it cannot be built."""


def load(path: Path, env: Mapping[str, str] = os.environ) -> Config:
    """Raises ConfigError; UsageError when the file cannot be read."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise UsageError(f"{path}: {getattr(exc, 'strerror', None) or exc}") from exc
    return parse(text, str(path), env)


def parse(text: str, source: str = "forgegate.yaml", env: Mapping[str, str] = os.environ) -> Config:
    """Raises ConfigError."""
    if "\ue000" in text:
        raise ConfigError(
            source, [Problem(text[: text.index("\ue000")].count("\n") + 1, "private-use characters are not accepted")]
        )
    variables = list(_VARIABLE.finditer(text))
    numbers = itertools.count()
    node = _compose(_VARIABLE.sub(lambda _: f"\ue000{next(numbers)}\ue001", text), source)
    reader = _Reader(source, env, variables)
    try:
        config = reader.record(Config, node, "")
    except _Invalid:
        raise ConfigError(source, reader.problems) from None
    reader.check_names(config, node)
    reader.check_places(config, node)
    if reader.problems:
        raise ConfigError(source, reader.problems)
    return config


def _compose(text: str, source: str) -> yaml.Node:
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as exc:
        line = exc.problem_mark.line + 1 if exc.problem_mark else 1
        raise ConfigError(source, [Problem(line, f"not valid YAML: {exc.problem or exc}")]) from exc
    except yaml.YAMLError as exc:  # a character that YAML does not allow
        raise ConfigError(source, [Problem(1, f"not valid YAML: {str(exc).splitlines()[0]}")]) from exc
    if node is None:
        raise ConfigError(source, [Problem(1, "the file is empty: it needs at least `models`")])
    return node


class _Reader:
    """Turns YAML nodes into the classes of `gateway.config`, collecting problems."""

    def __init__(self, source: str, env: Mapping[str, str], variables: Sequence[re.Match[str]]) -> None:
        self.problems: list[Problem] = []
        self._source = source
        self._env = env
        self._variables = variables
        self._scalars = yaml.SafeLoader("")

    def record(self, cls: type[T], node: yaml.Node, where: str) -> T:
        """An instance of the dataclass `cls`; raises _Invalid after reporting everything that is wrong below `node`."""
        pairs = self._pairs(node, where)
        before = len(self.problems)
        if cls is ApiKey:
            self._hash_key(pairs)
        hints = typing.get_type_hints(cls)
        fields = keys_of(cls)
        values: dict[str, Any] = {}
        for key, (key_node, value_node) in pairs.items():
            if key not in fields:
                self._unknown(key, key_node, fields, where)
            elif not self._is_default(value_node, fields[key]):
                try:
                    values[key] = self._value(hints[key], fields[key].metadata, value_node, _join(where, key))
                except _Invalid:
                    continue
        for name, item in fields.items():
            has_default = item.default is not dataclasses.MISSING or item.default_factory is not dataclasses.MISSING
            if name not in pairs and (not has_default or (item.metadata.get("min_length") and item.default == ())):
                self._report(node, f"{_join(where, name)} is missing")
        if cls is Pool:
            values["origin"] = Origin(self._source, where, _lines_of(node))
            self._check_pool(pairs, node, where, values)
        if len(self.problems) > before:
            raise _Invalid
        return cls(**values)

    def check_names(self, config: Config, node: yaml.Node) -> None:
        """Names of models and of keys are unique."""
        for section, names in (("models", [m.name for m in config.models]), ("keys", [k.name for k in config.keys])):
            nodes = self._pairs(node, "")[section][1] if names else None
            for index, name in enumerate(names):
                if name in names[:index]:
                    assert isinstance(nodes, yaml.SequenceNode)
                    self._report(nodes.value[index], f"{section}[{index}].name: {name!r} is used twice")

    def check_places(self, config: Config, node: yaml.Node) -> None:
        """Folders are absolute, since where forgegate was started must not matter; the store is a URL."""
        pairs = self._pairs(node, "")
        if config.store is not None and "://" not in config.store:
            self._report(
                pairs["store"][1], "store: expected a database's URL, for example postgresql+psycopg://user@host/name"
            )
        self._check_conversations(config, pairs)
        if config.adapters.roots:
            nodes = self._pairs(pairs["adapters"][1], "adapters")["roots"][1]
            assert isinstance(nodes, yaml.SequenceNode)
            for index, root in enumerate(config.adapters.roots):
                if not Path(root).expanduser().is_absolute():
                    self._report(nodes.value[index], f"adapters.roots[{index}]: {root!r} is not an absolute path")

    def _check_conversations(self, config: Config, pairs: dict[str, tuple[yaml.Node, yaml.Node]]) -> None:
        if "conversations" not in pairs:
            return
        node, file = pairs["conversations"][1], config.conversations.file
        if not file and isinstance(node, yaml.MappingNode) and node.value:
            self._report(node, "conversations.file is missing: without it nothing is kept")
        elif file and not Path(file).expanduser().is_absolute():
            self._report(node, f"conversations.file: {file!r} is not an absolute path")

    # Parts of a record ------------------------------------------------------------------------------------------------

    def _pairs(self, node: yaml.Node, where: str) -> dict[str, tuple[yaml.Node, yaml.Node]]:
        if not isinstance(node, yaml.MappingNode):
            self._report(node, f"{where or 'the file'}: expected keys and values, got {_kind_words(node)}")
            raise _Invalid
        pairs: dict[str, tuple[yaml.Node, yaml.Node]] = {}
        for key_node, value_node in node.value:
            key = str(key_node.value)
            if key in pairs:
                first = pairs[key][0].start_mark.line + 1
                self._report(key_node, f"{_join(where, key)} is given twice (first on line {first})")
            pairs[key] = (key_node, value_node)
        return pairs

    def _unknown(self, key: str, node: yaml.Node, known: Iterable[str], where: str) -> None:
        known = list(known)
        close = difflib.get_close_matches(key.replace("-", "_"), known, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}"
        self._report(node, f"unknown key {_join(where, key)!r} ({hint})")

    def _hash_key(self, pairs: dict[str, tuple[yaml.Node, yaml.Node]]) -> None:
        """`key` becomes `sha256`: the plain key is not kept."""
        if "key" in pairs:
            key_node, value_node = pairs.pop("key")
            if "sha256" in pairs:
                self._report(key_node, "give `key` or `sha256`, not both")
            text = self._text(value_node) if isinstance(value_node, yaml.ScalarNode) else ""
            if len(text) < 8:
                self._report(value_node, "key: at least 8 characters are needed")
            pairs["sha256"] = (key_node, yaml.ScalarNode("tag:yaml.org,2002:str", hash_key(text), *_marks(value_node)))
        elif "sha256" in pairs:
            value_node = pairs["sha256"][1]
            if not re.fullmatch(r"[0-9a-f]{64}", str(value_node.value)):
                self._report(value_node, "sha256: expected 64 hexadecimal digits in lower case")

    def _check_pool(
        self, pairs: dict[str, tuple[yaml.Node, yaml.Node]], node: yaml.Node, where: str, values: dict[str, Any]
    ) -> None:
        if "engine" not in values:
            return
        engine = values["engine"]
        try:
            kind = kind_of(engine)
        except BadSpec as exc:
            self._report(pairs["engine"][1], f"{_join(where, 'engine')}: {exc}")
            return
        known = kind.keys | _COMMON_POOL_KEYS | (_RESIDENCY_KEYS if _START_KEY in kind.keys else set())
        for key, (key_node, _) in pairs.items():
            if key in keys_of(Pool) and key not in known:
                self._report(key_node, f"{_join(where, key)} does not belong to engine {engine}")
            elif key in _RESIDENCY_KEYS & values.keys() - {"resident"} and values.get("resident") != "on_demand":
                self._report(key_node, f"{_join(where, key)} is for `resident: on_demand`: this engine always stays")
        if values.get("resident") == "on_demand" and values.get("replicas", 1) > 1:
            self._report(
                pairs["replicas"][1],
                f"{_join(where, 'replicas')}: an engine that runs on demand is one, got {values['replicas']}",
            )
        for key in sorted(kind.required - pairs.keys()):
            self._report(node, f"{_join(where, key)} is missing: engine {engine} needs it")
        if "base_url" in values and "base_url" in kind.keys:
            try:
                parse_base_url(values["base_url"])
            except BadSpec as exc:
                self._report(pairs["base_url"][1], f"{where}.{exc}")
        if values.get("options") and "options" in kind.keys:
            lines = values["origin"].lines
            for text in option_problems(engine, values["options"]):
                self._report_at(lines[option_of(text, lines) or OPTIONS], f"{where}.{OPTIONS}: {text}")

    # Values -----------------------------------------------------------------------------------------------------------

    def _value(self, hint: Any, limits: Mapping[str, Any], node: yaml.Node, where: str) -> Any:
        origin, args = typing.get_origin(hint), typing.get_args(hint)
        if origin is types.UnionType or origin is typing.Union:
            hint = next(arg for arg in args if arg is not type(None))
            return self._value(hint, limits, node, where)
        if dataclasses.is_dataclass(hint):
            return self.record(typing.cast(type[Any], hint), node, where)
        if origin is tuple:
            return self._sequence(args[0], limits, node, where)
        if origin is Literal:
            return self._choice(args, node, where)
        if hint in _WORDS:
            return self._checked(self._scalar(hint, node, where), limits, node, where)
        return self._plain(node, where, _MAX_DEPTH)

    def _sequence(self, item: Any, limits: Mapping[str, Any], node: yaml.Node, where: str) -> tuple[Any, ...]:
        if not isinstance(node, yaml.SequenceNode):
            self._report(node, f"{where}: expected a list, got {_kind_words(node)}")
            raise _Invalid
        if len(node.value) < limits.get("min_length", 0):
            self._report(node, f"{where}: at least {limits['min_length']} is needed")
            raise _Invalid
        values, is_whole = [], True
        for index, child in enumerate(node.value):
            try:
                values.append(self._value(item, {}, child, f"{where}[{index}]"))
            except _Invalid:
                is_whole = False
        if not is_whole:
            raise _Invalid
        return tuple(values)

    def _choice(self, choices: tuple[Any, ...], node: yaml.Node, where: str) -> Any:
        text = self._scalar(str, node, where)
        if text not in choices:
            self._report(node, f"{where}: must be one of {', '.join(map(str, choices))}, got {text!r}")
            raise _Invalid
        return text

    def _scalar(self, kind: type[Any], node: yaml.Node, where: str) -> Any:
        if isinstance(node, yaml.ScalarNode):
            if kind is str:
                return self._text(node)
            value = self._plain(node, where, 1)
            if type(value) is kind or (kind is float and type(value) is int):
                return kind(value)
        shown = repr(node.value) if isinstance(node, yaml.ScalarNode) else _kind_words(node)
        self._report(node, f"{where}: expected {_WORDS[kind]}, got {shown}")
        raise _Invalid

    def _checked(self, value: Any, limits: Mapping[str, Any], node: yaml.Node, where: str) -> Any:
        problem = ""
        if isinstance(value, float) and math.isnan(value):
            problem = "must be a number"
        elif "min" in limits and not limits["min"] <= value <= limits["max"]:
            problem = f"must be {limits['min']} to {limits['max']}"
        elif "above" in limits and not value > limits["above"]:
            problem = f"must be above {limits['above']}"
        elif "pattern" in limits and not limits["pattern"].fullmatch(value):
            problem = "letters, digits and . _ - / only, beginning with a letter or digit, 96 at most"
        if problem:
            self._report(node, f"{where}: {problem}, got {value!r}")
            raise _Invalid
        return value

    def _plain(self, node: yaml.Node, where: str, depth: int) -> Any:
        """The value as YAML means it."""
        if depth == 0:
            self._report(node, f"{where}: nested too deeply")
            raise _Invalid
        if isinstance(node, yaml.SequenceNode):
            return [self._plain(child, where, depth - 1) for child in node.value]
        if isinstance(node, yaml.MappingNode):
            return {key: self._plain(value, where, depth - 1) for key, (_, value) in self._pairs(node, where).items()}
        text = self._text(node)
        tag = node.tag
        if text != node.value and getattr(node, "style", None) is None:
            # `port: ${PORT}` is a number when the variable holds one.
            tag = self._scalars.resolve(yaml.ScalarNode, text, (True, False))  # type: ignore[no-untyped-call]
        try:
            return self._scalars.construct_object(yaml.ScalarNode(tag, text, *_marks(node)))
        except (yaml.YAMLError, ValueError) as exc:
            self._report(node, f"{where}: {getattr(exc, 'problem', None) or exc}")
            raise _Invalid from exc

    def _text(self, node: yaml.Node) -> str:
        """A scalar's text with its variables replaced; an unset variable is reported."""

        def replace(mark: re.Match[str]) -> str:
            variable = self._variables[int(mark[1])]
            if variable[1] is None:
                return "${"
            value = self._env.get(variable[1]) or variable[2]
            if value is None:
                self._report(
                    node, f"environment variable {variable[1]} is not set (or write ${{{variable[1]}:-default}})"
                )
                raise _Invalid
            return value

        return _MARK.sub(replace, str(node.value))

    def _is_default(self, node: yaml.Node, item: dataclasses.Field[Any]) -> bool:
        """`key:` with nothing behind it."""
        is_null = isinstance(node, yaml.ScalarNode) and node.tag == "tag:yaml.org,2002:null"
        has_default = item.default is not dataclasses.MISSING or item.default_factory is not dataclasses.MISSING
        return is_null and has_default and not item.metadata.get("min_length")

    def _report(self, node: yaml.Node, text: str) -> None:
        self._report_at(node.start_mark.line + 1, text)

    def _report_at(self, line: int, text: str) -> None:
        shown = text.replace("\\ue000", "\ue000").replace("\\ue001", "\ue001")  # repr() escapes them
        text = _MARK.sub(lambda mark: self._variables[int(mark[1])][0], shown)
        self.problems.append(Problem(line, text))


def _join(where: str, key: str) -> str:
    return f"{where}.{key}" if where else key


def _lines_of(node: yaml.Node, name: str = "", depth: int = _GROUP_DEPTH) -> dict[str, int]:
    """Of `node` under `name`, and of every key in it under its path: `options.lora.max_loras`."""
    lines = {name: node.start_mark.line + 1}
    if isinstance(node, yaml.MappingNode) and depth:
        for key_node, value_node in node.value:
            path = _join(name, plain(str(key_node.value)))
            lines |= {**_lines_of(value_node, path, depth - 1), path: key_node.start_mark.line + 1}
    return lines


def _marks(node: yaml.Node) -> tuple[Any, Any]:
    return node.start_mark, node.end_mark


def _kind_words(node: yaml.Node) -> str:
    if isinstance(node, yaml.ScalarNode):
        return repr(node.value) if node.value else "nothing"
    return "a list" if isinstance(node, yaml.SequenceNode) else "keys and values"
