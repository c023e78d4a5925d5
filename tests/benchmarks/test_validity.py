from benchmarks.metrics import summarise
from benchmarks.validity import judge
from tests.benchmarks.records import failed, record


def test_a_clean_run_is_valid():
    verdict = judge(summarise([record()], 1.0), 0.1)
    assert verdict.is_valid
    assert verdict.remarks == ()


def test_each_fault_is_named():
    records = [record(completion_tokens=3), record(completion_tokens=64, max_tokens=64, text=""), failed()]
    faults = " / ".join(judge(summarise(records, 1.0), 0.9).faults)
    for words in ("1 of 3 requests failed (1 truncated)", "shorter than demanded", "next to no text", "90% of a core"):
        assert words in faults


def test_missing_usage_and_bundled_chunks_are_remarked():
    guessed = record(completion_tokens=None, finish_reason="stop", is_exact=False)
    assert "counted as tokens" in judge(summarise([guessed], 1.0), 0.0).remarks[0]
    bundled = record(completion_tokens=8, max_tokens=8)
    assert "2.00 tokens per chunk" in judge(summarise([bundled], 1.0), 0.0).remarks[0]


def test_chunks_that_come_together_are_remarked():
    assert "2.00 chunks came per read" in judge(summarise([record(num_reads=2)], 1.0), 0.0).remarks[0]
