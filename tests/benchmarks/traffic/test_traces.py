from pathlib import Path

import pytest

from benchmarks.traffic.errors import WorkloadError
from benchmarks.traffic.traces import Trace, TraceRow, read_trace

MOONCAKE = """{"timestamp": 3000, "input_length": 700, "output_length": 5, "hash_ids": [1, 2]}
{"timestamp": 4500, "input_length": 1000, "output_length": 7, "hash_ids": [1, 3]}

"""
AZURE = """TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 18:15:46.6805900,4808,10
2023-11-16 18:15:50.9951690,3180,8
"""
AZURE_2024 = """TIMESTAMP,ContextTokens,GeneratedTokens
2024-05-10 00:00:00.009930+00:00,2162,5
2024-05-10 00:00:00.017335+00:00,2399,6
"""
BURSTGPT = """Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type
45,abc,2.1,ChatGPT,118,40,158,Conversation log
48,def,0.1,GPT-4,472,0,472,Conversation log
47,abc,3.0,ChatGPT,472,18,490,Conversation log
"""


def read(tmp_path: Path, text: str, kind: str) -> Trace:
    path = tmp_path / "trace"
    path.write_text(text, "utf-8")
    return read_trace(path, kind)


def test_mooncake(tmp_path: Path):
    assert read(tmp_path, MOONCAKE, "mooncake").rows == (
        TraceRow(0, 700, 5, (1, 2)),
        TraceRow(1.5, 1000, 7, (1, 3)),
    )


@pytest.mark.parametrize(("text", "gap_s"), [(AZURE, 4.314579), (AZURE_2024, 0.007405)])
def test_azure(tmp_path: Path, text: str, gap_s: float):
    first, second = read(tmp_path, "\ufeff" + text, "azure").rows
    assert first.due_s == 0
    assert second.due_s == pytest.approx(gap_s, abs=1e-6)


def test_burstgpt_is_put_in_order_and_its_failures_are_counted(tmp_path: Path):
    trace = read(tmp_path, BURSTGPT, "burstgpt")
    assert trace.rows == (TraceRow(0, 118, 40, session=0), TraceRow(2, 472, 18, session=0))
    assert trace.num_left_out == 1
    without_sessions = "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n5,GPT-4,2,3,5,API log\n"
    assert read(tmp_path, without_sessions, "burstgpt").rows == (TraceRow(0, 2, 3),)


def test_scaled_and_cut(tmp_path: Path):
    trace = read(tmp_path, MOONCAKE, "mooncake").scaled(0.5)
    assert [row.due_s for row in trace.rows] == [0, 0.75]
    assert len(trace.cut(None, 0.75).rows) == len(trace.cut(1, None).rows) == 1
    assert trace.cut(None, None) == trace


@pytest.mark.parametrize(
    ("kind", "text", "says"),
    [
        ("mooncake", MOONCAKE + "{", ":4: not JSON"),
        ("mooncake", "[]", ":1: not a JSON object"),
        ("mooncake", '{"timestamp": 1, "input_length": 3}', ":1: output_length is not a number: None"),
        ("mooncake", '{"timestamp": 1, "input_length": 1.5, "output_length": 1}', ":1: input_length is not a number of tokens"),
        ("mooncake", '{"timestamp": 1, "input_length": 513, "output_length": 1, "hash_ids": [1]}', ":1: 1 hash_ids of 512"),
        ("mooncake", '{"timestamp": 1, "input_length": 5, "output_length": 1, "hash_ids": ["a"]}', ":1: hash_ids is not"),
        ("azure", AZURE + "yesterday,1,2\n", ":4: Invalid isoformat"),
        ("azure", AZURE + "2023-11-16 18:15:46,x,2\n", ":4: ContextTokens is not a number: 'x'"),
        ("azure", AZURE + "2023-11-16 18:15:46,1\n", ":4: GeneratedTokens is not a number: None"),
        ("azure", BURSTGPT, ":1: no column 'TIMESTAMP'"),
        ("burstgpt", "", ":1: no column 'Timestamp'"),
        ("burstgpt", "Timestamp,Request tokens,Response tokens\n1,-5,2\n", ":2: Request tokens is not a number of tokens"),
        ("burstgpt", "Timestamp,Request tokens,Response tokens\n1,inf,2\n", ":2: Request tokens is not a number"),
        ("burstgpt", "Timestamp,Request tokens,Response tokens\n1,5,0\n", "holds no request"),
        ("sharegpt", "", "no trace format: one of mooncake, azure, burstgpt"),
    ],
)  # fmt: skip
def test_errors_name_file_and_line(tmp_path: Path, kind: str, text: str, says: str):
    with pytest.raises(WorkloadError, match=says):
        read(tmp_path, text, kind)


def test_a_file_that_is_not_there(tmp_path: Path):
    with pytest.raises(WorkloadError, match=r"cannot read trace .*: No such file"):
        read_trace(tmp_path / "absent", "azure")
