"""What can be set on a host, and what cannot."""

from __future__ import annotations

import dataclasses

import pytest

from p2p.config import HostConfig
from p2p.errors import InvalidInput


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(HostConfig)])
def test_no_number_may_be_zero_or_less_or_nan(field):
    if isinstance(getattr(HostConfig(), field), int | float):
        for value in (0, -1, float("nan")):
            with pytest.raises(InvalidInput, match=field):
                HostConfig(**{field: value})


@pytest.mark.parametrize("security", [(), ("none",), ("noise", "plaintext")])
def test_a_host_is_never_without_encryption(security):
    with pytest.raises(InvalidInput, match="security"):
        HostConfig(security=security)


def test_low_water_is_not_over_high_water():
    with pytest.raises(InvalidInput, match="low_water"):
        HostConfig(low_water=200, high_water=100)


def test_a_configuration_cannot_change_once_it_is_made():
    with pytest.raises(dataclasses.FrozenInstanceError):
        HostConfig().dial_timeout = 1
