"""Speculation by number of streams: with the acceptance of a real draft, and with acceptances that are given."""

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.chaos_gateway import GatewayError
from benchmarks.claims.batching import ARTICLE
from benchmarks.claims.claim import Claim
from benchmarks.claims.contest import judged, outcome
from benchmarks.claims.figures import OUTPUT_TPS
from benchmarks.claims.fleet import MODEL, Fleet, direct
from benchmarks.claims.setting import Setting, capture_sizes
from benchmarks.claims.side_by_side import Contest, compare
from benchmarks.client import Client
from benchmarks.loads import ClosedLoad
from benchmarks.traffic.lengths import Length
from benchmarks.vllm_speculation import PROMPTS, read_drafted
from benchmarks.workload import Workload

FASTER = Claim(ARTICLE, "speculative decoding is 1.5-3x as fast", 1.5, 3)
OFF, ON = "off", "on"
ACCEPTANCES = (0.5, 0.7, 0.9)
DEPTH = 4
REAL_DEPTH = 3
ANSWER = Length(96, 96)


async def real(setting: Setting) -> dict[str, Any]:
    """The demo model answers questions, alone and with its draft; every answer ends by itself."""
    speculative = {
        "method": "draft_model",
        "model": setting.draft,
        "num_speculative_tokens": REAL_DEPTH,
        "schedule": "always",
    }
    workload = Workload(MODEL, output_tokens=ANSWER, prompts=PROMPTS, ignore_eos=False)
    loads = [ClosedLoad(level, max(len(PROMPTS), setting.scale.per_stream * level)) for level in setting.scale.levels]
    return await _measured(setting, "speculation", workload, loads, {OFF: {}, ON: {"speculative": speculative}}, 512)


async def synthetic(setting: Setting) -> dict[str, Any]:
    """Draft tokens are computed, and accepted at given rates: p for the first, p^2 for the first two, and so on."""
    return await _given(setting, "synthetic", {})


async def parallel(setting: Setting) -> dict[str, Any]:
    """The same with all draft tokens of a step from one pass (PARD, arXiv:2504.18583), which spares a pass for each after the first."""
    return await _given(setting, "parallel", {"parallel_drafting": True})


async def _given(setting: Setting, section: str, more: Mapping[str, Any]) -> dict[str, Any]:
    ways: dict[str, Mapping[str, Any]] = {OFF: {}}
    for share in ACCEPTANCES:
        ways[f"p {share:g}"] = {"speculative": {**given(setting.draft, share), **more}}
    answer = Length(*2 * (int(setting.scale.output_tokens.mean),))
    room = setting.scale.input_tokens + answer.high + 32
    loads = [setting.load(level) for level in setting.scale.levels]
    return await _measured(setting, section, setting.workload(output_tokens=answer), loads, ways, room)


def given(draft: str, share: float, depth: int = DEPTH) -> dict[str, Any]:
    """Options of an engine whose draft tokens are accepted with this probability each, once those before are."""
    return {
        "method": "draft_model", "model": draft, "num_speculative_tokens": depth, "schedule": "always",
        "rejection_sample_method": "synthetic", "synthetic_acceptance_rates": [round(share**place, 4) for place in range(1, depth + 1)],
    }  # fmt: skip


async def _measured(
    setting: Setting,
    section: str,
    workload: Workload,
    loads: Sequence[ClosedLoad],
    ways: Mapping[str, Mapping[str, Any]],
    room: int,
) -> dict[str, Any]:
    pools = {way: setting.pool(max(setting.scale.levels), room, _captured(setting, more)) for way, more in ways.items()}
    held = await compare(setting, section, pools, [Contest("turns", setting.plan(workload), loads)], _acceptance)
    (kept,) = held.kept
    judgements = [judged(kept, load, FASTER, OUTPUT_TPS, OFF, way) for load in loads for way in ways if way != OFF]
    return outcome(judgements, held.kept, **held.told)


def _captured(setting: Setting, more: Mapping[str, Any]) -> dict[str, Any]:
    """A step of speculation holds depth + 1 tokens of each request: graphs are captured for those."""
    speculative = more.get("speculative")
    if not setting.has_gpu or speculative is None:
        return dict(more)
    sizes = capture_sizes(max(setting.scale.levels), 1 + speculative["num_speculative_tokens"])
    return {**more, "compilation": {"cudagraph_capture_sizes": sizes}}


async def _acceptance(fleet: Fleet) -> dict[str, Any]:
    """Share of draft tokens that were accepted since each engine's start."""
    found = {}
    for way, target in (await direct(fleet)).items():
        exchange = await Client(target, keep_alive=False, timeout_s=10).get("/metrics")
        if exchange.status != 200:
            raise GatewayError(f"{way}: /metrics: {exchange.failure or exchange.status}")
        found[way] = read_drafted(exchange.body).acceptance
    return {"acceptance": {way: share for way, share in found.items() if share is not None}}
