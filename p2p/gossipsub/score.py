"""What we think of each peer, by what it did: a number that nobody else is told.

    score = min(credit_cap, Σ over topics of P1 + P2) − Σ over topics of (P3 + P3b + P4) + P5 − P6 − P7

    delivered first, time in the mesh → P1, P2      withheld, pruned for it, invalid → P3, P3b, P4
    what the application says → P5                  many from one IP, broken rules → P6, P7

Counters decay once a second. The cap is on the credit alone, and below what withholding costs: with
credit from elsewhere nobody pays for keeping silent in one topic, nor for a flood (CVE-2022-47547).
What a peer did wrong survives its reconnection, its credit does not; while it is away nothing decays.
Source: libp2p/specs pubsub/gossipsub/gossipsub-v1.1.md "Peer Scoring"; Kumar et al. 2022, "Formal
Model-Driven Analysis of Resilience of GossipSub to Attacks from Misbehaving Peers".
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address
from math import inf

from p2p.gossipsub.conduct import Conduct, Rate, decayed
from p2p.gossipsub.params import ScoreParams
from p2p.peer_id import PeerId

MAX_RETAINED = 4096  # peers that left with a penalty; about 2 MiB
MAX_APPLICATION = 4096  # peers that the application has an opinion of
MAX_RATED = 64  # topics whose rate is known; near-first deliveries are counted for these alone
SWEEP_EVERY = 60  # heartbeats after which what is over is forgotten
MAX_STEPS = 5  # seconds that decay at a heartbeat: while nobody is there none comes, and nothing decays

Address = IPv4Address | IPv6Address


class PeerScores:
    """The scores of all peers.

    Credit is worked out when it is asked for. Who has something against it is watched: its score is
    worked out at every heartbeat, and at once when it falls. Of all others it is known to be zero or more.
    """

    def __init__(self, params: ScoreParams) -> None:
        self.params = params
        self._now = -inf  # at the last heartbeat
        self._connected: dict[PeerId, None] = {}
        self._watched: dict[PeerId, None] = {}  # who has something against it: mostly nobody
        self.bad: dict[PeerId, float] = {}  # whose score is below zero; for others to look at
        self._heartbeats = 0
        self._conduct: dict[str, dict[PeerId, Conduct]] = {}  # by topic
        self._penalties: dict[PeerId, float] = {}  # P7's counters, where they are not zero
        self._application: dict[PeerId, float] = {}
        self._address: dict[PeerId, int] = {}  # of those with a public one
        self._colocated: dict[int, int] = {}  # peers at each address
        self._retained: dict[PeerId, float] = {}  # until when to remember who is away, soonest first
        self.rates: dict[str, Rate] = {}  # by topic; for others to see whether there are any

    # What is asked

    def score(self, peer: PeerId) -> float:
        """The score of `peer` at the last heartbeat, or at its last fall; 0 of one that is not connected."""
        return self._work_out(peer) if peer in self._connected else 0.0

    def scores(self) -> dict[PeerId, float]:
        """The scores of all connected peers."""
        return {peer: self._work_out(peer) for peer in self._connected}

    def is_negative(self, peer: PeerId) -> bool:
        """Whether `peer` has no place in a mesh."""
        return peer in self.bad

    def is_graylisted(self, peer: PeerId) -> bool:
        """Whether nothing is to be heard from `peer`."""
        return peer in self.bad and self.bad[peer] < self.params.graylist_threshold

    def graylisted(self) -> list[PeerId]:
        """The peers that nothing is to be heard from."""
        return [peer for peer in self.bad if self.is_graylisted(peer)] if self.bad else []

    def may_gossip(self, peer: PeerId) -> bool:
        """Whether advertisements of and to `peer` count."""
        return peer not in self.bad or self.bad[peer] >= self.params.gossip_threshold

    def may_introduce(self, peer: PeerId) -> bool:
        """Whether peers that `peer` names are worth dialing."""
        return self.score(peer) >= self.params.accept_px_threshold

    def above(self, peers: list[PeerId], threshold: float) -> list[PeerId]:
        """Those of `peers` whose score is not below `threshold`, which is zero or less."""
        if not self.bad:
            return peers
        return [peer for peer in peers if self.bad.get(peer, 0.0) >= threshold]

    def proven(self, peers: list[PeerId]) -> list[PeerId]:
        """Those of `peers` with credit, best first; nobody while nobody is bad: one is as good as another."""
        if not self.bad:
            return []
        scores = {peer: self.score(peer) for peer in peers}
        return sorted((peer for peer in peers if scores[peer] > 0), key=scores.__getitem__, reverse=True)

    # Who comes and goes

    def handle_connected(self, peer: PeerId, address: Address | None) -> None:
        """There is a stream to `peer`, at `address` if it has an IP."""
        self._retained.pop(peer, None)
        self._connected[peer] = None
        self._leave_address(peer)
        if address is not None and address.is_global:  # neighbours of a NAT or a lab are no Sybils
            group = _group(address)
            self._address[peer] = group
            self._colocated[group] = self._colocated.get(group, 0) + 1
            if self._colocated[group] > self.params.colocation_threshold:
                for neighbour in [each for each, place in self._address.items() if place == group]:
                    self._watch(neighbour)
        self._watch(peer)

    def handle_disconnected(self, peer: PeerId, now: float) -> None:
        """`peer` is gone: only what it did wrong is remembered."""
        retained = peer in self._penalties
        for conducts in self._conduct.values():
            conduct = conducts.get(peer)
            if conduct is not None:
                conduct.leave()
                retained = retained or conduct.guilty
                if not conduct.guilty:
                    del conducts[peer]
        self._leave_address(peer)
        for table in (self._connected, self._watched, self.bad):
            table.pop(peer, None)
        if retained:
            self._retain(peer, now)

    def _retain(self, peer: PeerId, now: float) -> None:
        self._retained.pop(peer, None)
        self._retained[peer] = now + self.params.retention
        if len(self._retained) > MAX_RETAINED:
            self._forget(next(iter(self._retained)))

    def _forget(self, peer: PeerId) -> None:
        del self._retained[peer]
        self._penalties.pop(peer, None)
        for conducts in self._conduct.values():
            conducts.pop(peer, None)

    def _leave_address(self, peer: PeerId) -> None:
        group = self._address.pop(peer, None)
        if group is not None:
            self._colocated[group] -= 1
            if not self._colocated[group]:
                del self._colocated[group]

    # What peers do

    def handle_grafted(self, topic: str, peer: PeerId, now: float) -> None:
        """`peer` is in our mesh of `topic`."""
        self._of(topic, peer).since = now

    def handle_pruned(self, topic: str, peer: PeerId) -> None:
        """`peer` is in our mesh of `topic` no more."""
        conduct = self._conduct.get(topic, {}).get(peer)
        if conduct is not None:
            conduct.leave_mesh()
            if conduct.guilty:
                self._watch(peer)

    def handle_first(self, topic: str, peer: PeerId, message_id: bytes, now: float) -> None:
        """`peer` brought a good message before everybody else."""
        conduct = self._of(topic, peer)
        conduct.handle_first(self.params, now)
        if self.rates and topic in self.rates:
            self.rates[topic].handle_first(conduct, peer, message_id, now)

    def handle_copy(self, topic: str, peer: PeerId, message_id: bytes, now: float) -> None:
        """`peer` brought a message that we had."""
        rate = self.rates.get(topic)
        if rate is not None and rate.is_near_first(peer, message_id, now):
            conduct = self._of(topic, peer)
            conduct.deliveries += conduct.since is not None

    def handle_invalid(self, topic: str, peer: PeerId) -> None:
        """`peer` brought a message that nobody may pass on."""
        self._of(topic, peer).invalid += 1.0
        self._watch(peer)

    def handle_misbehaviour(self, peer: PeerId, amount: float, now: float) -> None:
        """`peer` broke a rule of the protocol, `amount` times."""
        self._penalties[peer] = self._penalties.get(peer, 0.0) + amount
        if peer in self._connected:
            self._watch(peer)
        else:
            self._retain(peer, now)

    # What the application says

    def set_application_score(self, peer: PeerId, value: float) -> None:
        """P5 of `peer` from now on, whether it is connected or not; zero forgets it."""
        self._application.pop(peer, None)
        if value:
            self._application[peer] = value
        if len(self._application) > MAX_APPLICATION:
            self.set_application_score(next(iter(self._application)), 0.0)
        if peer in self._connected:
            self._watch(peer)

    def expect_rate(self, topic: str, rate: float) -> bool:
        """Judges mesh peers of `topic` by what they bring, of `rate` messages a second; 0: no longer.

        False when too many topics are judged already.
        """
        if rate <= 0:
            self.rates.pop(topic, None)
            for conduct in self._conduct.get(topic, {}).values():
                conduct.shortfall = 0.0
        elif topic not in self.rates and len(self.rates) >= MAX_RATED:
            return False
        else:
            self.rates[topic] = Rate(self.params, rate)
        return True

    # Time

    def handle_heartbeat(self, now: float) -> None:
        """Lets the seconds since the last heartbeat decay, and works out the scores of who is watched."""
        steps = 0 if self._now == -inf else min(int(now) - int(self._now), MAX_STEPS)
        self._now = now
        for peer, until in list(self._retained.items()):
            if until > now:
                break
            self._forget(peer)
        if self.rates:
            self._judge_members(steps)
        for peer in list(self._watched):
            self._decay(peer, steps)
            self._watch(peer)
        self._heartbeats += 1
        if self._heartbeats % SWEEP_EVERY == 0:
            self._sweep()

    def _judge_members(self, steps: int) -> None:
        """Works out who withholds in the topics whose rate is known."""
        for topic, rate in self.rates.items():
            rate.handle_heartbeat(self._now, steps)
            for peer, conduct in self._conduct.get(topic, {}).items():
                if peer in self._connected:
                    rate.judge(conduct, self._now, steps)
                    if conduct.shortfall:
                        self._watched[peer] = None

    def _decay(self, peer: PeerId, steps: int) -> None:
        """`steps` seconds passed for what counts against `peer`."""
        params = self.params
        for conducts in self._conduct.values():
            if peer in conducts:
                conducts[peer].decay(params, steps)
        if peer in self._penalties:
            left = decayed(self._penalties[peer], params.penalty_decay, steps, params.decay_to_zero)
            if left:
                self._penalties[peer] = left
            else:
                del self._penalties[peer]

    def _sweep(self) -> None:
        """Forgets conduct of which nothing is left."""
        for topic, conducts in list(self._conduct.items()):
            for peer, conduct in list(conducts.items()):
                if conduct.is_blank(self.params, self._now):
                    del conducts[peer]
            if not conducts:
                del self._conduct[topic]

    # Sums

    def _watch(self, peer: PeerId) -> None:
        """Works out the score of `peer`, and again at every heartbeat while something counts against it."""
        if not self._is_suspect(peer):
            self._watched.pop(peer, None)
            self.bad.pop(peer, None)
            return
        self._watched[peer] = None
        score = self._work_out(peer)
        if score < 0:
            self.bad[peer] = score
        else:
            self.bad.pop(peer, None)

    def _is_suspect(self, peer: PeerId) -> bool:
        """Whether anything but credit is in the score of `peer`."""
        if peer in self._penalties or peer in self._application or self._neighbours(peer) > 0:
            return True
        return any(peer in conducts and conducts[peer].guilty for conducts in self._conduct.values())

    def _neighbours(self, peer: PeerId) -> int:
        """How many too many share the address of `peer`."""
        count = self._colocated.get(self._address.get(peer, -1), 0)
        return max(count - self.params.colocation_threshold, 0)

    def _work_out(self, peer: PeerId) -> float:
        params, credit, blame = self.params, 0.0, 0.0
        for conducts in self._conduct.values():
            conduct = conducts.get(peer)
            if conduct is not None:
                credit += conduct.credit(params, self._now)
                if conduct.guilty:
                    blame += conduct.blame(params)
        score = min(credit, params.credit_cap) + blame
        score += params.application_weight * self._application.get(peer, 0.0)
        score += params.colocation_weight * self._neighbours(peer) ** 2
        surplus = self._penalties.get(peer, 0.0) - params.penalty_threshold
        return score + params.penalty_weight * max(surplus, 0.0) ** 2

    def _of(self, topic: str, peer: PeerId) -> Conduct:
        try:
            return self._conduct[topic][peer]  # mostly it is there
        except KeyError:
            conduct = self._conduct.setdefault(topic, {})[peer] = Conduct()
            return conduct


def _group(address: Address) -> int:
    """What counts as one address: of IPv6 a /56, which is what one customer has."""
    if isinstance(address, IPv4Address):
        return int(address)
    return 1 << 128 | int(address) >> 72
