"""The byte layout of a held record: round trips, fixed offsets, refusals."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from featurestore.online.codec import HEADER_BYTES, decode_values, encode_values, pack, pack_row, stored_of, unpack
from featurestore.records import DELETED, HARD, OFFLINE, ONLINE, Row, Stored
from foundation.errors import Conflict, InvalidInput

INT64 = st.integers(-(2**63), 2**63 - 1)
PLAIN = st.recursive(
    st.none() | st.booleans() | INT64 | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
STORED = st.builds(
    Stored,
    event_time=INT64,
    rank=INT64,
    expires_at=INT64,
    version=st.integers(0, 2**16 - 1),
    flags=st.integers(0, 15),
    barrier=st.just(0) | INT64,
    write_time=INT64,
    payload=st.binary(max_size=60),
)


@given(STORED)
def test_unpack_gives_back_what_pack_laid_out(stored):
    data = pack(stored)
    assert unpack(data) == stored
    assert isinstance(unpack(data), Stored)
    assert len(data) == HEADER_BYTES + (8 if stored.barrier else 0) + len(stored.payload)


@given(st.lists(PLAIN, max_size=8))
def test_values_round_trip(values):
    payload = encode_values(values)
    assert payload
    assert decode_values(payload) == values


def test_value_types_survive():
    values = [1, 1.0, True, None, "", "naïve 名 \x00", [1, [2.5, None]], {"a": {"b": []}}, -(2**63), 2**63 - 1]
    back = decode_values(encode_values(values))
    assert [type(value) for value in back] == [type(value) for value in values]
    assert back == values


def test_no_values_and_an_empty_payload_are_both_an_empty_list():
    assert decode_values(encode_values([])) == []
    assert decode_values(b"") == []


def test_the_header_is_where_the_script_looks():
    stored = Stored(-5, 77, 9, 3, ONLINE | OFFLINE, 0, 123456, b"xyz")
    data = pack(stored)
    assert data[:4] == b"\xb1\x0c\x00\x03"
    assert struct.unpack(">qqqq", data[8:40]) == (-5, 77, 9, 123456)
    assert pack(stored._replace(barrier=6))[40:] == struct.pack(">q", 6) + b"xyz"


@pytest.mark.parametrize("flags", [ONLINE, ONLINE | DELETED, ONLINE | DELETED | HARD])
def test_a_row_packs_as_its_stored_form_and_a_tombstone_carries_no_values(flags):
    row = Row(b"k", 10, -4, flags, 20, None, 30, 31, 2, ["k", 1.5])
    stored = stored_of(row)
    assert pack_row(row) == pack(stored)
    assert stored == Stored(10, -4, 20, 2, flags, 0, 30, b"" if flags & DELETED else encode_values(["k", 1.5]))


@pytest.mark.parametrize("value", [2**70, object(), "\ud800", 1j])
def test_values_outside_the_plain_types_are_refused(value):
    with pytest.raises(InvalidInput, match="cannot be stored"):
        encode_values([value])


@pytest.mark.parametrize("field", [{"version": 70_000}, {"flags": 300}, {"event_time": 2**63}, {"barrier": -(2**64)}])
def test_fields_beyond_their_width_are_refused(field):
    with pytest.raises(InvalidInput, match="does not fit"):
        pack(Stored(1, 2, 3, 4, 5, 0, 6, b"")._replace(**field))


def test_damaged_bytes_are_named_not_guessed():
    whole = pack(Stored(1, 2, 3, 4, 5, 9, 6, b""))
    for length in (0, 1, 39, 40, 47):
        with pytest.raises(Conflict, match="bytes"):
            unpack(whole[:length])
    with pytest.raises(Conflict, match="format is 0x00"):
        unpack(b"\x00" + whole[1:])
    with pytest.raises(Conflict, match="extensions 0x3"):
        unpack(whole[:4] + b"\x00\x00\x00\x03" + whole[8:])
    with pytest.raises(Conflict, match="values cannot be read"):
        decode_values(b"\x81\xa1a\x01")
    with pytest.raises(Conflict, match="values cannot be read"):
        decode_values(b"\x93\x01")
