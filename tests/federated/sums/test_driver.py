"""Tasks with secure sums over the whole stack: what comes out, in spite of liars, losses and restarts."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from federated import codec
from federated.driver import open_task
from federated.errors import PluginError
from federated.manifest import DifferentialPrivacy, PluginRef, RoundPolicy, SecureSums, TaskManifest
from federated.standing import Standing
from federated.sums import driver
from federated.sums.documents import Attestation, Opening, head
from federated.sums.past import StepSoFar
from federated.sums.situation import Situation
from federated.sums.steps import Terms
from p2p.blobs.errors import BlobUnavailable
from p2p.peer_id import PeerId
from tests.federated import tiny
from tests.federated.lab import (
    JOB,
    Lab,
    ModelledCompute,
    assert_agreed,
    open_lab,
    peer_number,
    start_with,
    tiny_manifest,
)

MEMBERS = (1, 2, 3, 4, 5)
SEED = 3.0  # the first model
SUMS = SecureSums(range=8.0, holders=5)


def manifest(count: int = 5, **changes: Any) -> TaskManifest:
    return tiny_manifest(count, **{"rounds": 3, "sums": SUMS, **changes})


def points(lab: Lab) -> dict[int, float]:
    """The number that each member pulls towards, by the member's."""
    ids = lab.manifest.peer_ids
    return {number: float(ids.index(peer_number(number))) for number in range(1, len(ids) + 1)}


def weights_after(lab: Lab, number: int, member: int = 1) -> float:
    """What the model of a round is, at a member: all its weights are the same."""
    digest = lab.rounds(member)[number]["digest"]
    for root in lab.store(member).roots():
        data = lab.store(member).get(root)
        try:
            model = codec.decode_any(data or b"", 1 << 16)
        except codec.CodecError:
            continue
        if tiny.digest_of(model) == digest:
            assert len(set(model["w"].tolist())) == 1
            return float(model["w"][0])
    raise AssertionError(f"the model of round {number} is not in the store")


def pulled(start: float, goals: list[float]) -> float:
    """Half of the way to the mean."""
    return start + sum((goal - start) / 2 for goal in goals) / len(goals)


async def finish(lab: Lab, *members: int) -> None:
    async with open_lab(lab, *members):
        await lab.until_finished(*members)


async def test_the_model_is_the_mean_of_updates_that_nobody_saw(autojump_clock: MockClock) -> None:
    lab = Lab(manifest(rounds=6))
    await finish(lab, *MEMBERS)
    assert_agreed(lab, 6)
    goals, expected = list(points(lab).values()), SEED
    for number in (3, 6):
        expected = pulled(expected, goals)
        assert weights_after(lab, number) == pytest.approx(expected, abs=1e-6)
    digests = [lab.rounds(1)[number]["digest"] for number in range(1, 7)]
    assert digests[0] == digests[1] != digests[2] == digests[3] == digests[4] != digests[5]
    told = [lab.rounds(1)[number]["sums"] for number in (1, 2, 3)]
    assert told[0] == {"mode": "private", "step": "deal", "result": "dealt", "holders": 5}
    assert told[1] == {**told[0], "step": "attest", "result": "attested", "dealings": 5}
    opened: dict[str, Any] = {"step": "open", "result": "opened", "summed": 5, "groups": 1}
    opened |= {"wrong": [], "left_out": []}
    assert told[2] == {**told[1], **opened}
    accuracies = [lab.rounds(1)[number]["accuracy"] for number in range(1, 7)]
    assert accuracies[0] == accuracies[1] != accuracies[2] == accuracies[3]
    assert None not in accuracies
    standing = Standing(lab.manifest)
    assert (standing.summary()["mode"], standing.summary()["sums"]) == ("private", None)
    for report in lab.reports[2]:
        standing.handle(report)
    assert standing.summary()["sums"] == lab.rounds(2)[6]["sums"]


# Liars

Change = Callable[..., Any]


