"""One task file's keys: each is honoured, without effect, or refused by name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from finetune.evaluation.lmeval.filters import Filter, Unfit, read_filter
from finetune.recipe.findings import nearest

MULTIPLE_CHOICE, GENERATE_UNTIL = "multiple_choice", "generate_until"
MAX_GEN_TOKS = 256
"""lm-eval's."""
_METRICS = {MULTIPLE_CHOICE: ("acc", "acc_norm"), GENERATE_UNTIL: ("exact_match",)}
_FORMATS = ("json", "csv", "parquet")
_SILENT = frozenset(
    ("tag", "task_alias", "metadata", "should_decontaminate", "doc_to_decontamination_query", "training_split", "group_alias")
)  # fmt: skip
"""Say nothing about a score, or are read elsewhere."""
_HONOURED = frozenset(
    ("task", "dataset_path", "dataset_name", "dataset_kwargs", "output_type", "validation_split", "test_split", "fewshot_split",
     "doc_to_text", "doc_to_target", "doc_to_choice", "target_delimiter", "fewshot_delimiter", "description", "num_fewshot",
     "fewshot_config", "metric_list", "filter_list", "generation_kwargs", "repeats", "training_split")
)  # fmt: skip
_WHERE = frozenset(
    ("dataset_path", "dataset_name", "dataset_kwargs", "validation_split", "test_split", "fewshot_split")
)
"""Where rows lie; what they are is what counts."""
_METRIC_KEYS = (
    "metric", "aggregation", "higher_is_better", "ignore_case", "ignore_punctuation", "ignore_numbers", "regexes_to_ignore",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Function:
    """`!function module.name`: code, which is not run."""

    name: str


@dataclass(frozen=True, slots=True)
class Exactness:
    """How two texts are compared by exact_match."""

    ignore_case: bool = False
    ignore_punctuation: bool = False
    ignore_numbers: bool = False
    regexes_to_ignore: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Config:
    name: str
    output_type: str
    data_files: Mapping[str, str]
    """Split -> file."""
    split: str
    """Whose documents are asked."""
    fewshot_split: str
    num_fewshot: int
    doc_to_text: str
    doc_to_target: str | int
    doc_to_choice: str | tuple[str, ...]
    target_delimiter: str
    fewshot_delimiter: str
    description: str
    metrics: tuple[str, ...]
    exactness: Exactness
    filters: tuple[Filter, ...]
    stop: tuple[str, ...]
    max_gen_toks: int
    told: Mapping[str, Any] = field(default_factory=dict)
    """All of the file that decides a score, for the digest."""


def read(told: Mapping[str, Any]) -> tuple[Config | None, list[str]]:
    """What a task file with everything that it includes says, and all that is wrong with it; None where something is."""
    reader = _Reader(told)
    found = reader.config()
    return (None if reader.problems else found), reader.problems


class _Reader:
    def __init__(self, told: Mapping[str, Any]) -> None:
        self._told = told
        self.problems: list[str] = []

    def config(self) -> Config:
        for name in self._told:
            self._require_known(name)
        output_type = self._one_of("output_type", (MULTIPLE_CHOICE, GENERATE_UNTIL))
        files = self._data_files()
        split = self._split(files)
        num_fewshot = self._number("num_fewshot", 0)
        stop, max_gen_toks = self._generation()
        fewshot_split = self._text("fewshot_split", "")
        if num_fewshot:
            self._check_fewshot(fewshot_split, files)
        if output_type == MULTIPLE_CHOICE and "doc_to_choice" not in self._told:
            self._problem("doc_to_choice", "it is missing: the choices of a document")
        return Config(
            name=self._text("task", ""), output_type=output_type, data_files=files, split=split, fewshot_split=fewshot_split,
            num_fewshot=num_fewshot, doc_to_text=self._text("doc_to_text", None), doc_to_target=self._target(),
            doc_to_choice=self._choices(), target_delimiter=self._text("target_delimiter", " "),
            fewshot_delimiter=self._text("fewshot_delimiter", "\n\n"), description=self._text("description", ""),
            metrics=tuple(self._metrics(output_type)), exactness=self._exactness(), filters=tuple(self._filters(output_type)), stop=stop,
            max_gen_toks=max_gen_toks, told={name: value for name, value in self._told.items() if name not in _SILENT | _WHERE},
        )  # fmt: skip

    def _problem(self, key: str, words: str) -> None:
        self.problems.append(f"{key}: {words}")

    def _require_known(self, name: str) -> None:
        value = self._told[name]
        if isinstance(value, Function):
            self._problem(
                name,
                f"!function {value.name} is code, which is not run: write a template, or put what it computes into the rows",
            )
        elif name not in _HONOURED and name not in _SILENT:
            close = nearest(name, _HONOURED)
            self._problem(name, f"this key is not supported{f'; did you mean {close}?' if close else ''}")

    def _text(self, name: str, default: str | None) -> str:
        value = self._told.get(name, default)
        if isinstance(value, Function):
            return ""
        if not isinstance(value, str):
            self._problem(name, "it is missing: a text" if value is None else f"expected a text, got {value!r}")
            return ""
        return value

    def _number(self, name: str, default: int) -> int:
        value = self._told.get(name, default)
        value = default if value is None else value
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            self._problem(name, f"expected a whole number, got {value!r}")
            return default
        return value

    def _one_of(self, name: str, known: Sequence[str]) -> str:
        value = self._told.get(name)
        if value not in known:
            self._problem(name, f"supported are {' and '.join(known)}, got {value!r}")
            return known[0]
        return str(value)

    def _data_files(self) -> dict[str, str]:
        path = self._told.get("dataset_path")
        if path not in _FORMATS:
            self._problem(
                "dataset_path",
                f"{path!r} would come from a hub, which is not asked: save its splits as files and write dataset_path: json, "
                "dataset_kwargs: {data_files: {test: test.jsonl}}",
            )
            return {}
        kwargs = self._told.get("dataset_kwargs")
        files = kwargs.get("data_files") if isinstance(kwargs, dict) else None
        for name in kwargs if isinstance(kwargs, dict) else ():
            if name != "data_files":
                self._problem(f"dataset_kwargs.{name}", "this key is not supported")
        if isinstance(files, str):
            files = {"train": files}  # as the `datasets` library has it
        if not isinstance(files, dict) or not files or not all(isinstance(each, str) for each in files.values()):
            self._problem("dataset_kwargs", "expected {data_files: {SPLIT: FILE}}")
            return {}
        return {str(name): each for name, each in files.items()}

    def _split(self, files: Mapping[str, str]) -> str:
        name = self._told.get("test_split") or self._told.get("validation_split")
        if not isinstance(name, str):
            self._problem("test_split", "it is missing: test_split or validation_split names the documents to ask")
            return ""
        if files and name not in files:
            self._problem("test_split", f"{name!r} is none of the data_files: {', '.join(files)}")
        return name

    def _check_fewshot(self, split: str, files: Mapping[str, str]) -> None:
        sampler = (self._told.get("fewshot_config") or {}).get("sampler")
        if sampler != "first_n":
            self._problem(
                "fewshot_config", "examples are the first ones of the split: write fewshot_config: {sampler: first_n}"
            )
        if split not in files:
            self._problem(
                "fewshot_split", f"it names where examples come from: one of {', '.join(files) or 'the data_files'}"
            )

    def _target(self) -> str | int:
        value = self._told.get("doc_to_target")
        return value if isinstance(value, int) and not isinstance(value, bool) else self._text("doc_to_target", None)

    def _choices(self) -> str | tuple[str, ...]:
        value = self._told.get("doc_to_choice", "")
        if isinstance(value, list):
            return tuple(map(str, value))
        return self._text("doc_to_choice", "")

    def _metric_list(self) -> list[dict[str, Any]]:
        found = self._told.get("metric_list", [])
        if not isinstance(found, list) or not all(isinstance(each, dict) and "metric" in each for each in found):
            self._problem("metric_list", "expected a list of {metric: NAME}")
            return []
        return found

    def _metrics(self, output_type: str) -> Iterator[str]:
        for each in self._metric_list():
            known = _METRICS[output_type]
            if each["metric"] not in known:
                self._problem(
                    "metric_list", f"supported for {output_type} are {' and '.join(known)}, not {each['metric']!r}"
                )
            for name in each:
                if name not in _METRIC_KEYS:
                    self._problem("metric_list", f"the key {name!r} is not supported")
            if each.get("aggregation", "mean") != "mean":
                self._problem("metric_list", f"supported is aggregation: mean, not {each['aggregation']!r}")
            yield str(each["metric"])

    def _exactness(self) -> Exactness:
        told = next((each for each in self._metric_list() if each["metric"] == "exact_match"), {})
        ignored = told.get("regexes_to_ignore") or ()
        return Exactness(
            bool(told.get("ignore_case")), bool(told.get("ignore_punctuation")), bool(told.get("ignore_numbers")), tuple(map(str, ignored))
        )  # fmt: skip

    def _filters(self, output_type: str) -> Iterator[Filter]:
        told = self._told.get("filter_list")
        if told is None:
            return
        if output_type != GENERATE_UNTIL or not isinstance(told, list):
            self._problem("filter_list", "expected a list of filters, for output_type: generate_until")
            return
        for each in told:
            try:
                yield read_filter(each)
            except Unfit as exc:
                self._problem("filter_list", str(exc))

    def _generation(self) -> tuple[tuple[str, ...], int]:
        told = self._told.get("generation_kwargs") or {}
        if not isinstance(told, dict):
            self._problem("generation_kwargs", "expected keys and values")
            return (), MAX_GEN_TOKS
        for name, value in told.items():
            if name not in ("until", "max_gen_toks", "do_sample", "temperature"):
                self._problem(f"generation_kwargs.{name}", "this key is not supported")
            elif (name == "do_sample" and value) or (name == "temperature" and value not in (0, 0.0)):
                self._problem(f"generation_kwargs.{name}", "answers are greedy: leave it out")
        if self._told.get("repeats", 1) != 1:
            self._problem("repeats", "greedy answers are the same each time: leave it out")
        until = told.get("until", self._told.get("fewshot_delimiter", "\n\n"))
        stop = (until,) if isinstance(until, str) else tuple(map(str, until))
        limit = told.get("max_gen_toks", MAX_GEN_TOKS)
        if not isinstance(limit, int) or limit < 1:
            self._problem("generation_kwargs.max_gen_toks", f"expected a whole number from 1 on, got {limit!r}")
            limit = MAX_GEN_TOKS
        return stop, limit
