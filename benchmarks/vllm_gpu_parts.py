"""The measurements of the GPU campaign, each on a gateway that is up, each leaving it as it found it."""

import asyncio
import re
import statistics
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from typing import Any

import orjson

from benchmarks import adapter_answers, cold_adapters, engine_start, gpu_memory, loaded_flips, over_direct, transcript
from benchmarks.adapter_program import Findings, until
from benchmarks.campaign import Plan
from benchmarks.chaos_gateway import GatewayError
from benchmarks.chaos_verdict import CHAT, Ending
from benchmarks.client import Client
from benchmarks.gpu_memory import MIB, Samples
from benchmarks.vllm_gateway import check_throughput, say, workload
from benchmarks.vllm_gpu_setup import ALIAS, ENGINE, MAIN, SECOND, SECOND_ENGINE, START_S, Stage
from benchmarks.workload import Length

COMMAND_S = 180.0
NOTICE_S = 120.0
MIN_FREED = 0.8
"""Of what the engine's process holds; the rest is CUDA's own."""
SLACK_BYTES = 2 << 30
HOG_LEAVES_BYTES = 24 << 30
OOM_S = 180.0
NEW = "Before and after sleep. "
"""A prompt that no cache knows before the first time, nor after a sleep: all of it is computed each time."""


async def throughput(stage: Stage) -> Findings:
    """The gateway against the engine behind it."""
    setup, findings = stage.setup, Findings()
    tokens = (32, 32) if setup.tiny else (256, 128)
    plan = Plan(
        workload(MAIN, *(Length(num, num) for num in tokens)), setup.levels, repeats=setup.repeats, seed=setup.seed, requests_per_stream=3
    )  # fmt: skip
    targets = {over_direct.GATEWAY: stage.gateway.target, over_direct.DIRECT: await stage.gateway.direct(ENGINE)}
    levels = await over_direct.compare(targets, plan, say)
    check_throughput(levels, findings)
    findings.measured |= {"tokens": tokens, "levels": [over_direct.as_dict(level) for level in levels]}
    return findings


async def load(stage: Stage) -> Findings:
    """A version without a reference: what a request waits for it is the load alone."""
    subject, findings = await stage.subject(1), Findings()
    times = await cold_adapters.measure(stage.gateway, ENGINE, subject, 6)
    found = cold_adapters.as_dict(times)
    for key, limit, what in (
        (
            "load_ratio",
            cold_adapters.MAX_LOAD_RATIO,
            "from a request's call to loaded, over the engine's own load call",
        ),
        ("ratio", cold_adapters.MAX_RATIO, "cold ttft over the engine's own load call and a warm ttft"),
    ):
        ratio = found[key]
        findings.check(
            f"{what}: at most {limit:g}x", ratio["median"] <= limit,
            f"{ratio['median']:.2f}x ({ratio['min']:.2f} - {ratio['max']:.2f})",
        )  # fmt: skip
    findings.measured |= {"cold": found, "publication": stage.events[1]}
    return findings


async def flips(stage: Stage) -> Findings:
    """Between two loaded versions, streams running."""
    versions = [(await stage.subject(number)).version for number in (1, 2)]
    for version in versions:
        await _answered(stage, version)  # whatever was freed is there again
    return await loaded_flips.measure(
        stage.gateway, ALIAS, versions, stage.setup.num_streams, stage.setup.num_flips
    )  # fmt: skip


async def proof(stage: Stage) -> Findings:
    """A version with a reference, made by transformers and PEFT on this machine: what its proof adds to a load."""
    subject, findings = await stage.publish(0, is_attested=True), Findings()
    event = stage.events[0]
    findings.check(
        "the version is proven", event["proof"] in ("proven", "weak"), f"{event['proof']}; {'; '.join(event['notes'])}"
    )
    findings.measured |= {"publication": event}
    times = await cold_adapters.measure(stage.gateway, ENGINE, subject, 3)
    proof_s = [wait - own for wait, own in zip(times.wait, times.load_call, strict=True)]
    findings.measured |= {
        "cold": cold_adapters.as_dict(times),
        "proof_s": {"median": statistics.median(proof_s), "min": min(proof_s), "max": max(proof_s)},
    }
    return findings


async def sleep(stage: Stage) -> Findings:
    """At the level that there is beside adapters: what is freed, how long it takes, and that it answers as before afterwards."""
    findings = Findings()
    if stage.setup.tiny:
        findings.measured["skipped"] = "sleep mode needs CUDA"
        return findings
    version = (await stage.subject(1)).version
    await stage.gateway.point(ALIAS, version)
    expected = (await _answered(stage, ALIAS, NEW)).text
    findings.measured["levels"] = [await _slept(stage, level, version, expected, findings) for level in (1,)]
    return findings


