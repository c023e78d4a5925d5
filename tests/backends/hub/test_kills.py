"""The short form of the campaign: see campaign.py."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.backends.hub.campaign import Campaign, make_hub
from tests.hub_server import HubServer


@pytest.mark.e2e
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_pull_killed_at_random_points_leaves_files_whole_or_absent(tmp_path: Path) -> None:
    draw = random.Random(2)
    with HubServer() as hub:
        make_hub(hub, draw, scale=100_000)
        tally = Campaign(hub, tmp_path, draw).run(25)
    assert tally.num_kills == 25
    assert tally.num_whole_models >= 3
    assert tally.stages["in a file"] >= 5
    # What was sent twice are the bytes that a killed process had not yet written, and the small files.
    assert tally.sent_bytes < tally.needed_bytes + 25 * 130_000
