import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2p.kad.namespaces import InvalidRecord, Namespaces, content_key, sign_value
from p2p.kad.records import (
    MAX_AGE,
    MAX_PER_PEER,
    MAX_RATES,
    MAX_RECORDS,
    PUT_BURST,
    PUT_RATE,
    OutdatedRecord,
    RecordRefused,
    RecordStore,
    rfc3339,
)
from p2p.kad.wire import Record
from tests.kad.peers import peer
from tests.support import key_number

WALL = 1_700_000_000.5
DATE = b"2023-11-14T22:13:20.500000Z"


def content(number):
    value = b"value %d" % number
    return Record(key=content_key(value), value=value)


def signed(seq, by=1):
    key, value = sign_value(key_number(by), "x", seq, b"%d" % seq)
    return Record(key=key, value=value)


def store_of(records, source=None, now=0.0):
    store = RecordStore(Namespaces())
    for record in records:
        store.put(record, source, now, WALL)
    return store


def filled(sources, each, now=0.0):
    """A store with `each` records of every one of `sources`."""
    store = RecordStore(Namespaces())
    for source in sources:
        for number in range(each):
            store.put(content(source * 1000 + number), peer(source), now, WALL)
    return store


def held(store, source, count, now=0.0):
    return [number for number in range(count) if store.get(content(source * 1000 + number).key, now)]


def test_a_record_is_held_with_the_date_on_which_it_came():
    record = content(1)
    dated = Record(key=record.key, value=record.value, received=b"1999-01-01T00:00:00Z")
    store = store_of([dated], peer(1))
    assert store.get(record.key, 1.0) == Record(key=record.key, value=record.value, received=DATE)
    assert store.get(b"/v/other", 1.0) is None


def test_dates_are_written_as_rfc_3339_has_them():
    assert rfc3339(WALL) == DATE
    assert rfc3339(0) == b"1970-01-01T00:00:00.000000Z"


@pytest.mark.parametrize(
    "record", [Record(key=b"/x/y", value=b"z"), Record(key=content_key(b"a"), value=b"b")]
)
def test_an_invalid_record_is_refused(record):
    with pytest.raises(InvalidRecord):
        store_of([record], peer(1))


def test_an_older_value_never_replaces_a_newer_one():
    store = store_of([signed(5)], peer(1))
    with pytest.raises(OutdatedRecord):
        store.put(signed(4), peer(2), 1.0, WALL)
    store.put(signed(6), peer(3), 1.0, WALL)
    assert store.get(signed(0).key, 1.0).value == signed(6).value
    assert len(store) == 1


def test_a_record_is_gone_after_two_days():
    store = store_of([content(1)], peer(1))
    assert store.get(content(1).key, MAX_AGE - 1) is not None
    assert store.get(content(1).key, MAX_AGE) is None
    store.expire(MAX_AGE - 1)
    assert len(store) == 1
    store.expire(MAX_AGE)
    assert len(store) == 0


def test_a_record_that_is_put_again_lives_longer():
    store = store_of([content(1)], peer(1))
    store.put(content(1), peer(2), 1000.0, WALL)
    assert store.get(content(1).key, MAX_AGE + 999) is not None


def test_a_value_that_is_too_old_does_not_keep_out_an_older_one():
    store = store_of([signed(5)], peer(1))
    store.put(signed(4), peer(1), MAX_AGE, WALL)
    assert store.get(signed(0).key, MAX_AGE).value == signed(4).value


def test_one_peer_has_its_limit():
    store = filled([1], MAX_PER_PEER)
    with pytest.raises(RecordRefused, match="one peer"):
        store.put(content(9), peer(1), 100.0, WALL)
    store.put(content(9), peer(2), 100.0, WALL)
    store.put(content(1000), peer(1), 100.0, WALL)  # it may renew what it has
    assert len(store) == MAX_PER_PEER + 1


def test_a_full_store_takes_from_those_with_the_most_for_those_with_less():
    greedy = MAX_RECORDS // MAX_PER_PEER
    store = filled(range(1, greedy + 1), MAX_PER_PEER)
    store.put(content(1), peer(100), 0.0, WALL)
    assert len(store) == MAX_RECORDS
    assert held(store, 1, MAX_PER_PEER) == list(range(1, MAX_PER_PEER))
    assert store.get(content(1).key, 0.0) is not None


