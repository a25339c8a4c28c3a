"""Bugs planted in a copy of the tree: swarm testing finds each, and the command that it prints repeats it.

Each is of a kind that tests of single machines rarely find. `seed` is the first one, or a quick one, that
finds it; all are within 200, and one is searched for from the beginning, as the command line does it.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from sim.fuzz.plan import draw_plan

pytestmark = pytest.mark.timeout(600)

ROOT = Path(__file__).parents[2]
ROOMS = ("p2p", "federated", "plugins", "sim")
WITHIN = 200  # seeds
TIMEOUT = 120  # seconds of one command; a bug that it does not survive is not found by it

TRACE = "its trace differs with PYTHONHASHSEED"
DELIVERY = "messages published in calm reach"
ENDS = "every DHT operation ends"


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """A bug: in a module of `package`, `good` becomes `bad`; `seed` finds it and says `said`."""

    package: str
    good: str
    bad: str
    seed: int
    said: str
    peers: int = 20


MUTANTS = {
    "iteration over a set of ids": Mutant(
        package="p2p/gossipsub",
        good="self._rng.sample(others, min(",
        bad="self._rng.sample(list(set(others)), min(",
        seed=8,
        said=TRACE,
    ),
    "a forgotten deadline: of a request of the DHT": Mutant(
        package="p2p/kad",
        good="return next(iter(self._deadlines.values()), None)",
        bad="return None",
        seed=71,
        said=ENDS,
    ),
    "a wrong window: yamux gives credit too late": Mutant(
        package="p2p/yamux",
        good="return 2 * self.consumed >= self.window and",
        bad="return self.consumed > self.window and",
        seed=53,
        said=DELIVERY,
        peers=8,
    ),
    "a lost wake-up: of the heartbeat's timer": Mutant(
        package="p2p/gossipsub",
        good="            self._rearm.set()\n",
        bad="            pass\n",
        seed=4,
        said=DELIVERY,
    ),
    "a lost wake-up: of a stream whose window opened": Mutant(
        package="p2p/yamux",
        good="                if stream := streams.get(stream_id):\n                    stream.wake()\n",
        bad="                pass\n",
        seed=124,
        said=DELIVERY,
        peers=8,
    ),
    "dropped on reconnect: the link of a peer that returns": Mutant(
        package="p2p/gossipsub",
        good="link = self._links.pop(peer, None)",
        bad="link = self._links.get(peer)",
        seed=2,
        said=DELIVERY,
        peers=8,
    ),
    "a mesh keeps who is gone": Mutant(
        package="p2p/gossipsub",
        good="                self._mesh.remove(peer)\n                self._gossip.remove(peer)\n",
        bad="                self._gossip.remove(peer)\n",
        seed=6,
        said="no exception escapes from a node",
    ),
    "what is passed on is not kept for those who ask": Mutant(
        package="p2p/gossipsub",
        good="            self._history.put(message_id, message)\n            floodsub",
        bad="            floodsub",
        seed=4,
        said=DELIVERY,
    ),
    "a put that nobody takes never ends": Mutant(
        package="p2p/kad",
        good="        if not self._deadlines:\n            actions.append(self._finish(",
        bad="        if self._taken and not self._deadlines:\n            actions.append(self._finish(",
        seed=71,
        said=ENDS,
    ),
    "the journal is not synced before a commitment is sent": Mutant(
        package="federated",
        good="                self._file.write(self.end, data)\n                self._file.sync()\n",
        bad="                self._file.write(self.end, data)\n",
        seed=57,
        said="no honest node accuses another",
    ),
    "a connection that is lost stays in the table": Mutant(
        package="p2p",
        good="            del self.connections[connection.peer]\n            self.manager",
        bad="            self.manager",
        seed=85,
        said=DELIVERY,
        peers=10,
    ),
    "identify goes unanswered": Mutant(
        package="p2p/identify",
        good="            if admitted:\n                self._planner",
        bad="            if not admitted:\n                self._planner",
        seed=4,
        said=DELIVERY,
    ),
}


def planted(mutant: Mutant, folder: Path) -> Path:
    """A copy of the tree with the bug in it."""
    for room in ROOMS:
        shutil.copytree(ROOT / room, folder / room)  # with what is compiled: it need not be again
    texts = {path: path.read_text(encoding="utf-8") for path in (folder / mutant.package).glob("*.py")}
    counts = {path: count for path, text in texts.items() if (count := text.count(mutant.good))}
    assert list(counts.values()) == [1], f"the code has changed: plant the bug where it is now: {counts}"
    [path] = counts
    path.write_text(texts[path].replace(mutant.good, mutant.bad), encoding="utf-8")
    return folder


QUIET = ("--no-report", "--workers", "2")


def run(tree: Path, words: list[str], options: Sequence[str] = QUIET) -> tuple[int, dict[str, Any], str]:
    """Exit status, last line and what was said of a command of `python -m sim` in that tree."""
    assert words[:3] == ["python", "-m", "sim"]
    done = subprocess.run(
        [sys.executable, *words[1:], "--json", *options],
        cwd=tree,
        env={**os.environ, "PYTHONPATH": str(tree)},
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout.splitlines()[-1]), done.stderr


@cache
def holds_as_it_is(command: str) -> bool:
    """Whether the command finds nothing in the tree as it is."""
    return run(ROOT, shlex.split(command))[0] == 0


def found(tree: Path, first: int, seeds: int, peers: int) -> dict[str, Any]:
    """The first failing seed that `fuzz` finds in a tree, as JSON has it and as people read it."""
    words = ["python", "-m", "sim", "fuzz", "--first", str(first), "--seeds", str(seeds)]
    status, last, said = run(tree, [*words, "--peers", str(peers)])
    assert status == 1, "the bug was not found"
    [finding] = last["failing"]
    assert f"seed {finding['seed']} fails: {'; '.join(finding['reasons'])}" in said
    assert f"repeat with: {finding['repeat']}\n" in said
    return dict(finding)


@pytest.mark.parametrize("name", MUTANTS)
def test_a_planted_bug_is_found_and_repeated_by_one_command(name: str, tmp_path: Path) -> None:
    mutant = MUTANTS[name]
    assert mutant.seed <= WITHIN
    tree = planted(mutant, tmp_path)
    finding = found(tree, mutant.seed, 1, mutant.peers)
    assert finding["seed"] == mutant.seed
    assert any(mutant.said in reason for reason in finding["reasons"]), finding["reasons"]
    status, last, _ = run(tree, shlex.split(finding["repeat"]))
    assert (status, last["failing"]) == (1, [finding])
    assert holds_as_it_is(finding["repeat"])


def test_a_planted_bug_is_found_from_the_first_seed_on(tmp_path: Path) -> None:
    tree = planted(MUTANTS["a lost wake-up: of the heartbeat's timer"], tmp_path)
    finding = found(tree, 1, WITHIN, 20)
    assert any(DELIVERY in reason for reason in finding["reasons"])
    assert holds_as_it_is(finding["repeat"])


def test_a_failing_seed_leaves_a_smaller_plan_to_replay(tmp_path: Path) -> None:
    mutant = MUTANTS["a mesh keeps who is gone"]
    tree = planted(mutant, tmp_path)
    words = ["python", "-m", "sim", "fuzz", "--seeds", "1", "--first", str(mutant.seed)]
    status, last, said = run(tree, words, ("--out", str(tmp_path / "plans"), "--workers", "2"))
    [finding] = last["failing"]
    assert status == 1
    assert f"a smaller plan that fails: {finding['replay']}\n" in said
    plan = json.loads(Path(finding["plan"]).read_text(encoding="utf-8"))["scenario"]
    assert plan["peers"] < 20
    assert len(plan["faults"]) < len(draw_plan(mutant.seed).faults)
    replay = shlex.split(finding["replay"])
    assert run(tree, replay, ())[0] == 1
    assert run(ROOT, replay, ())[0] == 0


def test_ctrl_c_ends_a_search_at_once_and_without_a_traceback() -> None:
    words = [sys.executable, "-m", "sim", "fuzz", "--seeds", "1000", "--workers", "2"]
    with subprocess.Popen(
        words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as search:
        with pytest.raises(subprocess.TimeoutExpired):
            search.wait(3.0)
        os.killpg(search.pid, signal.SIGINT)
        out, err = search.communicate(timeout=30)
    assert (search.returncode, out) == (130, "")
    assert err.endswith("sim: interrupted\n")
    assert "Traceback" not in err


def test_all_rungs_find_bugs() -> None:
    plans = [draw_plan(mutant.seed, peers=mutant.peers) for mutant in MUTANTS.values()]
    assert {plan.rung for plan in plans} == {"cores", "light", "full"}
