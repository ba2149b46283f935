"""The scheduler: how fast, how many at once, whose turn, and whether again.

Pure policy on a virtual clock (everything but `limiter`), and one async shell (`limiter`). Rule: this room imports the
ground only, and knows neither HTTP nor engines.
"""

from __future__ import annotations

from .call import Call, LimiterState
from .core import Core
from .limiter import Limiter, Ticket, shared_limiter
from .quota import BucketState

__all__ = ["BucketState", "Call", "Core", "Limiter", "LimiterState", "Ticket", "shared_limiter"]
