"""The memory that windows may grow by: one pool for a host, a share of it for each connection."""

from hypothesis import given
from hypothesis import strategies as st

from p2p.yamux.budget import CONNECTION_WINDOW_MEMORY, HOST_WINDOW_MEMORY, WindowBudget


def test_what_is_reserved_never_passes_the_limit():
    budget = WindowBudget(100)
    assert budget.reserve(60)
    assert not budget.reserve(41)
    assert budget.reserve(40)
    budget.release(60)
    assert budget.reserved == 40
    assert budget.reserve(60)


def test_one_connection_gets_a_share_and_all_together_the_whole():
    host = WindowBudget()
    shares = [host.share() for _ in range(5)]
    assert not shares[0].reserve(CONNECTION_WINDOW_MEMORY + 1)
    assert host.reserved == 0
    assert [share.reserve(CONNECTION_WINDOW_MEMORY) for share in shares] == [True] * 4 + [False]
    assert host.reserved == HOST_WINDOW_MEMORY
    assert shares[4].reserved == 0


def test_a_closed_share_gives_back_everything_once():
    host = WindowBudget(100)
    share = host.share(80)
    assert share.reserve(70)
    share.close()
    share.release(70)  # a stream of the connection that ended later
    assert (host.reserved, share.reserved) == (0, 0)
    assert not share.reserve(1)


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 60)), max_size=60))
def test_the_shares_always_add_up_to_the_whole(steps):
    host = WindowBudget(100)
    shares = [host.share(70) for _ in range(3)]
    for index, size in steps:
        if not shares[index].reserve(size):
            shares[index].release(shares[index].reserved // 2)
        assert host.reserved == sum(share.reserved for share in shares) <= 100
        assert all(0 <= share.reserved <= 70 for share in shares)
