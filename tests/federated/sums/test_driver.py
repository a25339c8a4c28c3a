from trio.testing import MockClock

from federated.manifest import SecureSums
from tests.federated.lab import Lab, assert_agreed, open_lab, tiny_manifest


async def test_whole(autojump_clock: MockClock) -> None:
    lab = Lab(tiny_manifest(6, rounds=6, sums=SecureSums(range=8.0, holders=5)))
    members = tuple(range(1, 7))
    async with open_lab(lab, *members):
        await lab.until_finished(*members)
    for n, r in lab.rounds(1).items():
        print(n, r["sums"], r["accuracy"], r["skipped"], r["refused"], r["seconds"])
    plain = Lab(tiny_manifest(6, rounds=2))
    async with open_lab(plain, *members):
        await plain.until_finished(*members)
    print(lab.task_events(1))
    for n, r in plain.rounds(1).items():
        print(n, r["accuracy"], r["skipped"], r["refused"])
    assert_agreed(lab, 6)
