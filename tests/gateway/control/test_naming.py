from __future__ import annotations

from dataclasses import dataclass

import pytest

from gateway import errors
from gateway.control.naming import find_alias, find_version


@dataclass(frozen=True)
class Thing:
    name: str


VERSIONS = [Thing("support@3f2a91c04b7d"), Thing("support@3f2affffffff"), Thing("cafe@8c0d11e2f3a4")]


@pytest.mark.parametrize(
    ("text", "found"),
    [("support@3f2a91c04b7d", 0), ("support@3f2a9", 0), ("3f2af", 1), ("8c0d11e2f3a4", 2), ("cafe@8c0d", 2)],
)
def test_a_version_by_its_name_or_enough_of_its_digits(text: str, found: int) -> None:
    assert find_version(text, VERSIONS) is VERSIONS[found]


@pytest.mark.parametrize("text", ["support", "cafe", "support@", "support@3f2", "3f2", "other@3f2a9", "feed"])
def test_a_label_or_too_few_digits_mean_no_version(text: str) -> None:
    with pytest.raises(errors.NotFound, match="there are: support@3f2a91c04b7d, support@3f2affffffff, cafe@"):
        find_version(text, VERSIONS)


def test_digits_that_may_be_several_are_refused() -> None:
    with pytest.raises(errors.BadRequest, match="'3f2a' may be any of: support@3f2a91c04b7d, support@3f2affffffff"):
        find_version("3f2a", VERSIONS)


def test_the_nearest_is_named_and_long_lists_are_cut() -> None:
    with pytest.raises(errors.NotFound, match=r"no alias 'suport'; did you mean 'support'\? there are: support"):
        find_alias("suport", [Thing("support")])
    with pytest.raises(errors.NotFound, match="no alias 'x': nothing was published yet"):
        find_alias("x", [])
    with pytest.raises(errors.NotFound, match="a9 and 2 more"):
        find_alias("x", [Thing(f"a{number}") for number in range(12)])
