from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from gateway.exits import UNABLE
from gateway.home import Home, HomeError, RunInfo


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path / "deep" / "home")
    home.ensure()
    return home


def test_where_it_is() -> None:
    assert Home.from_env({"FORGEGATE_HOME": "/x/y"}).root == Path("/x/y")
    assert Home.from_env({}).root == Path("~/.local/share/forgegate").expanduser()


def test_the_token_is_made_once_and_private(home: Home) -> None:
    assert home.read_token() == ""
    token = home.admin_token()
    assert len(token) > 40
    assert home.admin_token() == token == home.read_token()
    assert stat.S_IMODE(home.token_file.stat().st_mode) == 0o600


def test_a_home_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("")
    with pytest.raises(HomeError, match=r"cannot be written .*set FORGEGATE_HOME") as caught:
        Home(tmp_path / "home").ensure()
    assert caught.value.exit_code == UNABLE


def test_a_full_disk() -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    with pytest.raises(HomeError, match="the disk is full"):
        raise Home(Path("/x"))._cannot(_full())


def _full() -> OSError:
    try:
        with open("/dev/full", "w") as file:
            file.write("x")
            file.flush()
    except OSError as exc:
        return exc
    raise AssertionError


def test_one_control_process_per_home(home: Home) -> None:
    fd = home.lock()
    home.announce(RunInfo(os.getpid(), "http://a", "http://b"))
    with pytest.raises(HomeError, match=f"already running .*pid {os.getpid()}, http://a"):
        home.lock()
    os.close(fd)
    os.close(home.lock())


def test_a_run_that_died_is_not_running(home: Home) -> None:
    assert home.running() is None
    home.announce(RunInfo(2**22 + 1, "a", "b"))
    assert home.running() is None
    (home.run / "serve.json").write_text(json.dumps({"pid": 1}))
    assert home.running() is None
    home.announce(RunInfo(os.getpid(), "a", "b"))
    assert home.running() == RunInfo(os.getpid(), "a", "b")
    home.withdraw()
    home.withdraw()
    assert home.running() is None
