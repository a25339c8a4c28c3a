"""For all tests: Hypothesis never judges by the clock, and nothing is left in the system's folder."""

from __future__ import annotations

import signal
import tempfile
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("atcp", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("atcp")

if (
    signal.getsignal(signal.SIGINT) is signal.SIG_IGN
):  # a shell's background job: programs would ignore it too
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def temporary_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Peers that are killed leave their folders in one of pytest's, which it removes."""
    folder = str(tmp_path_factory.mktemp("temporary"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", folder)
        patch.setattr(tempfile, "tempdir", None)
        yield