async def _slept(stage: Stage, level: int, version: str, expected: str, findings: Findings) -> dict[str, Any]:
    clock = asyncio.get_running_loop().time
    found: dict[str, Any] = {"level": level, "used_before_mib": await stage.used_bytes() // MIB}
    start_s = clock()
    await stage.gateway.command("engines", "sleep", ENGINE, "--level", str(level), timeout_s=COMMAND_S)
    found["sleep_s"] = round(clock() - start_s, 2)
    found["used_asleep_mib"] = await stage.used_bytes() // MIB
    found["said_asleep"] = (await engine_start.engine_of(stage.gateway, ENGINE))["detail"]
    start_s = clock()
    await stage.gateway.command("engines", "wake", ENGINE, timeout_s=COMMAND_S)
    found["wake_s"] = round(clock() - start_s, 2)
    found["used_awake_mib"] = await stage.used_bytes() // MIB
    reply = await _answered(stage, ALIAS, NEW)
    found |= {"first_ttft_s": reply.ttft_s, "from_wake_to_first_text_s": round(clock() - start_s, 2)}
    freed, held = found["used_before_mib"] - found["used_asleep_mib"], found["used_before_mib"]
    findings.check(f"level {level}: at least {MIN_FREED:.0%} of the memory is given back", freed >= MIN_FREED * held,
                   f"{freed:,} of {held:,} MiB")  # fmt: skip
    findings.check(f"level {level}: awake, the alias answers as before", reply.version == version and reply.text == expected,
                   f"{reply.version}, {'the same text' if reply.text == expected else repr(reply.text[:80])}")  # fmt: skip
    return found


async def out_of_memory(stage: Stage) -> Findings:
    """Another process holds most of the GPU: the second model cannot start, and whoever asks is told who it is."""
    findings = Findings()
    if stage.setup.tiny:
        findings.measured["skipped"] = "needs a GPU that another process can fill"
        return findings
    with gpu_memory.held(HOG_LEAVES_BYTES) as pid:
        findings.measured |= {
            "hog_pid": pid,
            "holders_mib": {str(holder): used // MIB for holder, used in gpu_memory.holders().items()},
            "used_mib": await stage.used_bytes() // MIB,
        }
        seen, answer = await _refused_start(stage, pid)
    findings.measured |= {"seen": seen, "answer": answer}
    said = [entry["detail"] for entry in seen if _names(entry["detail"], pid)]
    findings.check("the engine's state names the process that holds the memory", bool(said), said[:1] or seen[-1:])
    findings.check("the client gets 503, not a hang", answer is not None and answer["status"] == 503, answer)
    return findings


async def _refused_start(stage: Stage, pid: int) -> tuple[list[dict[str, Any]], dict[str, Any] | None]:
    """What the second engine says until it has failed or named the process, and what the request that wanted it gets."""
    clock = asyncio.get_running_loop().time
    start_s = clock()
    asking = asyncio.create_task(_asked(stage, SECOND, OOM_S))
    seen: list[dict[str, Any]] = []
    while clock() - start_s < OOM_S:
        engine = await engine_start.engine_of(stage.gateway, SECOND_ENGINE)
        if not seen or (seen[-1]["state"], seen[-1]["detail"]) != (engine["state"], engine["detail"]):
            seen.append({"at_s": round(clock() - start_s, 2), "state": engine["state"], "detail": engine["detail"]})
        if asking.done() and (engine["state"] == "failed" or _names(engine["detail"], pid)):
            break
        await asyncio.sleep(0.2)
    if not asking.done():
        asking.cancel()
        await asyncio.wait({asking})
        return seen, None
    return seen, asking.result()


async def release(stage: Stage) -> Findings:
    """The first engine gives its memory back, asleep or drained; only then the second one starts; then the first is back."""
    findings, gateway = Findings(), stage.gateway
    clock = asyncio.get_running_loop().time
    since_s = clock()
    samples = Samples()
    sampling = asyncio.create_task(gpu_memory.sample(samples, since_s)) if not stage.setup.tiny else None
    try:
        before = await stage.used_bytes()
        way = ("drain",) if stage.setup.tiny else ("sleep", "--level", "1")
        await gateway.command("engines", way[0], ENGINE, *way[1:], timeout_s=COMMAND_S)
        freed = before - await stage.used_bytes()
        # It may have failed before, or been drained: a request alone does not start it then.
        await gateway.command("engines", "wake", SECOND_ENGINE, "--no-wait", timeout_s=COMMAND_S)
        await until(_has_begun(stage), NOTICE_S)
        asking = asyncio.create_task(_asked(stage, SECOND, START_S))
        start = await engine_start.watch(gateway, SECOND_ENGINE, SECOND, START_S, ask=False)
        spawned_s = next((at_s for at_s, state, _ in start.seen if state == "starting"), 0.0) + clock() - since_s
        answer = await asking
        findings.check("the request that wanted the second model is answered", answer["status"] == 200, answer)
        drain_s = clock()
        await gateway.command("engines", "drain", SECOND_ENGINE, timeout_s=COMMAND_S)
        findings.measured["drain_s"] = round(clock() - drain_s, 2)
        after = await stage.used_bytes()
        findings.check(
            "the second engine's memory is back once it is stopped", after <= before - freed + SLACK_BYTES,
            f"{after // MIB:,} MiB used, {(before - freed) // MIB:,} before it started",
        )  # fmt: skip
        await gateway.command("engines", "wake", ENGINE, timeout_s=START_S)
        findings.check(
            "the first engine answers again", (await _answered(stage, MAIN)).ending is Ending.ANSWERED, "woken"
        )
    finally:
        if sampling is not None:
            sampling.cancel()
            await asyncio.wait({sampling})
    findings.measured |= {
        "before_mib": before // MIB, "freed_mib": freed // MIB, "after_mib": after // MIB, "answer": answer,
        "second_start": start.as_dict(), "used_over_time": samples.thinned(), "second_seen_at_s": round(spawned_s, 2),
    }  # fmt: skip
    return findings


async def restart(stage: Stage) -> Findings:
    """Stopped and started anew: the old process's memory is gone before the new one begins, and clients are told how long it takes."""
    findings, gateway = Findings(), stage.gateway
    clock = asyncio.get_running_loop().time
    old = (await engine_start.engine_of(gateway, ENGINE))["pid"]
    since_s, samples = clock(), Samples()
    used = await stage.used_bytes()
    sampling = asyncio.create_task(gpu_memory.sample(samples, since_s)) if not stage.setup.tiny else None
    try:
        await gateway.command("engines", "restart", "--no-wait", ENGINE, timeout_s=COMMAND_S)
        await until(_another_pid(stage, old), NOTICE_S)
        spawned_s = clock() - since_s
        start = await engine_start.watch(gateway, ENGINE, MAIN, START_S)
    finally:
        if sampling is not None:
            sampling.cancel()
            await asyncio.wait({sampling})
    findings.check("it is ready again, in another process", start.ready_s is not None and start.pid != old,
                   f"after {clock() - since_s:.1f} s")  # fmt: skip
    if samples.used:
        at_spawn = samples.at(spawned_s)
        findings.check("the old process's memory is free when the new one begins", at_spawn <= SLACK_BYTES,
                       f"{at_spawn // MIB:,} MiB used then, {used // MIB:,} before")  # fmt: skip
    findings.measured |= {
        "spawned_s": round(spawned_s, 2),
        "start": start.as_dict(),
        "used_over_time": samples.thinned(),
    }
    return findings


def _another_pid(stage: Stage, old: int) -> Callable[[], Awaitable[bool]]:
    async def is_there() -> bool:
        return (await engine_start.engine_of(stage.gateway, ENGINE))["pid"] not in (old, None)

    return is_there


def _names(detail: str, pid: int) -> bool:
    return re.search(rf"\b{pid}\b", detail) is not None


def _has_begun(stage: Stage) -> Callable[[], Awaitable[bool]]:
    async def has_begun() -> bool:
        return (await engine_start.engine_of(stage.gateway, SECOND_ENGINE))["state"] in ("starting", "ready")

    return has_begun


async def _answered(stage: Stage, model: str, prefix: str = "") -> adapter_answers.Reply:
    """A greedy answer of a few tokens. Raises GatewayError."""
    client = Client(stage.gateway.target, keep_alive=False, timeout_s=COMMAND_S)
    reply = await adapter_answers.ask(client, model, 0, cold_adapters.MAX_TOKENS, prefix)
    if reply.ending is not Ending.ANSWERED:
        raise GatewayError(f"{model}: {reply.ending.value}: {reply.detail}")
    return reply


async def _asked(stage: Stage, model: str, timeout_s: float) -> dict[str, Any]:
    """One request, whatever comes of it."""
    client = Client(stage.gateway.target, keep_alive=False, timeout_s=timeout_s)
    body = orjson.dumps({"model": model, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 8})
    start_s = client.clock()
    exchange = await client.post(CHAT.path, body)
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in exchange.headers.items()}
    wanted = ("retry-after", "x-forgegate-engine-wait-ms", "x-forgegate-engine")
    return {
        "status": exchange.status,
        "took_s": round(client.clock() - start_s, 2),
        "headers": {name: headers[name] for name in wanted if name in headers},
        "message": "" if exchange.status == 200 else str(exchange.failure or transcript.error_message(exchange.body)),
        **({"failure": asdict(exchange.failure)} if exchange.failure else {}),
    }


@dataclass(frozen=True, slots=True)
class Part:
    """One measurement; `needs_s` is what it takes on the GPU at most."""

    name: str
    title: str
    needs_s: float
    measure: Callable[[Stage], Awaitable[Findings]]


PARTS = (
    Part("throughput", "Gateway against direct", 110, throughput),
    Part("load", "Loading an adapter", 40, load),
    Part("flips", "Flips under load", 40, flips),
    Part("proof", "Proof", 100, proof),
    Part("sleep", "Sleeping", 50, sleep),
    Part("out_of_memory", "Out of memory", 70, out_of_memory),
    Part("release", "Memory is released before the next start", 70, release),
    Part("restart", "Restart", 80, restart),
)
