"""Round trips between places on Earth, and how many of the peers live where.

Round trips: the 95th percentile over the 30 days up to 2026-07-30, between Azure's regions, mean of the two
directions; https://learn.microsoft.com/azure/networking/azure-network-latency. The way from a home to the
next data centre is not in them. Within a region: to the next other region of the same area (US East to
US East 2, …), and where there is none within about 1000 km an assumption, marked so below.

Shares: guided by where IPFS's peers were in 2021 and 2022, most of them in the United States and in China
(Trautwein et al., "Design and Evaluation of IPFS", SIGCOMM 2022), and by how many people are on line; they
are plausible, not measured.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Geography:
    """Regions, the share of the nodes in each (all together 1), and the round trips in ms between any two."""

    regions: tuple[str, ...]
    shares: tuple[float, ...]
    half: tuple[tuple[float, ...], ...]  # ms; row i has the regions 0..i, the last one is within region i

    def rtt_ms(self, one: int, other: int) -> float:
        """Milliseconds there and back between two regions, by their place in `regions`."""
        return self.half[one][other] if other <= one else self.half[other][one]


_WORLD = Geography(
    regions=(
        "us-east",  # Azure: East US
        "us-west",  # West US 2
        "south-america",  # Brazil South; within it: an assumption
        "europe-west",  # West Europe
        "europe-east",  # Poland Central
        "africa",  # South Africa North
        "middle-east",  # UAE North
        "india",  # Central India
        "south-east-asia",  # Southeast Asia
        "china",  # East Asia; within it: an assumption
        "korea",  # Korea Central
        "oceania",  # Australia East
    ),
    shares=(0.16, 0.125, 0.03, 0.2, 0.06, 0.01, 0.01, 0.03, 0.04, 0.25, 0.067, 0.018),
    half=(
        (11,),
        (76, 26),
        (120, 179, 20),
        (90, 150, 190, 10),
        (108, 169, 212, 28, 19),
        (226, 285, 327, 171, 199, 24),
        (191, 256, 291, 124, 139, 105, 8),
        (216, 218, 320, 153, 169, 134, 35, 24),
        (229, 165, 337, 182, 202, 201, 89, 59, 10),
        (208, 145, 315, 279, 249, 272, 120, 96, 41, 30),
        (192, 128, 293, 267, 287, 253, 153, 127, 72, 42, 10),
        (207, 180, 298, 282, 300, 348, 181, 152, 98, 128, 135, 16),
    ),
)

_EUROPE = Geography(
    regions=(
        "ireland",  # North Europe; within it: an assumption
        "england",  # UK South
        "france",  # France Central
        "spain",  # Spain Central; an assumption
        "benelux",  # West Europe
        "germany",  # Germany West Central
        "italy",  # Italy North; an assumption
        "austria",  # Austria East; an assumption
        "poland",  # Poland Central; an assumption
        "scandinavia",  # Sweden Central
    ),
    shares=(0.02, 0.17, 0.16, 0.11, 0.08, 0.2, 0.11, 0.03, 0.07, 0.05),
    half=(
        (10,),
        (15, 9),
        (21, 13, 15),
        (35, 27, 22, 10),
        (20, 13, 15, 30, 10),
        (29, 20, 14, 31, 14, 12),
        (41, 32, 26, 38, 29, 20, 10),
        (39, 30, 24, 40, 25, 17, 20, 10),
        (39, 34, 34, 50, 28, 26, 32, 19, 10),
        (39, 35, 42, 56, 31, 33, 45, 40, 29, 16),
    ),
)

PRESETS = {"world": _WORLD, "europe": _EUROPE}
