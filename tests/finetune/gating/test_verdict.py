"""Verdicts on scores whose verdict is plain, and on those at the edges."""

from __future__ import annotations

from collections.abc import Sequence
from math import log

import pytest

from finetune.gating.errors import GateUnusable
from finetune.gating.judging import Rule
from finetune.gating.paired import Paired
from finetune.gating.verdict import LAST, LOOKS, NO_GENERAL, Limits, NeedsMore, Verdict, decide, levels_of
from tests.finetune.gating.pairs import of_clusters, paired

TASK = paired("tickets", 0, gained=190, wrong=10)
KEPT = paired("facts", 490, lost=1, gained=1, wrong=8)
LIMITS = Limits()


def verdict(
    task: Paired = TASK,
    general: Sequence[Paired] = (KEPT,),
    rule: Rule = "improve",
    limits: Limits = LIMITS,
    look: int = LAST,
) -> Verdict:
    found = decide(task, general, rule, limits, look)
    assert isinstance(found, Verdict)
    return found


def test_better_and_kept_is_go_at_the_first_look() -> None:
    found = verdict(look=0)
    assert (found.outcome, found.items_to_settle) == ("GO", None)
    assert (found.task.state, found.general[0].state) == ("better", "kept")
    assert (found.task.live, found.task.candidate, found.task.difference) == (0.0, 0.95, 95.0)
    assert found.reasons[0].startswith("tickets: +95.0 points (+")
    assert found.reasons[1].startswith("the general skill is kept: facts: +0.0 points (-")


def test_the_skill_nearest_to_its_limit_is_named() -> None:
    near = paired("recall", 470, lost=2, gained=0, wrong=28)
    found = verdict(general=(KEPT, near), look=LAST)
    assert found.outcome == "GO"
    assert found.reasons[1].startswith("all 2 general skills are kept, nearest to its limit recall: -0.4 points")


def test_one_lost_skill_is_no_go_whatever_the_others_are() -> None:
    dropped = paired("recall", 460, lost=22, gained=0, wrong=18)
    found = verdict(general=(KEPT, dropped), limits=Limits({"recall": 2.0}))
    assert (found.outcome, found.general[1].state) == ("NO-GO", "dropped")
    assert len(found.reasons) == 1
    assert found.reasons[0].startswith("recall: -4.4 points (")
    assert found.reasons[0].endswith("dropped, 2 points may be lost")


@pytest.mark.parametrize(("lost", "state"), [(40, "forgotten"), (24, "dropped"), (25, "forgotten")])
def test_five_points_and_more_are_forgotten(lost: int, state: str) -> None:
    found = verdict(general=(paired("recall", 500 - lost, lost),), limits=Limits(2.0), look=0)
    assert (found.outcome, found.general[0].state) == ("NO-GO", state)


def test_a_lost_skill_ends_it_before_others_are_settled() -> None:
    forgotten, undecided = paired("recall", 400, lost=100), paired("facts", 470, lost=20, gained=10)
    assert verdict(general=(undecided, forgotten), look=0).outcome == "NO-GO"


def test_undecided_skills_and_only_they_get_more_items() -> None:
    undecided = paired("recall", 440, lost=30, gained=20, wrong=10)
    for look in range(LAST):
        assert decide(TASK, (KEPT, undecided), "improve", LIMITS, look) == NeedsMore(("recall",), LOOKS[look + 1])


def test_the_task_too_may_need_more() -> None:
    task = paired("tickets", 400, lost=30, gained=40, wrong=30)
    assert decide(task, (KEPT,), "improve", LIMITS, 0) == NeedsMore(("tickets",), 1000)


def test_what_is_settled_stays_so_at_later_looks() -> None:
    for skill in (KEPT, paired("facts", 480, lost=3, gained=3, wrong=14), paired("facts", 494, lost=0, wrong=6)):
        states = []
        for look in range(LAST + 1):
            found = decide(TASK, (skill,), "improve", LIMITS, look)
            states.append(isinstance(found, Verdict) and found.outcome == "GO")
        assert states == sorted(states)
        assert states[-1]


def test_after_the_last_look_it_is_inconclusive_with_what_would_settle_it() -> None:
    undecided = paired("recall", 3700, lost=160, gained=60, wrong=80)
    found = verdict(general=(KEPT, undecided))
    assert (found.outcome, found.general[1].state) == ("INCONCLUSIVE", "undecided")
    assert found.items_to_settle is not None
    assert 4000 < found.items_to_settle < 100_000
    assert len(found.reasons) == 1
    assert (
        f"about {found.items_to_settle:,} items in {found.items_to_settle:,} clusters would settle it"
        in found.reasons[0]
    )
    times = found.items_to_settle / 4000 + 0.01
    enough = paired("recall", *(round(times * count) for count in (3700, 160, 60, 80)))
    assert verdict(general=(KEPT, enough)).outcome == "GO"
    times = found.items_to_settle / 4000 - 0.03
    short = paired("recall", *(round(times * count) for count in (3700, 160, 60, 80)))
    assert verdict(general=(KEPT, short)).outcome == "INCONCLUSIVE"


