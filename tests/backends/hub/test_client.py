"""Questions to the hub: who sees the token, which answers are which error."""

from __future__ import annotations

import socket
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from backends.errors import BackendError
from backends.hub import client as hub_client
from backends.hub.access import Access
from backends.hub.client import HubClient
from backends.hub.errors import AccessDenied, Corrupt, HubError, NoSuchModel, Unreachable
from backends.hub.listing import RemoteFile, is_safe, read_info, read_tree
from backends.hub.names import parse_name
from backends.hub.pull import ask, pull
from backends.hub.store import Store
from tests.hub_server import Fault, HubServer, digest_of

GGUF = b"GGUF" + bytes(5000)
UNTOLD = {"content-length": "", "connection": "close"}
"""Of an answer that does not tell how long it is."""


@contextmanager
def held_bytes_below(limit: int) -> Iterator[None]:
    """Python holds no more at once; what the server is to send is made before."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < limit
    finally:
        tracemalloc.stop()


def test_commit_and_files(hub: HubServer, client: HubClient) -> None:
    commit = hub.add("o/n", {"m-Q8_0.gguf": GGUF, "sub/config.json": b"{}"})
    assert client.info("o/n", "main").commit == commit
    assert client.info("o/n", commit).commit == commit
    assert set(client.tree("o/n", commit)) == {
        RemoteFile("m-Q8_0.gguf", len(GGUF), "sha256:" + digest_of("m.gguf", GGUF)[1]),
        RemoteFile("sub/config.json", 2, "git-sha1:" + digest_of("config.json", b"{}")[1]),
    }


def test_git_names_a_blob_so(client: HubClient) -> None:
    # `printf hello | git hash-object --stdin`
    assert digest_of("x.txt", b"hello") == ("sha1", "b6fc4c620b67d95f953a5c1c1230aaab5db5a1b0")


def test_a_list_of_files_in_pages() -> None:
    with HubServer(page_size=3) as hub, HubClient(Access(hub.url)) as client:
        commit = hub.add("o/n", {f"{number:02}.txt": b"x" * number for number in range(10)})
        assert len(client.tree("o/n", commit)) == 10
        assert len(hub.requests("hub", "/tree/")) == 4


def test_a_small_file(hub: HubServer, client: HubClient) -> None:
    commit = hub.add("o/n", {"config.json": b'{"a": 1}'})
    (file,) = client.tree("o/n", commit)
    hub.faults.append(Fault(end_at=3))
    assert client.read("o/n", commit, file) == b'{"a": 1}'


@pytest.mark.parametrize("length", [{}, UNTOLD])
def test_a_small_file_that_is_another_than_listed(length: dict[str, str], hub: HubServer, client: HubClient) -> None:
    commit = hub.add("o/n", {"config.json": b'{"a": 1}'})
    (file,) = client.tree("o/n", commit)
    hub.faults.append(Fault(200, length, b'{"a": 2}'))
    with pytest.raises(Corrupt, match=r"config\.json came whole, but its git-sha1 is .*, the hub lists"):
        client.read("o/n", commit, file)


def test_a_small_file_that_ends_too_soon_is_asked_for_again(hub: HubServer, client: HubClient) -> None:
    commit = hub.add("o/n", {"config.json": b'{"a": 1}'})
    (file,) = client.tree("o/n", commit)
    hub.faults.append(Fault(200, UNTOLD, b'{"a"'))
    assert client.read("o/n", commit, file) == b'{"a": 1}'


def test_a_small_file_that_does_not_end(hub: HubServer, client: HubClient) -> None:
    commit = hub.add("o/n", {"config.json": b"x" * 10})
    (file,) = client.tree("o/n", commit)
    hub.faults.append(Fault(200, UNTOLD, b"x" * 20_000_000))
    with (
        held_bytes_below(2_000_000),
        pytest.raises(Corrupt, match=r"config\.json: the server sends more than the 10 bytes that the hub lists"),
    ):
        client.read("o/n", commit, file)


def test_an_answer_that_does_not_end(hub: HubServer, client: HubClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_client, "MAX_SMALL_BYTES", 1_000_000)
    hub.add("o/n", {"m.gguf": GGUF})
    hub.api_faults.append(Fault(200, UNTOLD, b" " * 20_000_000))
    with held_bytes_below(3_000_000), pytest.raises(Unreachable, match="does not answer as a model hub"):
        client.info("o/n", "main")


def test_lists_of_files_without_end(hub: HubServer, client: HubClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_client, "MAX_FILES", 3)
    commit = hub.add("o/n", {f"{number}.txt": b"x" for number in range(4)})
    with pytest.raises(Unreachable, match="the list of files of o/n does not end"):
        client.tree("o/n", commit)


def test_an_answer_that_is_nested_too_deeply(hub: HubServer, client: HubClient) -> None:
    hub.add("o/n", {"m.gguf": GGUF})
    hub.api_faults.append(Fault(200, body=b"[" * 200_000))
    with pytest.raises(Unreachable, match="does not answer as a model hub"):
        client.info("o/n", "main")


def test_an_answer_that_breaks_off_is_asked_for_again(hub: HubServer, client: HubClient, delays: list[float]) -> None:
    commit = hub.add("o/n", {"m.gguf": GGUF})
    hub.api_faults.append(Fault(200, {"content-length": "100", "connection": "close"}, b'{"sha": '))
    assert client.info("o/n", "main").commit == commit
    assert len(delays) == 1


def test_a_renamed_repository_is_followed(hub: HubServer, client: HubClient) -> None:
    hub.add("new/name", {"m.gguf": GGUF})
    hub.renamed["old/name"] = "new/name"
    offer = ask(client, parse_name("old/name"))
    assert offer.info.repo == "new/name"
    assert [file.path for file in offer.choice.files] == ["m.gguf"]


def test_the_token_goes_to_the_hub_and_nowhere_else(
    hub: HubServer, client_with: Callable[[str], HubClient], store: Store
) -> None:
    hub.granted.add("hf_secret")
    files = {"m.gguf": GGUF, "config.json": b"{}"}
    hub.add("o/n", files, is_gated=True, is_private=True)
    pull(client_with("hf_secret"), store, parse_name("o/n"), lambda event: None)
    assert hub.requests("store")
    assert all("authorization" not in seen.headers for seen in hub.requests("store"))
    assert all(seen.headers["authorization"] == "Bearer hf_secret" for seen in hub.requests("hub"))


@pytest.mark.parametrize(
    ("token", "error", "words"),
    [
        ("", AccessDenied, "o/gated is gated: accept its terms at .*/o/gated, then set HF_TOKEN"),
        ("hf_other", AccessDenied, "gated, and the account of the token in HF_TOKEN has no access yet: ask for it at"),
        ("hf_wrong", AccessDenied, "refuses the token of HF_TOKEN"),
    ],
)
def test_gated(
    token: str, error: type[HubError], words: str, hub: HubServer, client_with: Callable[[str], HubClient], store: Store
) -> None:
    hub.known_tokens.add("hf_other")
    hub.add("o/gated", {"m.gguf": GGUF}, is_gated=True)
    with pytest.raises(error, match=words) as caught:
        pull(client_with(token), store, parse_name("o/gated"), lambda event: None)
    assert caught.value.exit_code == 2
    assert "hf_" not in str(caught.value).replace("hf_secret", "")


@pytest.mark.parametrize(
    ("name", "token", "words"),
    [
        ("o/none", "", "has no model o/none that is public .a private one needs HF_TOKEN."),
        ("o/private", "", "has no model o/private that is public"),
        ("o/none", "hf_other", "has no model o/none that the token may read"),
        ("o/n@v9", "", "o/n has no such revision: revision v9"),
    ],
)
def test_what_the_hub_has_not(
    name: str, token: str, words: str, hub: HubServer, client_with: Callable[[str], HubClient]
) -> None:
    hub.known_tokens.add("hf_other")
    hub.add("o/n", {"m.gguf": GGUF})
    hub.add("o/private", {"m.gguf": GGUF}, is_private=True)
    with pytest.raises(NoSuchModel, match=words):
        ask(client_with(token), parse_name(name))


def test_a_file_that_went(hub: HubServer, client: HubClient) -> None:
    commit = hub.add("o/n", {"m.gguf": GGUF})
    with (
        pytest.raises(NoSuchModel, match=r"o/n has no x\.gguf"),
        client.open("o/n", commit, RemoteFile("x.gguf", 1, "sha256:" + "0" * 64), 0, ""),
    ):
        pass


def test_a_busy_hub_is_asked_again(hub: HubServer, client: HubClient, delays: list[float]) -> None:
    hub.add("o/n", {"m.gguf": GGUF})
    hub.api_faults += [Fault(status=503), Fault(status=429, headers={"retry-after": "7"})]
    assert client.info("o/n", "main")
    assert 0.5 <= delays[0] <= 1.0
    assert delays[1] == 7.0


def test_a_hub_that_stays_busy(hub: HubServer, client: HubClient) -> None:
    hub.api_faults += [Fault(status=502)] * 3
    with pytest.raises(Unreachable, match="answers 502; gave up after 3 attempts"):
        client.info("o/n", "main")


def test_what_is_no_hub(hub: HubServer, client: HubClient) -> None:
    hub.api_faults += [Fault(status=200, headers={"content-type": "text/html"})]
    with pytest.raises(Unreachable, match="does not answer as a model hub"):
        client.info("o/n", "main")


def test_a_hub_that_sends_in_circles(hub: HubServer, client: HubClient) -> None:
    hub.renamed["o/n"] = "o/n"
    with pytest.raises(Unreachable, match="in circles"):
        client.info("o/n", "main")


def test_no_hub_at_all(free_port: Callable[[], int], delays: list[float]) -> None:
    with (
        HubClient(Access(f"http://127.0.0.1:{free_port()}"), sleep=delays.append) as client,
        pytest.raises(Unreachable, match=r"cannot be reached: .*refused.*; gave up after 3 attempts"),
    ):
        client.info("o/n", "main")
    assert len(delays) == 2


def test_a_proxy_is_used(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy that knows only one answer: it must have been asked."""
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{proxy.getsockname()[1]}")
        monkeypatch.setenv("NO_PROXY", "")
        asked: list[bytes] = []

        def serve() -> None:
            connection, _ = proxy.accept()
            with connection:
                asked.append(connection.recv(4096))
                body = b'{"sha": "%b", "id": "o/n"}' % (b"a" * 40)
                connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))

        thread = threading.Thread(target=serve)
        thread.start()
        with HubClient(Access("http://hub.example")) as client:
            assert client.info("o/n", "main").commit == "a" * 40
        thread.join()
    assert asked[0].startswith(b"GET http://hub.example/api/models/o/n/revision/main ")


