from __future__ import annotations

import hashlib
import math
from pathlib import Path

import pytest
import yaml

from gateway.config import AdapterRules, ApiKey, Config, Conversations, Pool, keys_of
from gateway.configdocs import attribute_docs, render
from gateway.configfile import ConfigError, load, parse
from gateway.exits import BAD_INPUT, UsageError

MINIMAL = "models: [{name: demo, pools: [{engine: llamacpp, model: demo}]}]\n"


def problems(text: str, **env: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse(text, "f.yaml", env)
    assert caught.value.exit_code == BAD_INPUT
    return str(caught.value).splitlines()


def test_defaults() -> None:
    config = parse(MINIMAL)
    assert config.server.port == 8080
    assert config.server.admin.port == 8081
    assert config.models[0].pools == (Pool("llamacpp", model="demo"),)
    assert config.keys == ()
    assert config.conversations == Conversations("", 0.1)
    assert (config.adapters.gate, config.adapters.roots, config.store) == ("warn", (), None)


def test_everything_given() -> None:
    text = """
server: {host: 0.0.0.0, port: 0, workers: 4, admin: {port: 9}, access_log: "-", drain_s: 5}
models:
  - name: org/m-1.5
    pools:
      - {engine: llamacpp, model: demo, replicas: 2, options: {n_ctx: 512, flash_attn: on}, python: /usr/bin/python3}
      - {engine: remote, base_url: "https://h/v1", api_key: "${K}", model: theirs, capabilities: [chat]}
routing: {policy: least_load}
limits: {max_body_bytes: 1048576}
timeouts: {connect_s: 1, first_byte_s: .inf}
adapters: {gate: off, roots: [/srv/adapters, ~/adapters], require_attestation: true, wait_s: 5, max_waiting: 8}
conversations: {file: ~/kept.jsonl, share: 1, models: [support], max_bytes: 65536, keep: 2, mask: false}
store: postgresql+psycopg://u:secret@h/db
keys:
  - {name: app, key: "${APP:-secret-key-1}"}
"""
    config = parse(text, env={"K": "sk-9"})
    assert config.server.workers == 4
    assert config.models[0].pools[0].options == {"n_ctx": 512, "flash_attn": True}
    assert config.models[0].pools[1].api_key == "sk-9"
    assert config.timeouts.first_byte_s == math.inf
    assert config.adapters == AdapterRules("off", ("/srv/adapters", "~/adapters"), True, 5.0, 8)
    assert config.conversations == Conversations("~/kept.jsonl", 1.0, ("support",), 65536, 2, False)
    assert config.store == "postgresql+psycopg://u:secret@h/db"
    assert "secret" not in repr(config)
    assert config.keys == (ApiKey("app", hashlib.sha256(b"secret-key-1").hexdigest()),)


def test_secrets_are_not_shown() -> None:
    config = parse(MINIMAL + "keys: [{name: app, key: secret-key-1}]\n")
    assert "secret" not in repr(config)
    assert config.keys[0].sha256 not in repr(config)
    assert "sk-9" not in repr(Pool("remote", api_key="sk-9"))


def test_residency() -> None:
    pool = "models: [{name: demo, pools: [{engine: llamacpp, model: demo%s}]}]\n"
    always, demanded, patient = (
        parse(pool % more).models[0].pools[0]
        for more in ("", ", resident: on_demand, sleep_level: 1", ", resident: on_demand, idle_timeout_s: .inf")
    )
    assert (always.is_on_demand, always.idle_s) == (False, math.inf)
    assert (demanded.is_on_demand, demanded.idle_s, demanded.sleep_level) == (True, 600.0, 1)
    assert patient.idle_s == math.inf


_STAYS = "is for `resident: on_demand`: this engine always stays"
_POOL = "models: [{name: demo, pools: [{engine: llamacpp, model: demo, %s}]}]"
_REMOTE = "models: [{name: demo, pools: [{engine: remote, base_url: http://h, %s}]}]"
BROKEN = {
    "an engine that always stays has no idle time": (
        _POOL % "idle_timeout_s: 5", f"f.yaml:1: models[0].pools[0].idle_timeout_s {_STAYS}",
    ),
    "an engine that always stays does not sleep": (
        _POOL % "resident: always, sleep_level: 1", f"f.yaml:1: models[0].pools[0].sleep_level {_STAYS}",
    ),
    "several on demand": (
        _POOL % "resident: on_demand, replicas: 2", "f.yaml:1: models[0].pools[0].replicas: an engine that runs on demand is one, got 2",
    ),
    "a remote on demand": (
        _REMOTE % "resident: on_demand", "f.yaml:1: models[0].pools[0].resident does not belong to engine remote",
    ),
    "a deeper sleep": (
        _POOL % "resident: on_demand, sleep_level: 3", "f.yaml:1: models[0].pools[0].sleep_level: must be 0 to 2, got 3",
    ),
    "unknown key": (MINIMAL + "servr: {}", "f.yaml:2: unknown key 'servr' (did you mean 'server'?)"),
    "far from any key": (
        MINIMAL + "zzz: 1",
        "f.yaml:2: unknown key 'zzz' (known: server, models, keys, routing, limits, timeouts, store, adapters, conversations)",
    ),
    "a relative root": (MINIMAL + "adapters:\n  roots: [/a, b]", "f.yaml:3: adapters.roots[1]: 'b' is not an absolute path"),
    "another gate": (MINIMAL + "adapters: {gate: no}", "f.yaml:2: adapters.gate: must be one of off, warn, require, got 'no'"),
    "a store that is no url": (MINIMAL + "store: x.db", "f.yaml:2: store: expected a database's URL, for example postgresql+psycopg://user@host/name"),
    "nested": (MINIMAL + "server:\n  admin:\n    prot: 1", "f.yaml:4: unknown key 'server.admin.prot' (did you mean 'port'?)"),
    "dashes": (MINIMAL + "limits: {max-body-bytes: 1}", "f.yaml:2: unknown key 'limits.max-body-bytes' (did you mean 'max_body_bytes'?)"),
    "twice": (MINIMAL + "limits: {}\nlimits: {}", "f.yaml:3: limits is given twice (first on line 2)"),
    "text for a number": (MINIMAL + "server: {port: abc}", "f.yaml:2: server.port: expected a whole number, got 'abc'"),
    "a fraction": (MINIMAL + "server: {port: 80.5}", "f.yaml:2: server.port: expected a whole number, got '80.5'"),
    "true for a number": (MINIMAL + "server: {workers: yes}", "f.yaml:2: server.workers: expected a whole number, got 'yes'"),
    "out of range": (MINIMAL + "server: {port: 70000}", "f.yaml:2: server.port: must be 0 to 65535, got 70000"),
    "not positive": (MINIMAL + "timeouts: {idle_s: 0}", "f.yaml:2: timeouts.idle_s: must be above 0, got 0.0"),
    "not a number": (MINIMAL + "timeouts: {idle_s: .nan}", "f.yaml:2: timeouts.idle_s: must be a number, got nan"),
    "a list for keys": (MINIMAL + "server: [1]", "f.yaml:2: server: expected keys and values, got a list"),
    "a choice": (MINIMAL + "routing: {policy: best}", "f.yaml:2: routing.policy: must be one of least_load, got 'best'"),
    "no models": ("server: {port: 1}", "f.yaml:1: models is missing"),
    "empty models": ("models: []", "f.yaml:1: models: at least 1 is needed"),
    "null models": ("models:", "f.yaml:1: models: expected a list, got nothing"),
    "no name": ("models: [{pools: [{engine: llamacpp, model: demo}]}]", "f.yaml:1: models[0].name is missing"),
    "bad name": (
        "models: [{name: 'a b', pools: [{engine: llamacpp, model: demo}]}]",
        "f.yaml:1: models[0].name: letters, digits and . _ - / only, beginning with a letter or digit, 96 at most, got 'a b'",
    ),
    "unknown engine": (
        "models: [{name: a, pools: [{engine: lamacpp}]}]",
        "f.yaml:1: models[0].pools[0].engine: unknown engine 'lamacpp' (did you mean 'llamacpp'?); known: llamacpp, vllm, remote",
    ),
    "key of another engine": (
        "models: [{name: a, pools: [{engine: llamacpp, model: demo,\n base_url: x}]}]",
        "f.yaml:2: models[0].pools[0].base_url does not belong to engine llamacpp",
    ),
    "missing key of this engine": (
        "models: [{name: a, pools: [{engine: remote}]}]",
        "f.yaml:1: models[0].pools[0].base_url is missing: engine remote needs it",
    ),
    "bad url": (
        "models: [{name: a, pools: [{engine: remote, base_url: 'ftp://h'}]}]",
        "f.yaml:1: models[0].pools[0].base_url: expected http(s)://host[:port][/path], got 'ftp://h'",
    ),
    "unknown option": (
        "models: [{name: a, pools: [{engine: llamacpp, model: demo, options: {\n n_ctx: 512,\n n_ctxx: 1}}]}]",
        "f.yaml:3: models[0].pools[0].options: unknown option 'n_ctxx' (did you mean 'n_ctx'?)",
    ),
    "option out of range": (
        "models: [{name: a, pools: [{engine: llamacpp, model: demo, options: {\n n_ctx: 1}}]}]",
        "f.yaml:2: models[0].pools[0].options: n_ctx: must be at least 256, got 1",
    ),
    "option of a group": (
        "models: [{name: a, pools: [{engine: vllm, model: demo, options: {\n lora: {max_loras: 2,\n max_rank: 17}}}]}]",
        "f.yaml:3: models[0].pools[0].options: lora.max_rank: vLLM has slots of rank 1, 8, 16, 32, 64, 128, 256, 320, 512 only, got 17; "
        "take 32",
    ),
    "unknown option of a group": (
        "models: [{name: a, pools: [{engine: vllm, model: demo, options: {lora: {\n max_lorras: 2}}}]}]",
        "f.yaml:2: models[0].pools[0].options: unknown option 'lora.max_lorras' (did you mean 'max_loras'?)",
    ),
    "option in an old spelling": (
        "models: [{name: a, pools: [{engine: vllm, model: demo, options: {\n --max-loras: 0}}]}]",
        "f.yaml:2: models[0].pools[0].options: lora.max_loras: must be 1 or more, got 0",
    ),
    "what no file can say": (
        "models: [{name: a, pools: [{engine: llamacpp, model: demo,\n origin: x}]}]", None,
    ),
    "two models of one name": (
        "models:\n- {name: a, pools: [{engine: llamacpp, model: demo}]}\n- {name: a, pools: [{engine: llamacpp, model: demo}]}",
        "f.yaml:3: models[1].name: 'a' is used twice",
    ),
    "unset variable": (
        MINIMAL + "keys: [{name: a, key: '${NOPE}'}]",
        "f.yaml:2: environment variable NOPE is not set (or write ${NOPE:-default})",
    ),
    "short key": (MINIMAL + "keys: [{name: a, key: abc}]", "f.yaml:2: key: at least 8 characters are needed"),
    "no key": (MINIMAL + "keys: [{name: a}]", "f.yaml:2: keys[0].sha256 is missing"),
    "bad hash": (MINIMAL + "keys: [{name: a, sha256: abc}]", "f.yaml:2: sha256: expected 64 hexadecimal digits in lower case"),
    "conversations without a file": (
        MINIMAL + "conversations: {share: 1}",
        "f.yaml:2: conversations.file is missing: without it nothing is kept",
    ),
    "conversations in a relative file": (
        MINIMAL + "conversations: {file: kept.jsonl}", "f.yaml:2: conversations.file: 'kept.jsonl' is not an absolute path",
    ),
    "more conversations than there are": (
        MINIMAL + "conversations: {file: /kept, share: 10}", "f.yaml:2: conversations.share: must be 0 to 1, got 10.0",
    ),
    "empty file": ("", "f.yaml:1: the file is empty: it needs at least `models`"),
    "no yaml": ("a: [1", "f.yaml:1: not valid YAML: expected ',' or ']', but got '<stream end>'"),
    "no yaml at all": ("\x00", None),
    "only a text": ("hello", "f.yaml:1: the file: expected keys and values, got 'hello'"),
    "endless alias": (
        "models: [{name: a, pools: [{engine: llamacpp, model: demo, options: &x {n_ctx: *x}}]}]",
        "f.yaml:1: models[0].pools[0].options: nested too deeply",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("text", "message"), BROKEN.values(), ids=BROKEN)
def test_broken_files(text: str, message: str | None) -> None:
    found = problems(text)
    assert len(found) == 1
    if message is not None:
        assert found == [message]


def test_all_faults_are_reported_at_once_in_the_order_of_lines() -> None:
    text = """servr: 1
server: {port: -1, workers: 0}
models:
  - name: 'a b'
    pools: [{engine: nope}, {engine: llamacpp, model: demo, options: {n_ctxx: 1, n_ctx: 2}}]
timeouts: {idle_s: x}
"""
    found = problems(text)
    assert len(found) == 8
    assert found == sorted(found, key=lambda line: int(line.split(":")[1]))


def test_variables_become_values_never_structure() -> None:
    text = MINIMAL + "server: {host: '${H}', port: ${P}, access_log: '$${H}'}\n"
    config = parse(text, env={"H": "a: [b", "P": "81"})
    assert config.server.host == "a: [b"
    assert config.server.port == 81
    assert config.server.access_log == "${H}"
    assert parse(MINIMAL + "server: {port: '${P:-82}'}\n".replace("'", ""), env={}).server.port == 82
    assert problems(MINIMAL + "server: {port: '${P}'}", P="81") == [
        "f.yaml:2: server.port: expected a whole number, got '${P}'"
    ]


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        load(tmp_path / "none.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(UsageError, match=r"latin\.yaml"):
        load(tmp_path / "latin.yaml")


def test_the_documentation_names_every_key_and_is_yaml() -> None:
    text = render()
    tree = yaml.safe_load(text.replace("...", "x"))
    assert set(tree) == set(Config.__dataclass_fields__)
    assert set(tree["models"][0]["pools"][0]) == set(keys_of(Pool))
    for cls in (Pool, ApiKey):
        assert set(attribute_docs(cls)) == set(cls.__dataclass_fields__), f"a field of {cls.__name__} has no docstring"
