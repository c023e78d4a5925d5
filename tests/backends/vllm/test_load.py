from __future__ import annotations

import pytest

from backends.base import Load
from backends.vllm.load import load_of
from backends.vllm.versions import Metrics, table_of
from tests.backends.vllm.recorded import VERSIONS, metrics_page


@pytest.mark.parametrize("version", VERSIONS)
def test_recorded_pages_of_both_versions_are_read(version: str) -> None:
    """What they hold is in the page: here by plain search, without labels."""
    page, names = metrics_page(version), table_of(version).metrics
    load = load_of(page, names)

    def value(name: str) -> float:
        return sum(float(line.rsplit(" ", 1)[1]) for line in page.splitlines() if line.startswith(f"{name}{{"))

    assert load.num_prompt_tokens == value(names.num_prompt_tokens) > 0
    assert load.num_generated_tokens == value(names.num_generated_tokens) > 0
    assert load.num_cached_tokens == value(names.num_cached_tokens)
    assert load.num_running == value(names.num_running)


PAGE = """\
# HELP vllm:num_requests_running Number of requests
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="demo"} 3.0
vllm:num_requests_running{engine="1",model_name="demo"} 2.0
vllm:num_requests_waiting{engine="0",model_name="demo"} 1.0
vllm:kv_cache_usage_perc{engine="0",model_name="demo"} 0.25
vllm:kv_cache_usage_perc{engine="1",model_name="demo"} 0.75
vllm:num_preemptions_total{engine="0",model_name="demo"} 4.0
vllm:num_preemptions_created{engine="0",model_name="demo"} 1.79e+09
vllm:prompt_tokens_total{engine="0",model_name="demo"} 1.25e+06
vllm:spec_decode_num_drafts_total{engine="0",model_name="demo"} 10.0
vllm:spec_decode_num_draft_tokens_total{engine="0",model_name="demo"} 30.0
vllm:spec_decode_num_accepted_tokens_total{engine="0",model_name="demo"} 12.0
vllm:spec_decode_num_accepted_tokens_per_pos_total{engine="0",position="0"} 9.0
vllm:lora_requests_info{max_lora="2",running_lora_adapters="a@1, b@2",waiting_lora_adapters=""} 1.7959982e+09
vllm:lora_requests_info{max_lora="2",running_lora_adapters="c@3",waiting_lora_adapters=""} 1.7959980e+09
vllm:broken{engine="0"} what
"""


def test_copies_of_the_model_are_summed_and_the_newest_adapters_count() -> None:
    assert load_of(PAGE, Metrics()) == Load(
        num_running=5, num_waiting=1, kv_usage=0.5, num_preemptions=4, num_prompt_tokens=1_250_000, num_drafts=10,
        num_draft_tokens=30, num_accepted_tokens=12, adapters_running=("a@1", "b@2"),
    )  # fmt: skip


@pytest.mark.parametrize("value", ["NaN", "+Inf", "-Inf"])
def test_what_is_no_number_counts_as_absent(value: str) -> None:
    names = Metrics()
    page = f"{names.num_running} {value}\n{names.kv_usage} {value}\n{names.num_waiting} 2\n"
    assert load_of(page, names) == Load(num_waiting=2)


def test_an_empty_page_is_an_idle_engine() -> None:
    assert load_of("", Metrics()) == Load()
