"""The other implementations as a fixture: each is installed when a test first asks for it."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import pytest

from tests.interop.installed import INSTALL, Implementation, NotInstallable


@pytest.fixture(scope="session")
def implementation() -> Callable[[str], Implementation]:
    """The implementation of a name, ready to run; skips the test where it cannot be installed."""

    @cache
    def install(name: str) -> Implementation | str:
        try:
            return INSTALL[name]()
        except NotInstallable as exc:
            return str(exc)

    def installed(name: str) -> Implementation:
        found = install(name)
        if isinstance(found, str):
            pytest.skip(found)
        return found

    return installed


@pytest.fixture(scope="session")
def js_node(implementation: Callable[[str], Implementation]) -> list[str]:
    """The command that runs the js-libp2p node over TCP and noise."""
    return list(implementation("js-libp2p").command)
