"""Signed reports: no byte of one can be changed, and none is another's."""

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import fields, replace

from bus.identity.keys import KeyKind, PublicKey, SigningKey
from bus.identity.signatures import (
    GENESIS,
    LOOK_DOMAIN,
    SignedContext,
    record_hash,
    signed_bytes,
)

KEY = SigningKey.generate(KeyKind.USER)
VERIFIER = PublicKey(KEY.public)
PAYLOAD = b'{"agent_id":"a","uptime_percent":99.5}'
CONTEXT = SignedContext(
    fleet="ACCOUNT",
    agent_id="a",
    key=KEY.public,
    seq=7,
    previous=GENESIS,
    request_hash="00ff",
    ping_id="p-1",
    nonce="n-1",
    boot_id="boot",
    ledger="ledger",
    head="head",
    extends="ledger.head",
)
SIGNED = signed_bytes(CONTEXT, PAYLOAD)
SIGNATURE = KEY.sign(SIGNED)


@given(st.integers(0, len(SIGNED) - 1), st.integers(0, 7))
def test_no_bit_can_be_changed(place, bit):
    changed = bytearray(SIGNED)
    changed[place] ^= 1 << bit
    assert VERIFIER.verifies(SIGNED, SIGNATURE)
    assert not VERIFIER.verifies(bytes(changed), SIGNATURE)


@given(st.sampled_from([field.name for field in fields(SignedContext)]), st.text(max_size=20))
def test_no_field_can_be_exchanged(name, value):
    changed = replace(CONTEXT, **{name: value})
    is_same = getattr(CONTEXT, name) == value
    assert VERIFIER.verifies(signed_bytes(changed, PAYLOAD), SIGNATURE) == is_same


@given(st.text(max_size=10), st.text(max_size=10))
def test_text_cannot_move_from_one_field_to_the_next(first, second):
    here = replace(CONTEXT, ping_id=first + second, nonce="")
    there = replace(CONTEXT, ping_id=first, nonce=second)
    assert (signed_bytes(here, PAYLOAD) == signed_bytes(there, PAYLOAD)) == (second == "")


def test_a_look_is_no_report():
    look = KEY.sign(signed_bytes(CONTEXT, PAYLOAD, LOOK_DOMAIN))
    assert not VERIFIER.verifies(SIGNED, look)


def test_a_report_names_the_one_recorded_before_it():
    first = record_hash(SIGNED, SIGNATURE)
    second = signed_bytes(replace(CONTEXT, seq=8, previous=first), PAYLOAD)
    assert first.encode() in second
    assert record_hash(second, SIGNATURE) != first
