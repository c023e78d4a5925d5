import pytest

from benchmarks.statistics.slo import PRESETS, Objective, SloError, parse_slo


def test_the_form_with_percentiles():
    assert parse_slo("ttft_p99<500ms, tpot_p99.9 < 0.03s").objectives == (
        Objective("ttft", 0.5, 0.99),
        Objective("tpot", 0.03, 0.999),
    )


def test_the_form_of_vllm():
    assert parse_slo("ttft:500,tpot:30,e2el:2500.5").objectives == (
        Objective("ttft", 0.5, None),
        Objective("tpot", 0.03, None),
        Objective("e2e", 2.5005, None),
    )


@pytest.mark.parametrize(("name", "ttft_s", "tpot_s"), [("interactive", 0.5, 0.03), ("conversational", 2.0, 0.1)])
def test_presets_are_mlperfs(name: str, ttft_s: float, tpot_s: float):
    assert parse_slo(name).objectives == (Objective("ttft", ttft_s, 0.99), Objective("tpot", tpot_s, 0.99))


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_can_be_read(name: str):
    assert [objective.metric for objective in parse_slo(name).objectives] == ["ttft", "tpot"]
    assert all(objective.percentile == 0.99 for objective in parse_slo(name).objectives)


@pytest.mark.parametrize("text", ["ttft_p99<500ms,tpot_p99<30ms", "ttft:500,e2e:1200"])
def test_what_is_shown_can_be_read(text: str):
    assert str(parse_slo(text)) == text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no service level objective"),
        ("ttft_p99<500ms,", "an empty part"),
        ("fast", "interactive or conversational"),
        ("deepseek-r1-interactiv", "did you mean 'deepseek-r1-interactive'"),
        ("ttft<500ms", "write ttft_p99<500ms"),
        ("ttft_p99>500ms", "is no service level objective"),
        ("ttft_p99<500", "has no unit"),
        ("ttft_p99<500min", "has the unit 'min'"),
        ("ttfb_p99<500ms", "names 'ttfb'"),
        ("speed:500", "one of ttft, tpot, itl, e2e, queue"),
        ("ttft_p100<500ms", "asks for p100"),
        ("ttft_p0<500ms", "asks for p0"),
        ("ttft_p99<0ms", "allows no time"),
        ("ttft:-5", "is no service level objective"),
        ("ttft_p99<1s,ttft_p90<500ms", "more than once"),
        ("ttft_p99<1s,tpot:30", "mixes both forms"),
    ],
)
def test_errors_name_the_thing_and_the_fix(text: str, words: str):
    with pytest.raises(SloError, match=words):
        parse_slo(text)
