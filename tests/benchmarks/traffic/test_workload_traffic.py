"""What a workload makes of the parts: requests with prefixes, adapters, turns, traces."""

import hashlib
import json
from collections import defaultdict

import pytest

from benchmarks.traffic.adapters import AdapterMix
from benchmarks.traffic.cancellations import Cancellations
from benchmarks.traffic.errors import WorkloadError
from benchmarks.traffic.lengths import Length, LognormalLength
from benchmarks.traffic.pauses import Pause
from benchmarks.traffic.prefixes import SharedPrefix
from benchmarks.traffic.prompts import PromptForm
from benchmarks.traffic.request import Request
from benchmarks.traffic.traces import Trace, TraceRow
from benchmarks.workload import Endpoint, Workload


def fields(request: Request) -> dict[str, object]:
    return json.loads(request.body)  # type: ignore[no-any-return]


def test_bytes_of_a_plain_list_do_not_change_between_releases():
    """Results of different releases would not be comparable otherwise."""
    requests = Workload("m", input_tokens=Length(3, 9), output_tokens=Length(5, 50)).requests(50, "0/8/0")
    digest = hashlib.sha256(b"".join(request.body for request in requests)).hexdigest()
    assert digest == "2c75f0dab15e0660e50d12095501d0cd4a7f202be1f28cc2eda3185f595d918d"


def test_everything_together_is_reproducible():
    workload = Workload(
        "base",
        output_tokens=LognormalLength.of(100, 0.5),
        prefix=SharedPrefix(2, 8, 0.5),
        mix=AdapterMix.zipf(("a", "b"), 1, base_share=0.2, cold_share=0.1, churn_every=7),
        turns=Length(1, 4),
        pause=Pause(2, is_exponential=True),
        cancellations=Cancellations.parse(0.2, "3"),
    )
    assert workload.requests(100, "s") == workload.requests(100, "s")
    assert workload.requests(100, "s") != workload.requests(100, "t")


def test_prefixes_are_shared_within_a_run_only():
    workload = Workload("m", prefix=SharedPrefix(3, 20))
    systems = [{fields(request)["messages"][0]["content"] for request in workload.requests(60, seed)} for seed in "ab"]  # type: ignore[index]
    assert [len(found) for found in systems] == [3, 3]
    assert not systems[0] & systems[1]
    assert {len(text.split()) for text in systems[0]} == {20}
    plain = [fields(request)["messages"][-1] for request in Workload("m").requests(60, "a")]  # type: ignore[index]
    assert [fields(request)["messages"][-1] for request in workload.requests(60, "a")] == plain  # type: ignore[index]


def test_prefixes_of_completions_come_before_the_prompt():
    words = Workload("m", Endpoint.COMPLETIONS, Length(4, 4), prefix=SharedPrefix(1, 6)).requests(2, "a")
    texts = [str(fields(request)["prompt"]).split() for request in words]
    assert texts[0][:6] == texts[1][:6]
    assert [len(text) for text in texts] == [10, 10]
    ids = Workload("m", Endpoint.COMPLETIONS, Length(4, 4), prompt_form=PromptForm.IDS, prefix=SharedPrefix(1, 6))
    assert len(fields(ids.requests(1, "a")[0])["prompt"]) == 10  # type: ignore[arg-type]


def test_a_given_system_message_is_kept_behind_the_prefix():
    prompts = ([{"role": "system", "content": "be brief"}, {"role": "user", "content": "hi"}],)
    messages = fields(Workload("m", prompts=prompts, prefix=SharedPrefix(1, 3)).requests(1, "a")[0])["messages"]
    assert [message["role"] for message in messages] == ["system", "user"]  # type: ignore[attr-defined]
    assert messages[0]["content"].endswith("\nbe brief")  # type: ignore[index]


def test_all_turns_of_a_session_ask_the_same_adapter():
    workload = Workload("base", mix=AdapterMix.zipf(("a", "b", "c"), 0, base_share=0.25), turns=Length(3, 3))
    asked = defaultdict(set)
    for request in workload.sessions(40, "s"):
        asked[request.session].add((fields(request)["model"], request.adapter))
    assert all(len(names) == 1 for names in asked.values())
    assert {name for names in asked.values() for name, _ in names} == {"a", "b", "c", "base"}
    assert all(model == adapter for names in asked.values() for model, adapter in names)


def test_a_later_turn_holds_only_what_its_user_adds():
    prompts = ([{"role": "system", "content": "s"}, {"role": "user", "content": "hi"}],)
    first, second = Workload("m", prompts=prompts, turns=Length(2, 2), prefix=SharedPrefix(1, 4)).sessions(1, "a")
    assert len(fields(first)["messages"]) == 2  # type: ignore[arg-type]
    assert fields(second)["messages"] == [{"role": "user", "content": "hi"}]


def test_embeddings():
    request = Workload("m", Endpoint.EMBEDDINGS, Length(7, 7)).requests(1, "a")[0]
    assert fields(request).keys() == {"model", "input"}
    assert (request.path, request.max_tokens, request.is_exact) == ("/v1/embeddings", 0, False)


def trace(*rows: TraceRow) -> Trace:
    return Trace("t", rows)


def test_a_trace_says_when_how_long_and_what_is_shared():
    rows = (TraceRow(0, 700, 5, (1, 2)), TraceRow(1.5, 1000, 7, (1, 3)), TraceRow(2, 0, 9, session=4))
    one, two, three = Workload("m", Endpoint.COMPLETIONS, prompt_form=PromptForm.IDS).replay(trace(*rows), "s")
    prompts = [fields(request)["prompt"] for request in (one, two, three)]
    assert [len(prompt) for prompt in prompts] == [700, 1000, 1]  # type: ignore[arg-type]
    assert prompts[0][:512] == prompts[1][:512]  # type: ignore[index]
    assert prompts[0][512:] != prompts[1][512:700]  # type: ignore[index]
    assert [request.due_s for request in (one, two, three)] == [0, 1.5, 2]
    assert [request.max_tokens for request in (one, two, three)] == [5, 7, 9]
    assert three.session == 4


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"endpoint": Endpoint.COMPLETIONS, "turns": Length(2, 2)}, "need the chat endpoint"),
        ({"endpoint": Endpoint.EMBEDDINGS, "cancellations": Cancellations.parse(1, "2")}, "come in one piece"),
        ({"endpoint": Endpoint.EMBEDDINGS, "prompts": ([],)}, "needs the chat endpoint"),
    ],
)
def test_what_does_not_go_together(changes: dict[str, object], says: str):
    with pytest.raises(WorkloadError, match=says):
        Workload("m", **changes)  # type: ignore[arg-type]


def test_a_trace_leaves_no_room_for_turns():
    with pytest.raises(WorkloadError, match="do not go with it"):
        Workload("m", turns=Length(2, 2)).replay(trace(TraceRow(0, 1, 1)), "s")
