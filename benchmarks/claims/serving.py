"""What adapters cost, and the gateway."""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks import random_adapter
from benchmarks.adapter_fleet import ADAPTERS_DIR
from benchmarks.claims.claim import Claim
from benchmarks.claims.contest import Kept, hold, judged, outcome
from benchmarks.claims.contestants import Served
from benchmarks.claims.figures import OUTPUT_TPS
from benchmarks.claims.fleet import descriptions, direct, started
from benchmarks.claims.models import DEMO
from benchmarks.claims.setting import Setting
from benchmarks.engine_choice import LLAMACPP
from benchmarks.over_direct import MIN_RATIO

RANK = 16
PLAIN, BASE, ADAPTER = "no adapters", "adapters on, base", "adapters on, adapter"
GATEWAY, DIRECT = "gateway", "direct"
MINIMAL = Claim(
    "vLLM's documentation", "adapters are served with minimal overhead, read as at most 5 % of the throughput", 0.95
)
TRANSPARENT = Claim(
    "forgegate", f"by way of the gateway at least {MIN_RATIO:g} of the engine's own throughput", MIN_RATIO
)


async def lora(setting: Setting) -> dict[str, Any]:
    """An engine without adapters, one with them that is asked for its base, and the same asked for an adapter; all by way of a gateway."""
    folder, levels = setting.folder("lora"), setting.scale.levels
    kept = Kept.read(folder / "turns.json", setting.mark)
    room = (
        setting.scale.input_tokens + setting.scale.output_tokens.high + 384
    )  # answers of the adapter's proof have room of their own
    options = (
        {"max_adapters": 4}
        if setting.engine == LLAMACPP
        else {"lora": {"max_loras": 1, "max_cpu_loras": 4, "max_rank": RANK}}
    )
    ways: dict[str, dict[str, Any]] = {PLAIN: {}, BASE: options}
    pools = {way: setting.pool(max(levels), room, setting.uncached | more) for way, more in ways.items()}
    loads, workload = [setting.load(level) for level in levels], setting.workload()
    async with started(folder, pools, setting.start_s) as fleet:
        event = await fleet[BASE].publish(await asyncio.to_thread(_adapter, setting, folder), "adapter")
        contestants = [
            Served(PLAIN, fleet[PLAIN].target, setting.plan(workload)),
            Served(BASE, fleet[BASE].target, setting.plan(workload)),
            Served(ADAPTER, fleet[BASE].target, setting.plan(replace(workload, model=event["version"]))),
        ]
        await hold(contestants, loads, setting.repeats, kept)
        engines = await descriptions(fleet)
    judgements = [judged(kept, load, MINIMAL, OUTPUT_TPS, PLAIN, way) for load in loads for way in (BASE, ADAPTER)]
    return outcome(judgements, [kept], engines=engines)


def _adapter(setting: Setting, folder: Path) -> Path:
    """One of the demo's, or a random one of the model's shape."""
    if setting.model == DEMO:
        return ADAPTERS_DIR / "host"
    made = folder / "adapter"
    if not (made / "adapter_model.safetensors").exists():
        random_adapter.write(setting.model_dir, made, RANK, setting.seed)
    return made


async def gateway(setting: Setting) -> dict[str, Any]:
    """One engine, by way of its gateway and directly."""
    folder, levels = setting.folder("gateway"), setting.scale.levels
    kept = Kept.read(folder / "turns.json", setting.mark)
    room = setting.scale.input_tokens + setting.scale.output_tokens.high + 32
    loads, workload = [setting.load(level) for level in levels], setting.workload()
    async with started(folder, {GATEWAY: setting.pool(max(levels), room, setting.uncached)}, setting.start_s) as fleet:
        targets = {GATEWAY: fleet[GATEWAY].target, DIRECT: (await direct(fleet))[GATEWAY]}
        contestants = [Served(way, targets[way], setting.plan(workload)) for way in (DIRECT, GATEWAY)]
        await hold(contestants, loads, setting.repeats, kept)
        engines = await descriptions(fleet)
    judgements = [judged(kept, load, TRANSPARENT, OUTPUT_TPS, DIRECT, GATEWAY) for load in loads]
    return outcome(judgements, [kept], engines=engines)
