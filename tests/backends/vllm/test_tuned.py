from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

from backends.vllm.measured import Record
from backends.vllm.options import Options
from backends.vllm.speculation import OFF, Measurement, Rate, Setting
from backends.vllm.tuned import Tuned, setting_of, with_setting

ROWS = ((1, 2, 4), (3, 8, 0))
WINS = Measurement(off={1: Rate(100)}, on={4: {1: Rate(180, 2.9)}, 2: {1: Rate(190, 2.0)}})
LOSES = Measurement(off={1: Rate(100)}, on={4: {1: Rate(80, 2.9)}})


def options(**speculative: Any) -> Options:
    return Options.from_mapping({"speculative": {"method": "ngram", "num_speculative_tokens": 4, **speculative}})


def tuned(folder: Path, given: Options, made: list[Options] | None = None) -> Tuned:
    def at(other: Options) -> Any:
        (made if made is not None else []).append(other)
        return cast(Any, "an engine")

    return Tuned(given, folder, at)


def measure(folder: Path, given: Options, measured: Measurement, version: str = "0.32.0 on cpu") -> None:
    subject = settled(folder, given, version).subject
    assert subject is not None
    tuned(folder, given).keep(Record(subject, measured, "now"))


def settled(folder: Path, given: Options, version: str = "0.32.0 on cpu") -> Tuned:
    found = tuned(folder, given)
    found.settle("sha256:m", "", version)
    return found


def test_unmeasured_it_starts_as_configured(tmp_path: Path) -> None:
    found = settled(tmp_path, options())
    assert found.options == options()
    assert (found.record, found.setting, found.is_open) == (None, Setting(4), True)


def test_measured_it_starts_with_what_won(tmp_path: Path) -> None:
    measure(tmp_path, options(), WINS)
    found = settled(tmp_path, options())
    assert found.setting == Setting(2)
    assert found.options.speculative is not None
    assert found.options.speculative.method == "ngram"
    assert settled(tmp_path, options(), "0.33.0 on cpu").setting == Setting(4), "another version was not measured"


def test_where_it_loses_everywhere_it_is_left_out(tmp_path: Path) -> None:
    measure(tmp_path, options(), LOSES)
    found = settled(tmp_path, options())
    assert found.options.speculative is None
    assert found.options.refused_by_speculation == (), "what speculation refuses is served again"
    assert found.is_configured
    again = settled(tmp_path, options())
    assert again.subject == found.subject, "it is looked up by what is configured, not by what came of it"


@pytest.mark.parametrize(
    "given", [{"schedule": "always"}, {"num_speculative_tokens_per_batch_size": [list(r) for r in ROWS]}]
)
def test_a_depth_that_the_pool_sets_stays_and_the_measurement_is_known(tmp_path: Path, given: dict[str, Any]) -> None:
    measure(tmp_path, options(), LOSES)
    found = settled(tmp_path, options(**given))
    assert not found.is_open
    assert found.options == options(**given)
    assert found.record is not None


def test_an_engine_that_does_not_speculate_is_left_alone(tmp_path: Path) -> None:
    found = settled(tmp_path, Options())
    assert (found.options, found.subject, found.is_configured, found.is_open) == (Options(), None, False, False)
    assert found.max_depth == 0


def test_engines_for_a_measurement_have_the_setting_whatever_is_remembered(tmp_path: Path) -> None:
    measure(tmp_path, options(), LOSES)
    made: list[Options] = []
    found = tuned(tmp_path, options(), made)
    for setting in (OFF, Setting(2), Setting(4, ROWS)):
        found.engine(setting)
        twin = settled(tmp_path, made[-1])
        assert (twin.setting, twin.options) == (setting, made[-1])


def test_where_one_depth_is_all_there_is_it_says_why(tmp_path: Path) -> None:
    assert tuned(tmp_path, options()).why_fixed == ""
    assert settled(tmp_path, options(), "0.26.1 on cuda").why_fixed == ""
    assert settled(tmp_path, options(), "dev on cuda").why_fixed == ""
    assert settled(tmp_path, options(), "0.25.0 on cuda").why_fixed == "vLLM 0.25 has one depth for every batch size"
    speculative = {"method": "ngram", "num_speculative_tokens": 4}
    given = Options.from_mapping({"data_parallel_size": 2, "speculative": speculative})
    assert "data_parallel_size" in tuned(tmp_path, given).why_fixed


def test_given_acceptance_rates_follow_the_depth() -> None:
    given = options(rejection_sample_method="synthetic", synthetic_acceptance_rates=[0.9, 0.8, 0.7, 0.6])
    found = with_setting(given, Setting(2)).speculative
    assert found is not None
    assert found.synthetic_acceptance_rates == (0.9, 0.8)
    assert setting_of(with_setting(given, Setting(4, ROWS))) == Setting(4, ROWS)
