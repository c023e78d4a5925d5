"""The doctor on whole sets: what it finds in sets with planted faults, and what it says of small ones."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from random import Random
from typing import Any

import pytest

from finetune.dataset.checks import CHECKS
from finetune.dataset.doctor import Examination, Options, examine
from finetune.dataset.ledger import is_list
from finetune.dataset.spool import Spool
from tests.finetune.dataset import campaign, faults, sets
from tests.finetune.dataset.tickets import distinct

Examine = Callable[..., Examination]
QUESTION, ANSWER = (
    "배송은 언제 시작되나요? 주문한 지 사흘이 지났습니다.",
    "오늘 오후에 출고되어 내일 오전에 도착할 예정입니다.",
)


@pytest.fixture
def doctor(tmp_path: Path) -> Examine:
    def run(rows: list[Any], held_out: list[Any] | None = None, **options: Any) -> Examination:
        paths = []
        for name, content in (("set.jsonl", rows), ("eval.jsonl", held_out)):
            if content is not None:
                paths.append(tmp_path / name)
                paths[-1].write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in content))
        with Spool() as spool:
            return examine(paths[:1], spool, Options(eval_paths=tuple(paths[1:]), **options))

    return run


def found_in(found: Examination) -> dict[str, list[int]]:
    return {name: list(findings.rows) for name, findings in found.findings.items() if len(findings.rows)}


def alpaca(question: str = QUESTION, answer: str = ANSWER, **more: str) -> dict[str, str]:
    return {"instruction": question, "input": "", "output": answer, **more}


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_three_fresh_seeds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed in [secrets.randbelow(10**9) for _ in range(3)]:
        scores = campaign.run(Random(seed), tmp_path, num_rows=1000)
        with capsys.disabled():
            print(f"\nseed {seed}\n{campaign.table(scores)}")
        assert {kind: each.missed for kind, each in scores.items() if each.missed} == {}, f"seed {seed}"
        assert campaign.is_passed(scores), f"seed {seed}"


def test_a_copy_whose_negation_is_mistyped_is_found_among_many(doctor: Examine) -> None:
    rows = [alpaca(record["instruction"], record["output"]) for record in distinct(Random(5), 200)]
    question = "Since the technician left, my espresso machine cannot be registered for the warranty. What do you need from me?"
    found = doctor([*rows, alpaca(question), alpaca(question.replace("cannot", "canot"))])
    assert found_in(found)["near_duplicate"] == [202]


def test_one_seed_of_a_smaller_set(tmp_path: Path) -> None:
    rng = Random(11)
    planting = campaign.plant(rng, distinct(rng, 400), 400, faults.ROWS)
    scores = campaign._examined(planting, tmp_path, Options(), list(faults.ROWS))
    assert campaign.is_passed(scores), campaign.table(scores)


def test_every_check_that_has_rows_or_a_set_is_planted_somewhere() -> None:
    planted = {*faults.ROWS, *sets.FAULTY, "role_order", "empty_mask", "truncated", "eos_missing", "leakage"}
    assert planted == {check.name for check in CHECKS}


def test_a_copy_is_named_with_the_row_that_it_is_like(doctor: Examine) -> None:
    found = doctor([alpaca(), alpaca("환불은 어떻게 받나요?"), alpaca()])
    assert found_in(found) == {"duplicate": [3]}
    assert found.findings["duplicate"].examples[0].other == 1


def test_the_same_instruction_with_other_inputs_is_no_copy(doctor: Examine) -> None:
    rows = [
        {
            "instruction": "다음 글을 요약하세요.",
            "input": f"{word}에 관한 이야기입니다.",
            "output": f"{word}의 이야기",
        }
        for word in ("한강", "설악산")
    ]
    assert found_in(doctor(rows)) == {}


def test_two_answers_to_one_question(doctor: Examine) -> None:
    other = alpaca(answer="재고가 없어 다음 달에나 보내 드릴 수 있습니다.")
    found = doctor([alpaca(), other])
    assert found_in(found) == {"conflict": [1, 2]}
    assert found.kept_answers == set()
    found = doctor([alpaca(), other, alpaca()])
    assert found_in(found) == {"conflict": [1, 3, 2], "duplicate": [3]}
    assert found.kept_answers == {1, 3}


def test_another_number_is_another_answer(doctor: Examine) -> None:
    rows = [alpaca(answer=f"환불은 영업일 {days}일 안에 처리되어 카드로 돌아갑니다.") for days in (3, 5)]
    assert found_in(doctor(rows)) == {"conflict": [1, 2]}


def test_another_word_is_another_answer_and_another_ending_is_not(doctor: Examine) -> None:
    assert found_in(doctor([alpaca(answer="빨강"), alpaca(answer="파랑")])) == {"conflict": [1, 2]}
    assert found_in(doctor([alpaca(), alpaca(answer=f"안녕하세요! {ANSWER} 감사합니다")])) == {"duplicate": [2]}


def test_a_system_prompt_may_ask_for_another_answer(doctor: Examine) -> None:
    rows = [alpaca(system="존댓말로 답하세요."), alpaca(answer="내일쯤 간다.", system="반말로 답하세요.")]
    assert "conflict" not in found_in(doctor(rows))


def test_leakage_names_the_training_row_and_the_evaluation_row(doctor: Examine) -> None:
    train = [alpaca("환불은 어떻게 받나요?"), alpaca()]
    found = doctor(
        train, [alpaca("반품 주소가 어디인가요?"), alpaca(QUESTION.replace("?", "??") + " 감사합니다.", "다른 답")]
    )
    assert found_in(found) == {"leakage": [2]}
    assert found.findings["leakage"].examples[0].other == 2


def classes(count: int = 40) -> list[dict[str, str]]:
    return [
        alpaca(f"{place}번째 고객이 남긴 문의입니다. 부서를 고르세요.", ("배송", "결제")[place % 2])
        for place in range(count)
    ]


def test_labels_are_not_too_short(doctor: Examine) -> None:
    found = doctor(classes())
    assert found.facts.task == "classification"
    assert found.facts.classes == {"배송": 20, "결제": 20}
    assert "too_short" not in found_in(found)


@pytest.mark.parametrize("count", [1, 2])
def test_a_class_of_hardly_any_rows_is_rare(doctor: Examine, count: int) -> None:
    labels = ["배송", "결제"] * 30 + ["교환"] * count
    rows = [
        {"instruction": "알맞은 부서로 분류하세요.", "input": f"{place}번째 고객이 남긴 문의입니다.", "output": label}
        for place, label in enumerate(labels)
    ]
    said = doctor(rows).findings["class_balance"].of_set
    assert said == f"'배송' has 30 rows, '교환' {count}: more than 10 to 1"


def test_none_is_an_answer_where_the_set_uses_it(doctor: Examine) -> None:
    rows = classes()
    for row in rows[::2]:
        row["output"] = "none"
    assert "empty" not in found_in(doctor(rows))
    assert found_in(doctor([*classes(), alpaca(answer="none")]))["empty"] == [41]


def test_the_size_is_held_against_the_articles_table(doctor: Examine) -> None:
    assert (
        doctor(classes()).findings["size"].of_set
        == "40 rows of classification: at least 500 are recommended, 2,000 to 5,000 are ideal"
    )
    chats = [
        {"messages": [{"role": role, "content": f"{role} {place} 말"} for role in ("user", "assistant") * 2]}
        for place in range(30)
    ]
    assert doctor(chats).findings["size"].of_set.startswith("60 turns of chat: at least 3,000")


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("1. 전원을 끕니다.\n2. 다시 켭니다.", True),
        ("다음과 같습니다:\n- 전원\n- 필터\n* 코드", True),
        ("1. 개요: 인사 2. 내용: 응답 3. 결론: 마침", True),
        ("① 확인 ② 접수\n③ 완료", True),
        ("전원을 끄고 1. 5초 뒤에 켭니다.", False),
        ("먼저 끕니다.\n그다음 켭니다.\n- 끝", False),
    ],
)
def test_lists(answer: str, expected: bool) -> None:
    assert is_list(answer) == expected


@pytest.mark.parametrize(
    ("roles", "said"),
    [
        ("user assistant", ""),
        ("system user assistant user assistant", ""),
        ("user assistant:call tool assistant", ""),
        ("user assistant:call tool tool assistant", ""),
        ("user user assistant", "the user speaks twice"),
        ("assistant user assistant", "before the user"),
        ("user system assistant", "a system prompt after the beginning"),
        ("user assistant assistant", "the assistant speaks twice"),
        ("user assistant user", "it ends with user"),
        ("user tool assistant", "no call asked for"),
        ("user narrator", "the role 'narrator'"),
    ],
)
def test_role_order(doctor: Examine, roles: str, said: str) -> None:
    turns: list[Mapping[str, Any]] = []
    for place, word in enumerate(roles.split()):
        role, _, call = word.partition(":")
        turns.append(
            {"role": role, "content": f"{place}번째 말입니다"} | ({"tool_calls": [{"name": "f"}]} if call else {})
        )
    findings = doctor([{"messages": turns}]).findings["role_order"]
    assert bool(findings.count) == bool(said)
    assert not said or said in findings.examples[0].why


def test_translations_may_change_the_language(doctor: Examine) -> None:
    english = "Your parcel leaves our warehouse this afternoon and arrives tomorrow morning."
    assert found_in(doctor([alpaca(answer=english)])) == {"other_language": [1]}
    assert found_in(doctor([alpaca(f"영어로 번역하세요: {ANSWER}", english)])) == {}


def test_long_rows_are_cut_and_longer_prompts_leave_nothing(doctor: Examine) -> None:
    rows = [alpaca(answer=ANSWER + "아" * 900), alpaca(QUESTION + "음" * 2000), alpaca("짧은 질문입니다")]
    found = found_in(doctor(rows, max_length=512))
    assert (found["truncated"], found["empty_mask"]) == ([1], [2])


def test_examples_hold_no_personal_data(doctor: Examine) -> None:
    found = doctor([alpaca(f"제 번호는 010-1234-5678입니다. {QUESTION}")])
    assert "5678" not in str([findings.examples for findings in found.findings.values()])
