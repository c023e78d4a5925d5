"""The hub of these tests speaks the real protocol: Hugging Face's own client reads from it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.hub_server import Fault, HubServer, digest_of

pytest.importorskip("huggingface_hub")

BODY = bytes(range(256)) * 800
SCRIPT = """
import json, sys
from huggingface_hub import HfApi, hf_hub_download, snapshot_download
from huggingface_hub.errors import GatedRepoError, RemoteEntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError

api, out = HfApi(), {}
info = api.model_info("o/n")
out["info"] = [info.id, info.sha, sorted(sibling.rfilename for sibling in info.siblings)]
out["tree"] = sorted(
    [entry.path, entry.size, entry.blob_id, entry.lfs.sha256 if entry.lfs else None]
    for entry in api.list_repo_tree("o/n", recursive=True) if hasattr(entry, "blob_id")
)
out["files"] = {name: hf_hub_download("o/n", name) for name in ("m-Q8_0.gguf", "sub/config.json")}
out["snapshot"] = snapshot_download("o/old", revision="v1")
out["metadata"] = [api.get_hf_file_metadata(url=f"{api.endpoint}/o/n/resolve/main/{name}").etag for name in out["files"]]

def refusal(call):
    try:
        call()
    except Exception as exc:
        return type(exc).__name__
out["refusals"] = [
    refusal(lambda: hf_hub_download("o/gated", "m.gguf")),
    refusal(lambda: hf_hub_download("o/n", "none.gguf")),
    refusal(lambda: hf_hub_download("o/n", "m-Q8_0.gguf", revision="v9")),
    refusal(lambda: api.model_info("o/none")),
    refusal(lambda: api.model_info("o/n", revision="v9")),
]
print(json.dumps(out))
"""


def test_the_official_client_reads_from_it(tmp_path: Path) -> None:
    with HubServer(page_size=2) as hub:
        commit = hub.add("o/n", {"m-Q8_0.gguf": BODY, "sub/config.json": b'{"a": 1}', "x.txt": b"x"})
        hub.add("o/old", {"config.json": b"{}", "model.safetensors": BODY[:5000]}, branch="v1")
        hub.add("o/old", {"config.json": b"{ }"})
        hub.add("o/gated", {"m.gguf": BODY}, is_gated=True)
        hub.granted.add("hf_good")
        hub.faults += [Fault(end_at=100_000)]
        env = {
            **os.environ, "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path), "HF_TOKEN": "", "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        }  # fmt: skip
        done = subprocess.run([sys.executable, "-c", SCRIPT], env=env, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        out = json.loads(done.stdout)
        num_asked = len(hub.requests("store", digest_of("m.gguf", BODY)[1]))
    assert out["info"] == ["o/n", commit, ["m-Q8_0.gguf", "sub/config.json", "x.txt"]]
    assert [entry[:2] for entry in out["tree"]] == [["m-Q8_0.gguf", len(BODY)], ["sub/config.json", 8], ["x.txt", 1]]
    assert out["tree"][0][3] == digest_of("m.gguf", BODY)[1]
    assert out["tree"][1][2:] == [digest_of("config.json", b'{"a": 1}')[1], None]
    assert Path(out["files"]["m-Q8_0.gguf"]).read_bytes() == BODY
    assert Path(out["files"]["sub/config.json"]).read_bytes() == b'{"a": 1}'
    assert (Path(out["snapshot"]) / "model.safetensors").read_bytes() == BODY[:5000]
    assert (Path(out["snapshot"]) / "config.json").read_bytes() == b"{}"
    assert out["metadata"] == [digest_of("m.gguf", BODY)[1], digest_of("config.json", b'{"a": 1}')[1]]
    assert num_asked == 2  # the answer that was cut, and the one after
    assert out["refusals"] == [
        "GatedRepoError", "RemoteEntryNotFoundError", "RevisionNotFoundError", "RepositoryNotFoundError",
        "RevisionNotFoundError",
    ]  # fmt: skip
