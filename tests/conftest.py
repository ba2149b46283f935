"""What holds for all tests: an example of hypothesis may take its time, and Ctrl-C means something."""

from __future__ import annotations

import signal

import pytest
from hypothesis import HealthCheck, settings

# Cases that several rooms import explain a failed assertion as those of a test file do.
pytest.register_assert_rewrite("tests.embedded")

settings.register_profile("house", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("house")

# A shell starts its background jobs with SIGINT ignored, and the programs that tests interrupt would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
