from __future__ import annotations

from backends.pause import Pause
from backends.restart import RestartPolicy


def test_a_pause_runs_out_and_the_next_one_is_longer_unless_a_start_went_well() -> None:
    now = 100.0
    pause = Pause(RestartPolicy(first_pause_s=8.0), lambda: now)
    assert pause.is_over
    pause.begin()
    assert (pause.is_over, pause.left_s, pause.retell_s) == (False, 8.0, 5.0)
    now += 6.0
    assert (pause.left_s, pause.retell_s) == (2.0, 2.0)
    now += 2.5
    assert (pause.is_over, pause.left_s) == (True, 0.0)
    pause.begin()
    assert pause.left_s == 16.0
    pause.forget()
    assert pause.is_over
    pause.begin()
    assert pause.left_s == 8.0
