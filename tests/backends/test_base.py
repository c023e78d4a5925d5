from __future__ import annotations

from pathlib import Path

import pytest

from backends import build
from backends.base import Address, Places, PoolSpec, parse_metrics
from backends.errors import BadSpec

PLACES = Places(Path("models"), Path("envs"))


def test_metrics_are_summed_over_labels_and_histogram_buckets_left_out() -> None:
    text = """# HELP a_total what
# TYPE a_total counter
a_total{engine="x",note="with } and space"} 3
a_total{engine="y"} 4.5 1700000000
b 1e3
latency_bucket{le="0.1"} 7
latency_sum 1.5
broken
"""
    assert parse_metrics(text) == {"a_total": 7.5, "b": 1000.0, "latency_sum": 1.5}


@pytest.mark.parametrize(
    ("address", "url"),
    [
        (Address("127.0.0.1", 80), "http://127.0.0.1:80"),
        (Address("::1", 443, tls=True, path_prefix="/a"), "https://[::1]:443/a"),
    ],
)
def test_address_as_url(address: Address, url: str) -> None:
    assert address.url == url


def test_an_unknown_engine_lists_the_known_ones() -> None:
    with pytest.raises(
        BadSpec, match=r"unknown engine 'llamacp' \(did you mean 'llamacpp'\?\); known: llamacpp, vllm, remote"
    ):
        build(PoolSpec("llamacp", "demo"), PLACES)


def test_bad_options_are_refused_when_the_backend_is_built() -> None:
    with pytest.raises(BadSpec) as caught:
        build(PoolSpec("llamacpp", "demo", model="demo", options={"n_ctxx": 1, "n_ctx": 1}), PLACES)
    assert len(caught.value.problems) == 2


def test_secrets_are_not_shown() -> None:
    assert "hush" not in repr(PoolSpec("remote", "demo", api_key="hush"))
