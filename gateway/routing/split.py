"""Which version of a split alias a user gets. Pure: the same key and shares give the same version on every worker, with no state.

Weighted rendezvous hashing. Each version draws an exponential variate from hash(version, key), at the rate of its weight;
the smallest wins, which happens with probability weight / sum. Only ratios of weights count. A weight that grows draws
users from the others and sends none away; a version that is added takes its share, and one that is removed gives up its
own. With two versions, no more users move than the shares differ by; with more, at most twice that over one plus that,
which no rule without memory betters in general (https://arxiv.org/abs/1612.01041).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

from gateway.snapshot import Share

_DIGEST_BYTES = 8
_NUM_HASHES = 1 << (8 * _DIGEST_BYTES)


def pick(shares: Sequence[Share], key: bytes) -> Share:
    """Return the share that `key` (a user, a session) belongs to; weights are positive, `shares` is not empty."""
    return min(shares, key=lambda share: _draw(share, key))


def _draw(share: Share, key: bytes) -> float:
    digest = hashlib.blake2b(b"%b\0%b" % (share.adapter.encode(), key), digest_size=_DIGEST_BYTES).digest()
    uniform = (int.from_bytes(digest, "big") + 0.5) / _NUM_HASHES
    return -math.log(uniform) / share.weight
