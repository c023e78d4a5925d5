from __future__ import annotations

import pytest

from finetune.errors import RecipeUnusable
from finetune.plan.adapter import Advice, advise, num_trainable, with_rank
from finetune.plan.facts import DataFacts
from finetune.recipe.recipe import Lora
from tests.finetune.plan import models

ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")


@pytest.mark.parametrize(("rank", "trained"), [(8, 20_971_520), (16, 41_943_040), (32, 83_886_080)])
def test_llama_8b_on_all_linear_layers(rank: int, trained: int) -> None:
    """83,886,080 is the article's figure for r=16: it is that of r=32."""
    assert num_trainable(models.shape(models.LLAMA_31_8B), Lora(rank=rank)) == trained


def test_one_square_matrix_of_the_70b_model() -> None:
    shape = models.shape(models.llama(8192, 28672, 1, 64, 64, 32000))
    trained = num_trainable(shape, Lora(rank=16, targets=("q_proj",)))
    assert trained == 262_144
    assert f"{trained / (8192 * 8192):.2%}" == "0.39%"


def test_the_mlp_makes_two_to_three_times_as_many() -> None:
    shape = models.shape(models.LLAMA_31_8B)
    assert 2 < num_trainable(shape, Lora()) / num_trainable(shape, Lora(targets=ATTENTION)) < 4


def test_names_are_those_of_the_model() -> None:
    with pytest.raises(RecipeUnusable, match=r"query_key_value: the linear layers of a llama model are q_proj, k_proj"):
        num_trainable(models.shape(models.LLAMA_31_8B), Lora(targets=("q_proj", "query_key_value")))


def test_without_an_adapter_everything_is_trained() -> None:
    shape = models.shape(models.LLAMA_2_7B)
    assert num_trainable(shape, None) == shape.num_parameters


@pytest.mark.parametrize(
    ("rank", "rows", "advised", "is_followed"),
    [
        (8, 600, 8, True),
        (16, 600, 8, False),
        (64, 600, 8, False),
        (16, 5_000, 16, True),
        (32, 5_000, 16, True),
        (64, 5_000, 16, False),
        (4, 5_000, 16, False),
        (32, 50_000, 16, True),
        (128, 50_000, 16, False),
        (16, None, 16, True),
    ],
)
def test_rank_by_rows(rank: int, rows: int | None, advised: int, is_followed: bool) -> None:
    advice = advise(rank, rows)
    assert (advice.rank, advice.is_followed) == (advised, is_followed)


def test_advice_says_what_the_table_says() -> None:
    assert advise(64, 600) == Advice(
        8, False, "r=64 may overfit 600 rows (close to full fine-tuning: overfits easily): start with r=8"
    )
    assert "r=32 in a complex domain" in advise(256, 20_000).words


@pytest.mark.parametrize(("rows", "rank"), [(999, 8), (1_000, 16), (50_000, 16), (None, 16)])
def test_auto_is_the_rank_that_is_advised(rows: int | None, rank: int) -> None:
    facts = None if rows is None else DataFacts((10,), num_own=rows)
    lora = with_rank(models.recipe(rank=0, alpha=0.0), facts).lora
    assert lora == Lora(rank=rank, alpha=2 * rank)
    assert advise(rank, rows).is_followed


def test_what_is_given_is_kept() -> None:
    given = models.recipe(rank=64, alpha=16.0)
    assert with_rank(given, DataFacts((10,), num_own=10)) is given
    assert with_rank(models.recipe(rank=0, alpha=16.0), None).lora == Lora(rank=16, alpha=16.0)
    assert with_rank(models.recipe(lora=None), None).lora is None