def lying(monkeypatch: pytest.MonkeyPatch, name: str, change: Change) -> None:
    """Has what the driver calls `name` changed: `change` gets its arguments, and what it came to."""
    honest = getattr(driver, name)
    monkeypatch.setattr(driver, name, lambda *args: change(honest(*args), *args))


def opens_something_else(monkeypatch: pytest.MonkeyPatch, liar: PeerId) -> None:
    honest = driver.encode_opening

    def encode(number: int, author: PeerId, opening: Opening) -> bytes:
        if author == liar:
            opening = Opening(tuple((total + 1) % 1000 for total in opening.sums))
        return honest(number, author, opening)

    monkeypatch.setattr(driver, "encode_opening", encode)


def attests_what_it_does_not_have(monkeypatch: pytest.MonkeyPatch, liar: PeerId) -> None:
    honest = driver.encode_attestation

    def encode(number: int, author: PeerId, dealings: int, attestation: Attestation) -> bytes:
        if author == liar:
            attestation = Attestation(dict.fromkeys(range(dealings), (1, 2)))
        return honest(number, author, dealings, attestation)

    monkeypatch.setattr(driver, "encode_attestation", encode)


def attests_nothing(monkeypatch: pytest.MonkeyPatch, liar: PeerId) -> None:
    lying(
        monkeypatch,
        "encode_attestation",
        lambda data, number, author, *_: head(driver.ATTEST, number, author) if author == liar else data,
    )


def sends_no_document(monkeypatch: pytest.MonkeyPatch, liar: PeerId) -> None:
    lying(
        monkeypatch,
        "encode_opening",
        lambda data, number, author, *_: b"no document" if author == liar else data,
    )


@pytest.mark.parametrize(
    "lie", [opens_something_else, attests_what_it_does_not_have, attests_nothing, sends_no_document]
)
async def test_one_bad_holder_of_five_changes_nothing(
    autojump_clock: MockClock,
    monkeypatch: pytest.MonkeyPatch,
    lie: Callable[[pytest.MonkeyPatch, PeerId], None],
) -> None:
    lab = Lab(manifest())
    lie(monkeypatch, peer_number(2))
    await finish(lab, *MEMBERS)
    assert_agreed(lab, 3)
    told = lab.rounds(1)[3]["sums"]
    assert told["result"] == "opened"
    assert told["wrong"] == ([str(peer_number(2))] if lie is opens_something_else else [])
    assert weights_after(lab, 3) == pytest.approx(pulled(SEED, list(points(lab).values())), abs=1e-6)


def deals_no_shares(sealed: list[bytes], terms: Terms, *_: object) -> list[bytes]:
    return [bytes(len(share)) for share in sealed]


def deals_to_some(sealed: list[bytes], *_: object) -> list[bytes]:
    return [sealed[0], *(bytes(len(share)) for share in sealed[1:2]), *sealed[2:]]


def deals_another_polynomial(sealed: list[bytes], *args: Any) -> list[bytes]:
    terms, dealer, delta, _ = args
    other = REAL_DEAL(terms, dealer, {name: array + 1 for name, array in delta.items()}, bytes(32))
    return [*itertools.islice(other, 2), *sealed[2:]]


REAL_DEAL = driver.deal


@pytest.mark.parametrize("deed", [deals_no_shares, deals_to_some, deals_another_polynomial])
async def test_a_bad_dealer_is_left_out(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, deed: Callable[..., list[bytes]]
) -> None:
    lab = Lab(manifest())
    bad = peer_number(4)
    lying(
        monkeypatch,
        "deal",
        lambda sealed, terms, dealer, *rest: (
            iter(deed(list(sealed), terms, dealer, *rest)) if dealer == bad else sealed
        ),
    )
    await finish(lab, *MEMBERS)
    assert_agreed(lab, 3)
    assert lab.rounds(1)[3]["sums"]["summed"] == 4
    assert lab.rounds(1)[3]["sums"]["left_out"] == [str(bad)]
    goals = [goal for number, goal in points(lab).items() if number != 4]
    assert weights_after(lab, 3) == pytest.approx(pulled(SEED, goals), abs=1e-6)


