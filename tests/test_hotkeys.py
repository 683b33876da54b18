"""SS58 addresses: what is accepted, what is refused, and who is let in."""

import hashlib
import time

import base58
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batches.hotkeys import BadAddress, authorised, decode, encode, is_ss58

ALICE = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY"
ALICE_KEY = bytes.fromhex("d43593c715fdd31c61141abd04a99fd6822c8558854ccde39a5684e7a56da27d")
DEFAULT = "5GziQCcRpN8NCJktX343brnfuVe3w6gUYieeStXPD1Dag2At"

prefixes = st.integers(0, 16383).filter(lambda prefix: prefix not in (46, 47))
keys = st.binary(min_size=32, max_size=32)


def sealed(payload: bytes) -> str:
    """``payload`` with a right checksum, whatever it holds."""
    checksum = hashlib.blake2b(b"SS58PRE" + payload).digest()[:2]
    return base58.b58encode(payload + checksum).decode()


@pytest.mark.parametrize(
    ("address", "prefix"),
    [
        (ALICE, 42),
        ("15oF4uVJwmo4TdGW7VfQxNLavjCXviqxT9S1MgbjMNHr6Sp5", 0),
        ("HNZata7iMYWmk5RvZRTiAsSDhV8366zq2YGb3tLH5Upf74F", 2),
        ("yGHXkYLYqxijLKKfd9Q2CB9shRVu8rPNBS53wvwGTutYg4zTg", 255),
    ],
)
def test_one_key_has_one_address_on_every_network(address: str, prefix: int) -> None:
    assert decode(address) == (prefix, ALICE_KEY)
    assert encode(prefix, ALICE_KEY) == address


@pytest.mark.parametrize(
    ("address", "prefix"),
    [
        (DEFAULT, 42),
        # Made by other programs, on networks whose prefix takes two bytes.
        ("cLtA6nCDyvwKcEHH4QkZDSHMhS9s78BvUJUsKUbUAn1Jc2SCF", 65),
        ("yGHU8YKprxHbHdEv7oUK4rzMZXtsdhcXVG2CAMyC9WhzhjH2k", 255),
    ],
)
def test_address_from_elsewhere_is_understood(address: str, prefix: int) -> None:
    found, key = decode(address)

    assert (found, len(key), encode(found, key)) == (prefix, 32, address)


@pytest.mark.parametrize(
    ("prefix", "first_bytes"),
    [(0, "00"), (63, "3f"), (64, "5000"), (255, "7fc0"), (256, "4001"), (16383, "7fff")],
)
def test_prefix_is_written_as_the_format_says(prefix: int, first_bytes: str) -> None:
    raw = base58.b58decode(encode(prefix, ALICE_KEY))

    assert raw[: len(first_bytes) // 2].hex() == first_bytes


@given(prefix=prefixes, key=keys)
def test_every_key_comes_back_from_its_address(prefix: int, key: bytes) -> None:
    address = encode(prefix, key)

    assert decode(address) == (prefix, key)
    assert len(address) <= 50


@pytest.mark.parametrize("address", [ALICE, DEFAULT])
def test_typo_in_any_place_is_refused(address: str) -> None:
    # Two bytes of checksum let one typo in 65,536 through by chance, hence one letter a place.
    typos = [
        address[:place] + ("x" if letter != "x" else "y") + address[place + 1 :]
        for place, letter in enumerate(address)
    ]

    assert [typo for typo in typos if is_ss58(typo)] == []


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="nothing"),
        pytest.param("1", id="one zero byte"),
        pytest.param("11", id="two zero bytes"),
        pytest.param(ALICE[:-1], id="cut short"),
        pytest.param(ALICE + "1", id="one letter more"),
        pytest.param("1" + ALICE, id="a leading zero byte"),
        pytest.param(ALICE + " ", id="blank behind"),
        pytest.param(" " + ALICE, id="blank before"),
        pytest.param(ALICE + "\n", id="line break behind"),
        pytest.param(ALICE.lower(), id="lower case"),
        pytest.param(ALICE.replace("5", "٥", 1), id="another script's digit"),
        pytest.param("0OIl" * 12, id="letters outside base58"),
        pytest.param("\ud800" * 48, id="lone surrogates"),
        pytest.param("\x00" * 48, id="zero characters"),
        pytest.param(sealed(b"\x2e" + ALICE_KEY), id="reserved prefix 46"),
        pytest.param(sealed(b"\x2f" + ALICE_KEY), id="reserved prefix 47"),
        pytest.param(sealed(b"\x80" + ALICE_KEY), id="prefix byte above 127"),
        pytest.param(sealed(b"\x4a\x80" + ALICE_KEY), id="42 in the two-byte form"),
        pytest.param(sealed(b"\x2a" + ALICE_KEY[:31]), id="key of 31 bytes"),
        pytest.param(sealed(b"\x2a" + ALICE_KEY + b"\x00"), id="key of 33 bytes"),
        pytest.param("KWCv1L3QX9LDPwY4VzvLmarEmXjVJidUzZcinvVnmxAJJCBou", id="ECDSA key"),
        pytest.param("848Gh2GcGaZia", id="account index"),
        pytest.param("0x" + ALICE_KEY.hex(), id="public key in hex"),
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    assert is_ss58(text) is False


@given(st.text(max_size=60))
def test_refusal_of_any_text_is_calm_and_does_not_repeat_it(text: str) -> None:
    with pytest.raises(BadAddress) as refusal:
        decode(text + "0")  # base58 has no zero: this is never an address by luck

    assert len(text) < 40 or text not in str(refusal.value)


def test_overlong_text_is_refused_unread() -> None:
    started = time.process_time()

    assert is_ss58("5" * 5_000_000) is False

    assert time.process_time() - started < 1  # decoding it would take hours


@pytest.mark.parametrize("prefix", [-1, 46, 47, 16384])
def test_no_address_is_made_for_a_prefix_that_does_not_exist(prefix: int) -> None:
    with pytest.raises(BadAddress, match="no such network prefix"):
        encode(prefix, ALICE_KEY)


@pytest.mark.parametrize("length", [0, 31, 33])
def test_no_address_is_made_for_a_key_of_another_length(length: int) -> None:
    with pytest.raises(BadAddress, match="a public key has 32 bytes"):
        encode(42, b"k" * length)


@pytest.mark.parametrize("offered", [ALICE, DEFAULT])
def test_each_allowed_hotkey_is_let_in(offered: str) -> None:
    assert authorised(offered, [ALICE, DEFAULT]) is True


@pytest.mark.parametrize(
    ("offered", "allowed"),
    [
        pytest.param(None, [ALICE], id="no header"),
        pytest.param("", [ALICE], id="empty header"),
        pytest.param("", [""], id="empty on both sides"),
        pytest.param(DEFAULT, [ALICE], id="another hotkey"),
        pytest.param(DEFAULT, [], id="nobody is allowed"),
        pytest.param(ALICE + " ", [ALICE], id="blank behind"),
        pytest.param(encode(2, ALICE_KEY), [ALICE], id="the same key on another network"),
        pytest.param("letmein", ["letmein"], id="no address, though configured"),
        pytest.param("\ud800", [ALICE], id="lone surrogate"),
    ],
)
def test_everyone_else_is_turned_away(offered: str | None, allowed: list[str]) -> None:
    assert authorised(offered, allowed) is False


@pytest.mark.parametrize("offered", [ALICE, DEFAULT, "letmein", None])
def test_every_allowed_hotkey_is_compared_whatever_is_offered(offered: str | None) -> None:
    allowed = iter([ALICE, DEFAULT])

    authorised(offered, allowed)

    assert list(allowed) == []
