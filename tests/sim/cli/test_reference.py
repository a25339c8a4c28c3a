"""The reference of scenarios is what the models say."""

from __future__ import annotations

from pathlib import Path

from sim.scenario.model import Model
from tests.sim.cli.reference import PARTS, comments, document

ROOT = Path(__file__).parents[3]


def test_the_reference_is_up_to_date() -> None:
    page = (ROOT / "docs/reference/scenarios.md").read_text(encoding="utf-8")
    assert page == document(), "python -m tests.sim.cli.reference > docs/reference/scenarios.md"


def test_every_field_of_every_part_is_in_it() -> None:
    page = document()
    for _, part in PARTS:
        assert issubclass(part, Model)
        for name in part.model_fields:
            assert f"| `{name}` |" in page or name in ("faults",)
        assert set(part.model_fields) <= set(comments(part))