async def test_a_liar_moves_a_sum_no_further_than_the_range(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without groups it does move it: nobody sees its update."""
    lab = Lab(manifest())
    async with open_lab(lab, 1, 2, 3, 4) as nursery:
        await nursery.start(start_with, lab, 5, tiny.registry(pull="Huge"))
        await lab.until_finished(*MEMBERS)
    goals = [goal for number, goal in points(lab).items() if number != 5]
    expected = SEED + (sum((goal - SEED) / 2 for goal in goals) + 8.0) / 5
    assert weights_after(lab, 3) == pytest.approx(expected, abs=1e-6)


async def test_a_robust_rule_over_groups_leaves_out_the_group_of_a_liar(autojump_clock: MockClock) -> None:
    everybody = tuple(range(1, 10))
    lab = Lab(
        manifest(
            9,
            aggregator=PluginRef(name="median"),
            sums=SecureSums(range=100.0, holders=5, group=3),
        )
    )
    async with open_lab(lab, *everybody[:-1]) as nursery:
        await nursery.start(start_with, lab, 9, tiny.registry(pull="Huge"))
        await lab.until_finished(*everybody)
    assert_agreed(lab, 3)
    assert lab.rounds(1)[3]["sums"]["groups"] == 3
    assert 0 < weights_after(lab, 3) < 8  # a mean of all would be beyond 10


async def test_means_that_the_validator_refuses_do_not_count(autojump_clock: MockClock) -> None:
    check = PluginRef(name="update-check", settings={"max_norm": 20.0, "max_ratio": 10.0})
    lab = Lab(manifest(validator=check, sums=SecureSums(range=1000.0, holders=5)))
    async with open_lab(lab, 1, 2, 3, 4) as nursery:
        await nursery.start(start_with, lab, 5, tiny.registry(pull="Huge"))
        await lab.until_finished(*MEMBERS)
    assert_agreed(lab, 3)
    assert lab.rounds(1)[3]["sums"]["result"] == "void"
    assert weights_after(lab, 3) == SEED


@pytest.mark.parametrize(("share", "idle"), [(0.2, (3, 4, 5)), (1.0, ())])
async def test_a_sum_of_fewer_than_there_should_be_is_not_opened(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, share: float, idle: tuple[int, ...]
) -> None:
    """Two dealers would know each other's updates; and all five are wanted, of whom one deals no shares."""
    bad = peer_number(4)
    lying(
        monkeypatch,
        "deal",
        lambda sealed, _, dealer, *rest: iter([bytes(len(it)) for it in sealed]) if dealer == bad else sealed,
    )
    policy = RoundPolicy(train_deadline_s=20.0, phase_deadline_s=5.0, min_updates=share)
    lab = Lab(manifest(policy=policy))
    async with open_lab(lab, *(number for number in MEMBERS if number not in idle)) as nursery:
        for number in idle:
            await nursery.start(start_with, lab, number, tiny.registry(pull="Raises"))
        await lab.until_finished(*MEMBERS)
    told = lab.rounds(1)[3]["sums"]
    assert (told["result"], told["dealings"]) == ("void", 5 - len(idle))
    assert weights_after(lab, 3) == SEED


# Losses


async def test_a_holder_that_is_gone_after_the_deal_changes_nothing(autojump_clock: MockClock) -> None:
    lab = Lab(manifest())
    async with open_lab(lab, *MEMBERS):
        await lab.until_round(1, *MEMBERS)
        await lab.members[5].crash()
        await lab.until_finished(1, 2, 3, 4)
    told = lab.rounds(1)[3]["sums"]
    assert (told["result"], told["summed"]) in (("opened", 5), ("opened", 4))  # its shares were here, or not
    goals = [goal for number, goal in points(lab).items() if number != 5 or told["summed"] == 5]
    assert weights_after(lab, 3) == pytest.approx(pulled(SEED, goals), abs=1e-6)


async def test_more_holders_that_are_gone_than_may_be_leave_the_model_as_it_is(
    autojump_clock: MockClock,
) -> None:
    lab = Lab(manifest(7, sums=SecureSums(range=8.0, holders=7)))
    async with open_lab(lab, *range(1, 8)):
        await lab.until_round(2, *range(1, 8))
        for number in (6, 7):
            await lab.members[number].crash()
        await lab.until_finished(*MEMBERS)
    assert_agreed(lab, 3)
    assert lab.rounds(1)[3]["sums"]["result"] == "void"
    assert weights_after(lab, 3) == SEED


async def test_after_a_deal_that_is_skipped_nobody_waits(autojump_clock: MockClock) -> None:
    """Three of five do not train in the first step, so nothing can be attested or opened in it."""
    lab = Lab(manifest())
    async with open_lab(lab, 1, 2) as nursery:
        for number in (3, 4, 5):
            await nursery.start(start_with, lab, number, tiny.registry(pull="Raises"))
        await lab.until_finished(*MEMBERS)
    assert_agreed(lab, 3)
    told = [lab.rounds(1)[number] for number in (1, 2, 3)]
    assert [event["sums"]["result"] for event in told] == ["skipped", "void", "void"]
    assert all(event["seconds"] < 5.0 for event in told[1:])
    assert weights_after(lab, 3) == SEED


async def test_attestations_that_are_skipped_open_nothing(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = [peer_number(number) for number in (3, 4, 5)]
    lying(monkeypatch, "encode_attestation", lambda data, number, author, *_: b"" if author in bad else data)
    monkeypatch.setattr(driver, "head", lambda kind, *rest: b"?" if rest[1] in bad else head(kind, *rest))
    lab = Lab(manifest(policy=RoundPolicy(train_deadline_s=4.0, phase_deadline_s=1.0)))
    await finish(lab, *MEMBERS)
    assert_agreed(lab, 3)
    told = [lab.rounds(1)[number]["sums"]["result"] for number in (1, 2, 3)]
    assert told == ["dealt", "skipped", "skipped"]
    assert {item["rule"] for item in lab.rounds(1)[2]["refused"]} == {"document"}
    assert weights_after(lab, 3) == SEED


async def test_members_that_are_too_few_to_hold_deal_nothing(autojump_clock: MockClock) -> None:
    lab = Lab(manifest(rounds=6))
    async with open_lab(lab, *MEMBERS):
        await lab.until_round(1, *MEMBERS)
        leaver = lab.members[5].task
        assert leaver is not None
        await leaver.leave()
        await lab.until_finished(1, 2, 3, 4)
    assert_agreed(lab, 6)
    told = [lab.rounds(1)[number]["sums"] for number in (4, 5, 6)]
    assert [step["result"] for step in told] == ["void"] * 3
    assert all("holders" not in step for step in told)
    reasons = [event.get("reason") for event in lab.task_events(1)]
    assert "round 4: fewer members are left than make holders, nothing is dealt" in reasons


async def test_who_cannot_know_the_rounds_before_says_nothing(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Member 5 gets nothing of what the blocks before are made of, and the others open the sum without it."""
    honest = StepSoFar._gather

    async def gather(self: StepSoFar, number: int) -> Situation | None:
        if self._me != peer_number(5) or number == 1:
            return await honest(self, number)
        if number == 2:
            raise BlobUnavailable(bytes(32), ["nobody has it"])
        return None

    monkeypatch.setattr(StepSoFar, "_gather", gather)
    lab = Lab(manifest())
    await finish(lab, *MEMBERS)
    assert_agreed(lab, 3)
    assert lab.rounds(1)[3]["sums"]["result"] == "opened"
    assert {item["rule"] for item in lab.rounds(5)[2]["refused"]} == {"step"}
    reasons = [event.get("reason") for event in lab.task_events(5)]
    assert "round 2 has nothing of ours: the rounds before it are not known" in reasons


# Restarts


async def test_a_holder_that_starts_again_opens_the_same_sum(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Killed at some moment of the round that opens: what it says afterwards is what it said before."""
    said: dict[tuple[int, PeerId], dict[bytes, None]] = {}

    def note(data: bytes, number: int, author: PeerId, opening: Opening) -> bytes:
        said.setdefault((number, author), {})[data] = None
        return data

    lying(monkeypatch, "encode_opening", note)
    policy = RoundPolicy(train_deadline_s=20.0, phase_deadline_s=5.0, grace_s=10.0)
    lab = Lab(manifest(policy=policy), tmp_path)
    async with open_lab(lab, *MEMBERS) as nursery:
        await lab.until_round(2, 5)
        await trio.sleep(5 * JOB)  # tests.search.sums has the other moments
        await lab.members[5].crash()
        await nursery.start(lab.run, 5)
        await lab.until_finished(*MEMBERS)
    assert_agreed(lab, 3)
    assert {key: len(found) for key, found in said.items() if len(found) != 1} == {}
    assert len(said) == 5
    assert lab.rounds(1)[3]["sums"]["result"] == "opened"
    assert weights_after(lab, 3) == pytest.approx(pulled(SEED, list(points(lab).values())), abs=1e-6)


async def test_who_comes_back_with_an_empty_store_fetches_what_it_needs(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    policy = RoundPolicy(train_deadline_s=20.0, phase_deadline_s=5.0, grace_s=10.0)
    lab = Lab(manifest(policy=policy), tmp_path)
    async with open_lab(lab, *MEMBERS) as nursery:
        await lab.until_round(2, 5)
        await lab.members[5].crash()
        lab.forget(5)
        await nursery.start(lab.run, 5)
        await lab.until_finished(*MEMBERS)
    assert_agreed(lab, 3)
    assert lab.rounds(5)[3]["sums"]["dealings"] == 5
    assert lab.rounds(1)[3]["sums"]["result"] == "opened"


# What goes with it


async def test_noise_of_its_own_can_be_in_what_a_member_deals(autojump_clock: MockClock) -> None:
    privacy = DifferentialPrivacy(clip=4.0, noise=1.0, delta=1e-5, epsilon=50.0)
    lab = Lab(manifest(privacy=privacy))
    await finish(lab, *MEMBERS)
    assert lab.rounds(1)[3]["sums"]["result"] == "opened"
    assert lab.rounds(1)[3]["privacy"]["updates"] == 1  # in three rounds


async def test_an_update_that_is_not_finite_is_not_dealt(autojump_clock: MockClock) -> None:
    lab = Lab(manifest())
    async with open_lab(lab, 1, 2, 3, 4) as nursery:
        await nursery.start(start_with, lab, 5, tiny.registry(pull="Nan"))
        await lab.until_finished(*MEMBERS)
    reasons = [event.get("reason") for event in lab.task_events(5)]
    assert "round 1 has no update of ours: its w is not finite" in reasons
    assert lab.rounds(1)[3]["sums"]["summed"] == 4


async def test_sums_over_the_limit_of_the_task_are_refused(autojump_clock: MockClock) -> None:
    lab = Lab(manifest(max_update_bytes=215))
    async with open_lab(lab) as nursery:
        member = await nursery.start(start_idle_one, lab)
        with pytest.raises(PluginError, match="the sums of a holder have 216 bytes; raise max_update_bytes"):
            async with open_task(
                member.host,
                member.pubsub,
                member.blobs,
                lab.manifest,
                tiny.registry(),
                None,
                print,
                compute=ModelledCompute,
            ):
                pass


async def start_idle_one(lab: Lab, *, task_status: Any) -> None:
    await lab.run(1, idle=True, task_status=task_status)
