"""`forgegate evaluate ab` as it is typed: what is wrong with that, and results of sessions that are there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from finetune import evaluate
from finetune.pages import ab
from tests.finetune.pages.endpoint import CANDIDATE, LIVE, FakeEndpoint


def session(path: Path, winners: list[str], candidate: str = CANDIDATE) -> Path:
    head = {"format": "forgegate-ab", "resolved": ["demo@0123456789ab", candidate]}
    votes = [
        {"kind": "vote", "id": f"{path.stem}{n}", "prompt": f"d{n}", "cluster": f"d{n}", "winner": winner, "is_identical": False}
        for n, winner in enumerate(winners)
    ]  # fmt: skip
    path.write_text("".join(json.dumps(line) + "\n" for line in (head, *votes)))
    return path


def test_results_of_several_people_are_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = session(tmp_path / "anna.jsonl", ["candidate"] * 7 + ["live", "tie"])
    assert ab.main(["--result", str(one)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{CANDIDATE} against demo@0123456789ab: 7 won, 1 lost, 1 tied (0 of them the same answers)",
        "win rate 87.5 % of the votes that decide, 95 % interval 47.3 to 99.7 %; exact p = 0.07 that both are liked the same",
    ]
    other = session(tmp_path / "ben.jsonl", ["candidate"] * 5 + ["live"] * 4)
    assert evaluate.main(["ab", "--result", str(one), str(other), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["wins"], told["losses"], told["ties"], told["clusters"], told["p_value"]) == (12, 5, 1, 9, None)
    assert ab.main(["--result", str(session(tmp_path / "c.jsonl", ["tie"]))]) == 0
    assert "no vote decides" in capsys.readouterr().out


def test_sessions_about_different_versions_are_not_added(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, other = session(tmp_path / "a.jsonl", ["tie"]), session(tmp_path / "b.jsonl", ["tie"], "support@000000000000")
    assert ab.main(["--result", str(one), str(other)]) == 2
    assert "b.jsonl is about demo@0123456789ab and support@000000000000" in capsys.readouterr().err
    (tmp_path / "c.jsonl").write_text("{}\n")
    assert ab.main(["--result", str(tmp_path / "c.jsonl")]) == 2
    assert ab.main(["--result", str(tmp_path / "absent.jsonl")]) == 3
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ([], "name --models LIVE,CANDIDATE and --prompts FILE"),
        (["--models", "a", "--prompts", "p"], "write two models, LIVE,CANDIDATE"),
        (["--models", "a,", "--prompts", "p"], "write two models"),
        (["--models", "a,b", "--prompts", "p", "--session", "../x"], "letters, digits"),
        (["--models", "a,b", "--prompts", "p", "--port", "70000"], "no port"),
    ],
)
def test_what_is_typed_wrong_is_said(argv: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        ab.main(argv)
    assert caught.value.code == 2
    assert said in capsys.readouterr().err


def test_what_cannot_be_asked_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("p.txt").write_text("question\n")
    with FakeEndpoint({}) as endpoint:
        for models, prompts, code, said in (
            (f"{LIVE},absent", "p.txt", 2, "there is no model absent"),
            (f"{LIVE},{CANDIDATE}", "absent.txt", 2, "there is no such file"),
        ):
            assert ab.main(["--url", endpoint.url, "--models", models, "--prompts", prompts]) == code
            assert said in capsys.readouterr().err
    assert ab.main(["--url", endpoint.url, "--models", f"{LIVE},{CANDIDATE}", "--prompts", "p.txt"]) == 3
    err = capsys.readouterr().err
    assert "cannot be reached" in err
    assert err.count("\n") == 1
    assert not Path("ab").exists()
