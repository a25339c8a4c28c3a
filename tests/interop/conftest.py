"""The other implementations as fixtures: installed when a test first asks for them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.interop.installed import Implementation, NotInstallable, install_js, install_py


def _installed(install: Callable[[], Implementation]) -> Implementation:
    try:
        return install()
    except NotInstallable as exc:
        pytest.skip(str(exc))


@pytest.fixture(scope="session")
def js() -> Implementation:
    """js-libp2p."""
    return _installed(install_js)


@pytest.fixture(scope="session")
def py() -> Implementation:
    """py-libp2p."""
    return _installed(install_py)


@pytest.fixture(scope="session")
def js_node(js: Implementation) -> list[str]:
    """The command that runs the js-libp2p node over TCP and noise."""
    return list(js.command)
