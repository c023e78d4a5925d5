from __future__ import annotations

from tests.backends.life_rig import drive

__all__ = ["drive"]
