from pathlib import Path

import pytest

from benchmarks.optimize.journal import JournalError, opened
from benchmarks.optimize.quality import Quality, Reference
from benchmarks.optimize.settings import Setting
from benchmarks.optimize.trial import Outcome, Probe, Trial

SEARCH = {"model": "demo", "slo": "ttft_p99<500ms"}
PROBE = Probe(
    8, 3.5, 100.0, None, 8, 1, {"ttft_p99<500ms": (1, 8)}, {"ttft_p50": 0.1, "ttft_p99": None}, 2.0, "too slow"
)
TRIAL = Trial(
    "search", Setting.of({"n": 1}), 2, Outcome.WORSE, "it may lose", 3.0, 9.0, (PROBE,), Quality(0.5, -0.1, -0.2, 0.0, "it may lose"),
)  # fmt: skip


def test_what_was_written_is_there_again(tmp_path: Path) -> None:
    reference = Reference(("a",), ("b",), ((-0.5, -0.25),))
    with opened(tmp_path, SEARCH) as journal:
        journal.add_reference(reference, 1.0)
        journal.add_probe("key", PROBE, 2.0)
        journal.add_trial("key", TRIAL, 3.0)
    with opened(tmp_path, SEARCH) as journal:
        assert journal.reference == reference
        assert journal.probe("key", 8) == PROBE
        assert journal.probe("key", 4) is None
        assert journal.trial("key") == TRIAL
        assert (journal.spent_s, journal.num_trials) == (3.0, 1)
        assert (journal.spent_until(["search"]), journal.spent_until(["other"])) == (3.0, 0.0)


def test_a_line_that_a_kill_cut_off_is_forgotten(tmp_path: Path) -> None:
    with opened(tmp_path, SEARCH) as journal:
        journal.add_trial("one", TRIAL, 3.0)
        journal.add_trial("two", TRIAL, 4.0)
    path = tmp_path / "journal.jsonl"
    path.write_bytes(path.read_bytes()[:-20])
    with opened(tmp_path, SEARCH) as journal:
        assert journal.num_trials == 1
        journal.add_trial("three", TRIAL, 5.0)
    with opened(tmp_path, SEARCH) as journal:
        assert journal.trial("two") is None
        assert journal.trial("three") == TRIAL


def test_another_search_is_refused_by_what_differs(tmp_path: Path) -> None:
    with opened(tmp_path, SEARCH):
        pass
    with pytest.raises(JournalError, match="its slo is ttft_p99<500ms, not ttft_p99<1s"):
        with opened(tmp_path, {**SEARCH, "slo": "ttft_p99<1s"}):
            pass


def test_two_at_a_time_are_one_too_many(tmp_path: Path) -> None:
    with opened(tmp_path, SEARCH):
        with pytest.raises(JournalError, match="another forgegate optimize works in it"):
            with opened(tmp_path, SEARCH):
                pass


def test_another_file_of_that_name_is_refused(tmp_path: Path) -> None:
    (tmp_path / "journal.jsonl").write_text("hello\n")
    with pytest.raises(JournalError, match="not a journal"):
        with opened(tmp_path, SEARCH):
            pass


@pytest.mark.parametrize(
    "line",
    [
        "[]",
        "{}",
        "null",
        '{"kind": "trial", "key": "one", "spent_s": 1.0, "data": {}}',
        '{"kind": "trial", "key": "one", "spent_s": "1", "data": {}}',
        '{"kind": "probe", "key": "one", "spent_s": 1.0, "data": []}',
        '{"kind": "reference", "spent_s": 1.0, "data": 3}',
    ],
)
def test_a_line_that_it_never_wrote_is_refused_by_its_number(tmp_path: Path, line: str) -> None:
    with opened(tmp_path, SEARCH) as journal:
        journal.add_trial("one", TRIAL, 3.0)
    with (tmp_path / "journal.jsonl").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(JournalError, match="line 3 is not as forgegate optimize writes it"):
        with opened(tmp_path, SEARCH):
            pass


def test_a_first_line_that_is_no_object_is_refused(tmp_path: Path) -> None:
    (tmp_path / "journal.jsonl").write_text("[]\n")
    with pytest.raises(JournalError, match="line 1 is not as forgegate optimize writes it"):
        with opened(tmp_path, SEARCH):
            pass
