from __future__ import annotations

import argparse

import pytest

from backends.argtypes import port, positive


@pytest.mark.parametrize(("text", "number"), [("1", 1), ("0012", 12), ("1000000", 1_000_000)])
def test_a_whole_number_above_0(text: str, number: int) -> None:
    assert positive(text) == number


@pytest.mark.parametrize("text", ["0", "00", "-1", "1.5", "", "many", "²", "٣", " 1", "1" * 5000])
def test_anything_else_is_refused_in_words(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="is no whole number above 0"):
        positive(text)


def test_a_port_is_one_that_tcp_has() -> None:
    assert port("8080") == 8080
    for text, said in (("65536", "is no port"), ("0", "above 0"), ("http", "above 0")):
        with pytest.raises(argparse.ArgumentTypeError, match=said):
            port(text)
