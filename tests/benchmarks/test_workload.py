import json
from pathlib import Path

import pytest

from benchmarks.workload import Endpoint, Length, PromptForm, Workload, WorkloadError, read_prompts


def bodies(workload: Workload, num: int = 20, seed: str = "0/1/0") -> list[dict[str, object]]:
    return [json.loads(request.body) for request in workload.requests(num, seed)]


def test_same_seed_same_bytes_other_seed_no_shared_prompt():
    workload = Workload("m")
    assert workload.requests(20, "a") == workload.requests(20, "a")
    one, two = ({json.dumps(body["messages"]) for body in bodies(workload, seed=seed)} for seed in "ab")
    assert not one & two


def test_uniform_lengths_stay_inside_and_reach_both_ends():
    workload = Workload("m", input_tokens=Length(3, 5), output_tokens=Length(10, 12))
    found = bodies(workload, 200)
    assert {body["max_tokens"] for body in found} == {10, 11, 12}
    assert {len(body["messages"][0]["content"].split()) for body in found} == {3, 4, 5}  # type: ignore[index]


def test_ids_are_exact_and_need_completions():
    body = bodies(Workload("m", Endpoint.COMPLETIONS, Length(17, 17), prompt_form=PromptForm.IDS))[0]
    assert len(body["prompt"]) == 17  # type: ignore[arg-type]
    with pytest.raises(WorkloadError, match="completions"):
        Workload("m", Endpoint.CHAT, prompt_form=PromptForm.IDS)


def test_options_of_the_body():
    body = bodies(Workload("m", output_tokens=Length(9, 9), min_tokens=True, extra={"top_k": 1}))[0]
    assert (body["ignore_eos"], body["min_tokens"], body["top_k"]) == (True, 9, 1)
    assert body["stream_options"] == {"include_usage": True}
    assert "ignore_eos" not in bodies(Workload("m", ignore_eos=False))[0]
    assert not Workload("m", ignore_eos=False).requests(1, "")[0].is_exact


@pytest.mark.parametrize("text", ["", "x", "0", "5-3", "1-", "-4"])
def test_bad_length(text: str):
    with pytest.raises(WorkloadError, match="no length"):
        Length.parse(text)


def test_prompts_from_files(tmp_path: Path):
    lines = tmp_path / "p.txt"
    lines.write_text("one\n\n두 번째\n", "utf-8")
    assert read_prompts(lines) == ("one", "두 번째")
    rows = tmp_path / "p.jsonl"
    rows.write_text('{"prompt": "a"}\n{"messages": [{"role": "user", "content": "b"}]}\n', "utf-8")
    prompts = read_prompts(rows)
    found = [body["messages"] for body in bodies(Workload("m", prompts=prompts), 4)]
    assert [{"role": "user", "content": "b"}] in found
    with pytest.raises(WorkloadError, match="chat endpoint"):
        Workload("m", Endpoint.COMPLETIONS, prompts=prompts)


@pytest.mark.parametrize(("content", "says"), [("{", ":1: not JSON"), ('{"x": 1}', ":1: neither"), ("\n", "no prompt")])
def test_bad_prompt_files(tmp_path: Path, content: str, says: str):
    path = tmp_path / "p.jsonl"
    path.write_text(content, "utf-8")
    with pytest.raises(WorkloadError, match=says):
        read_prompts(path)
    with pytest.raises(WorkloadError, match="cannot read"):
        read_prompts(tmp_path / "absent")