def test_a_full_store_that_is_shared_fairly_refuses():
    store = filled(range(1, MAX_RECORDS // 4 + 1), 4)
    for number in range(3):
        store.put(content(number), peer(100_000), 0.0, WALL)
    with pytest.raises(RecordRefused, match="taken"):
        store.put(content(9), peer(100_000), 0.0, WALL)
    assert len(store) == MAX_RECORDS


def test_a_full_store_first_forgets_what_is_too_old():
    store = filled(range(1, MAX_RECORDS // 2 + 1), 2)
    store.put(content(1), peer(1), MAX_AGE, WALL)
    assert len(store) == 1


def test_our_own_records_take_nobody_s_room_and_are_never_displaced():
    store = filled(range(1, MAX_RECORDS // MAX_PER_PEER + 1), MAX_PER_PEER)
    for number in range(10):
        store.put(content(number), None, 0.0, WALL)
    assert len(store) == MAX_RECORDS + 10
    for number in range(100, 100 + MAX_PER_PEER // 2):
        store.put(content(number), peer(100), 0.0, WALL)
    assert held(store, 0, 10) == list(range(10))


def test_our_own_records_stay():
    store = store_of([content(1)])
    store.expire(100 * MAX_AGE)
    assert store.get(content(1).key, 100 * MAX_AGE) is not None


def test_a_record_of_a_peer_that_we_put_too_is_ours():
    store = store_of([signed(1)], peer(1))
    store.put(signed(1), None, 0.0, WALL)
    store.put(signed(2), peer(2), 0.0, WALL)
    assert store._count == 0
    assert store._sources == {}


def test_a_flood_is_cut_off_before_anything_is_verified(monkeypatch):
    store = filled([1], 0)
    for _ in range(PUT_BURST):
        with pytest.raises(InvalidRecord):
            store.put(Record(key=content_key(b""), value=b"x"), peer(1), 0.0, WALL)
    monkeypatch.setattr(store.namespaces, "validate", None)
    for _ in range(100):
        with pytest.raises(RecordRefused, match="requests a second"):
            store.put(content(1), peer(1), 0.0, WALL)


def test_after_a_flood_a_few_a_second_are_let_in():
    store = filled([1], 0)
    for _ in range(PUT_BURST):
        store.put(content(1), peer(1), 0.0, WALL)
    store.put(content(1), peer(2), 0.0, WALL)
    for number in range(3):
        now = (number + 1) * 1.01 / PUT_RATE
        store.put(content(1), peer(1), now, WALL)
        with pytest.raises(RecordRefused):
            store.put(content(1), peer(1), now, WALL)


def test_the_peers_whose_rate_is_remembered_are_few():
    store = filled([], 0)
    for number in range(MAX_RATES + 10):
        store.put(content(1), peer(number), 0.0, WALL)
    assert len(store._rates) == MAX_RATES


operations = st.lists(
    st.tuples(st.integers(0, 5), st.integers(0, 9), st.floats(0, MAX_AGE / 4, allow_nan=False)), max_size=60
)


@settings(max_examples=60, deadline=None)
@given(operations)
def test_the_books_always_balance(steps):
    limits = {"MAX_RECORDS": 12, "MAX_PER_PEER": 5}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in limits.items():
            patch.setattr(f"p2p.kad.records.{name}", value)
        store, now, newest = RecordStore(Namespaces()), 0.0, {}
        for source, number, later in steps:
            now += later
            record = signed(number) if number < 3 else content(source * 10 + number)
            before = store.get(record.key, now)
            try:
                store.put(record, peer(source) if source else None, now, WALL)
                newest[record.key] = record.value
            except OutdatedRecord:
                assert before is not None
            except RecordRefused:
                assert before is None
            counted = [(key, who) for who, keys in store._sources.items() for key in keys]
            assert len(counted) == store._count <= 12
            assert all(store._held[key].source == who for key, who in counted)
            assert all(0 < len(keys) <= 5 for keys in store._sources.values())
            others = [one for one in store._held.values() if one.source is not None]
            assert len(others) == store._count
            assert all(one.record.value == newest[key] for key, one in store._held.items())