def test_settings_that_cannot_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "socks9://x:1")
    with pytest.raises(BackendError, match="the settings of the network cannot be used"):
        HubClient(Access())


def test_paths_that_lead_elsewhere_are_refused() -> None:
    good = {"type": "file", "oid": "0" * 40, "size": 1, "path": "a/b.json"}
    assert [file.path for file in read_tree([good, {"type": "directory", "path": "a"}])] == ["a/b.json"]
    for path in ("../x", "/etc/x", "a/../../x", "a//b", "", "a\\b", "a\nb", "x" * 300, None, 3):
        assert not is_safe(path)
        with pytest.raises(Unreachable, match="unsafe path"):
            read_tree([{**good, "path": path}])


@pytest.mark.parametrize("change", [{"size": -1}, {"size": "1"}, {"oid": "short"}, {"oid": None}, {"lfs": {"size": 1}}])
def test_a_list_that_cannot_be_checked_against(change: dict[str, object]) -> None:
    with pytest.raises(Unreachable, match="cannot be read"):
        read_tree([{"type": "file", "oid": "0" * 40, "size": 1, "path": "a", **change}])


def test_answers_of_another_shape() -> None:
    for content in ({}, [], {"sha": 5}, {"sha": "../x"}, "x"):
        with pytest.raises(Unreachable):
            read_info(content, "o/n")
    with pytest.raises(Unreachable, match="not a list"):
        read_tree({"error": "x"})
