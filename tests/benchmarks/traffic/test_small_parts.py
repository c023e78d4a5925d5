"""Prefixes, pauses, cancellations, structured answers, prompts."""

import json
import random
import statistics
from pathlib import Path

import pytest

from backends.demo.corpus import held_out_items
from backends.demo.skills import SKILLS
from benchmarks.traffic.cancellations import Cancel, Cancellations
from benchmarks.traffic.errors import WorkloadError
from benchmarks.traffic.pauses import Pause
from benchmarks.traffic.prefixes import SharedPrefix
from benchmarks.traffic.prompts import PromptForm, Writer, demo_prompts
from benchmarks.traffic.structured import schema_fields, tool_fields


def test_prefix_forms_and_share():
    assert SharedPrefix.parse("8x512") == SharedPrefix(8, 512)
    prefix = SharedPrefix.parse("4x16@0.75")
    assert (prefix.num_groups, prefix.num_tokens, prefix.share, str(prefix)) == (4, 16, 0.75, "4x16@0.75")
    drawn = [prefix.draw_group(rng) for rng in [random.Random(0)] for _ in range(4000)]
    assert set(drawn) == {None, 0, 1, 2, 3}
    assert drawn.count(None) / 4000 == pytest.approx(0.25, abs=0.03)


@pytest.mark.parametrize("text", ["", "8", "x5", "0x5", "5x0", "8x512@2", "8x512@"])
def test_what_is_no_prefix(text: str):
    with pytest.raises(WorkloadError, match="no shared prefix"):
        SharedPrefix.parse(text)


def test_pauses():
    assert Pause.parse("1.5").draw(random.Random()) == 1.5
    assert Pause().draw(random.Random()) == 0
    pause = Pause.parse("exp:2")
    drawn = [pause.draw(rng) for rng in [random.Random(0)] for _ in range(20_000)]
    assert statistics.mean(drawn) == pytest.approx(2, rel=0.03)
    assert statistics.stdev(drawn) == pytest.approx(2, rel=0.05)
    assert [str(Pause.parse(text)) for text in ("1.5", "exp:2")] == ["1.5", "exp:2"]


@pytest.mark.parametrize("text", ["", "-1", "exp:", "exp:x", "inf", "nan"])
def test_what_is_no_pause(text: str):
    with pytest.raises(WorkloadError, match="no think time"):
        Pause.parse(text)


def test_cancellations():
    assert Cancellations.parse(0.5, "5").cancel == Cancel(after_events=5)
    found = Cancellations.parse(0.5, "0.25s")
    assert found.cancel == Cancel(after_s=0.25)
    assert str(found) == "0.5 after 0.25 s"
    drawn = [found.draw(rng) for rng in [random.Random(0)] for _ in range(2000)]
    assert drawn.count(None) == pytest.approx(1000, rel=0.1)


@pytest.mark.parametrize(("share", "text"), [(0.5, ""), (0.5, "0"), (0.5, "-1s"), (0.5, "x"), (0.5, "s"), (1.5, "5")])
def test_what_is_no_cancellation(share: float, text: str):
    with pytest.raises(WorkloadError):
        Cancellations.parse(share, text)


def test_schema_and_tools(tmp_path: Path):
    path = tmp_path / "my schema.json"
    path.write_text('{"type": "object"}', "utf-8")
    schema = schema_fields(path)["response_format"]["json_schema"]
    assert schema == {"name": "my_schema", "schema": {"type": "object"}, "strict": True}
    tools = [{"type": "function", "function": {"name": "look", "parameters": {}}}]
    path.write_text(json.dumps(tools), "utf-8")
    assert tool_fields(path, "required") == {"tools": tools, "tool_choice": "required"}


@pytest.mark.parametrize(("read", "content", "says"), [
    (schema_fields, "{", "not JSON"),
    (schema_fields, "[]", "is an object"),
    (schema_fields, "{}", "is an object"),
    (tool_fields, "{}", "list of objects"),
    (tool_fields, "[]", "list of objects"),
    (tool_fields, '[{"type": "function", "function": {"name": "a"}}, {"name": "b"}]', "tool 2"),
])  # fmt: skip
def test_bad_schemas_and_tools(tmp_path: Path, read: object, content: str, says: str):
    path = tmp_path / "x.json"
    with pytest.raises(WorkloadError, match="cannot read"):
        read(path)  # type: ignore[operator]
    path.write_text(content, "utf-8")
    with pytest.raises(WorkloadError, match=says):
        read(path)  # type: ignore[operator]


@pytest.mark.parametrize("form", list(PromptForm))
def test_known_text_is_the_same_for_its_key_and_shorter_text_is_its_beginning(form: PromptForm):
    writer = Writer(form)
    long, short, other = writer.write_known(20, "a"), writer.write_known(5, "a"), writer.write_known(20, "b")
    assert long == writer.write_known(20, "a") != other
    assert long[: len(short)] == short
    joined = writer.join([short, other])
    assert joined[: len(short)] == short
    assert joined[len(joined) - len(other) :] == other


def test_demo_prompts_are_the_corpus_held_out_items():
    expected = [list(item.messages) for name in sorted(SKILLS) for item in held_out_items(name, 40) if not item.tools]
    assert list(demo_prompts()) == expected