def test_a_drop_that_more_items_would_show_says_how_many() -> None:
    found = verdict(general=(paired("recall", 1900, lost=78, gained=12, wrong=10),))
    assert found.outcome == "INCONCLUSIVE"
    assert found.items_to_settle is not None
    times = found.items_to_settle / 2000
    more, fewer = (paired("recall", *(round(times * by * n) for n in (1900, 78, 12, 10))) for by in (1.1, 0.9))
    assert verdict(general=(more,)).outcome == "NO-GO"
    assert verdict(general=(fewer,)).outcome == "INCONCLUSIVE"


def test_few_clusters_are_too_few_however_many_items_they_have() -> None:
    found = verdict(general=(of_clusters("recall", [0.0] * 20, 200),))
    assert found.outcome == "INCONCLUSIVE"
    assert "4,000 items, 20 clusters" in found.reasons[0]
    assert found.items_to_settle is not None
    level = levels_of(1, LIMITS, LAST).lower
    assert found.items_to_settle / 200 == pytest.approx(log(level) / log(0.97), rel=0.01)  # in clusters
    assert "unless they are all that there are" in found.reasons[0]


def test_a_few_clusters_that_are_lost_by_much_are_enough_for_no_go() -> None:
    lost = of_clusters("recall", [-0.35, -0.3, -0.25, -0.3, -0.4, -0.2], 80)
    found = verdict(general=(KEPT, lost), look=0)
    assert (found.outcome, found.general[1].state) == ("NO-GO", "forgotten")
    assert found.general[1].upper < -5
    one = decide(TASK, (of_clusters("recall", [-0.3], 500),), "improve", LIMITS, 0)
    assert isinstance(one, NeedsMore)


def test_a_closed_table_of_few_clusters_is_judged_by_its_items() -> None:
    clusters = tuple(f"c{place % 20}" for place in range(500))
    closed = Paired("smalltalk", clusters, (1.0,) * 500, (1.0,) * 500, is_closed=True)
    found = verdict(general=(closed,), look=0)
    assert (found.outcome, found.general[0].num_clusters) == ("GO", 20)


def test_answers_that_are_all_the_same_are_no_improvement_and_no_loss() -> None:
    task = paired("tickets", 450, wrong=50)
    found = verdict(task)
    assert (found.outcome, found.items_to_settle) == ("INCONCLUSIVE", None)
    assert found.reasons[0].endswith("a retrain is judged by --rule non-inferior")
    assert verdict(task, rule="non-inferior", look=0).outcome == "GO"
    assert verdict(task, rule="non-inferior").task.state == "kept"


def test_a_worse_task_is_no_go_by_either_rule() -> None:
    task = paired("tickets", 400, lost=60, wrong=40)
    found = verdict(task, look=0)
    assert (found.outcome, found.task.state) == ("NO-GO", "dropped")
    assert found.reasons[0].endswith("the candidate is worse than what is live")
    assert verdict(task, rule="non-inferior", look=0).outcome == "NO-GO"


def test_slightly_worse_is_no_go_by_improve_and_kept_by_non_inferior() -> None:
    task = paired("tickets", 3880, lost=60, gained=20, wrong=40)
    assert verdict(task).outcome == "NO-GO"
    found = verdict(task, rule="non-inferior")
    assert (found.outcome, found.task.state) == ("GO", "kept")
    assert "not worse by 3 points" in found.reasons[0]


def test_without_general_skills_it_is_never_go() -> None:
    for look in range(LAST + 1):
        found = verdict(general=(), look=look)
        assert (found.outcome, found.reasons) == ("INCONCLUSIVE", (NO_GENERAL,))
    assert verdict(paired("tickets", 100, lost=100), general=()).outcome == "NO-GO"


def test_limits_are_by_name_and_others_have_the_default() -> None:
    limits = Limits({"hellaswag": 2.0})
    assert (limits.drop_of("hellaswag"), limits.drop_of("mmlu")) == (2.0, 3.0)
    assert Limits(1.5).drop_of("mmlu") == 1.5
    near = paired("hellaswag", 3900, lost=60, gained=0, wrong=40)
    assert verdict(general=(near,), limits=Limits({"hellaswag": 2.5})).outcome == "GO"
    assert verdict(general=(near,), limits=Limits({"hellaswag": 1.6})).outcome == "INCONCLUSIVE"


def test_more_skills_widen_the_upper_bound_and_not_the_lower() -> None:
    one, many = verdict(), verdict(general=(KEPT, *(paired(f"skill {n}", 495, wrong=5) for n in range(11))))
    assert many.general[0].lower == one.general[0].lower
    assert many.general[0].upper > one.general[0].upper


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (lambda: Limits(0), "max_drop is 0: points that may be lost lie between 0 and 100"),
        (lambda: Limits({"mmlu": -1}), "max_drop of mmlu is -1"),
        (lambda: Limits(float("nan")), "max_drop is nan"),
        (lambda: Limits(forgetting=0), "forgetting is 0"),
        (lambda: Limits(confidence=95), "confidence is 95: it lies between 0.5 and 1"),
        (lambda: decide(TASK, (KEPT,), "better", LIMITS), "there is no rule 'better': write improve or non-inferior"),  # type: ignore[arg-type]
        (lambda: decide(TASK, (KEPT,), "improve", LIMITS, 4), "there is no look 4"),
        (lambda: decide(TASK, (KEPT, KEPT), "improve", LIMITS), "facts is given twice"),
    ],
)
def test_what_cannot_be_decided_is_named(made, words: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(GateUnusable, match=words):
        made()
