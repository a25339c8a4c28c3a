"""What this rung does without the drivers for is what the drivers do."""

from __future__ import annotations

import federated.driver
import federated.storage
import federated.work
import p2p.kad.driver
import p2p.kad.refresh
from sim.cores import settings
from sim.task import manifest_of
from tests.sim.cores.bench import Bench


def test_the_settings_are_those_of_the_drivers() -> None:
    kad = p2p.kad.driver
    assert kad.PROTOCOL == settings.KAD_PROTOCOL
    assert p2p.kad.refresh.PARALLEL_LOOKUPS == settings.PARALLEL_LOOKUPS
    for name in ("PROBE_QUEUE", "REFRESH_INTERVAL", "SETTLE"):
        assert getattr(kad, name) == getattr(settings, name)
    assert federated.storage.STORAGE_RETRY == settings.STORAGE_RETRY
    assert federated.work.BROKEN == settings.BROKEN


def test_a_task_has_the_topic_that_the_driver_gives_it() -> None:
    bench = Bench(2, task=[{"members": 2}])
    manifest = manifest_of(bench.scenario.task[0], 1, bench.peers)
    assert federated.driver.topic_of(manifest) == settings.topic_of(manifest)
