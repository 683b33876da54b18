"""SS58 addresses: the hotkeys that say who submits. Knows no Django.

An address is base58 over ``prefix + public key + checksum``. The prefix names
the network (42 stands for any), and the checksum catches a mistyped letter.
SS58 also knows shorter payloads for account indices. They name no key that
could sign, so only 32-byte account ids are accepted here.
"""

import hashlib
import hmac
from collections.abc import Iterable

import base58

KEY_BYTES = 32
CHECKSUM_BYTES = 2
RESERVED_PREFIXES = frozenset({46, 47})
LAST_SIMPLE_PREFIX = 63
LAST_PREFIX = 16383
# The longest text that 2 + 32 + 2 bytes can become. Decoding takes time quadratic in
# the length, so whatever is longer is refused unread.
LONGEST_ADDRESS = 50


class BadAddress(ValueError):
    """The text is not an SS58 account address. The message never repeats it."""


def decode(address: str) -> tuple[int, bytes]:
    """The network prefix and the 32-byte public key, or ``BadAddress``.

    Exactly one text is accepted for each pair: the one that ``encode`` gives.
    """
    if len(address) > LONGEST_ADDRESS:
        raise BadAddress("longer than any SS58 address")
    try:
        raw = base58.b58decode(address)
    except ValueError:  # letters outside the alphabet, or outside ASCII
        raise BadAddress("not base58") from None

    prefix, prefix_bytes = _read_prefix(raw)
    if len(raw) != prefix_bytes + KEY_BYTES + CHECKSUM_BYTES:
        raise BadAddress("not the length of an account address")
    key = raw[prefix_bytes:-CHECKSUM_BYTES]
    # One comparison covers the checksum and every other spelling of the same bytes,
    # such as a small prefix in the two-byte form or blanks around the text.
    if encode(prefix, key) != address:
        raise BadAddress("wrong checksum")
    return prefix, key


def encode(prefix: int, key: bytes) -> str:
    """The one address of ``key`` on the network ``prefix``."""
    if not 0 <= prefix <= LAST_PREFIX or prefix in RESERVED_PREFIXES:
        raise BadAddress("no such network prefix")
    if len(key) != KEY_BYTES:
        raise BadAddress(f"a public key has {KEY_BYTES} bytes")
    payload = _write_prefix(prefix) + key
    return base58.b58encode(payload + _checksum(payload)).decode("ascii")


def is_ss58(address: str) -> bool:
    """Whether ``address`` is a real account address, for any text at all."""
    try:
        decode(address)
    except BadAddress:
        return False
    return True


def authorised(offered: str | None, allowed: Iterable[str]) -> bool:
    """Whether ``offered`` is a real address and one of ``allowed``.

    How long the answer takes says nothing about the allowed ones: every one is
    compared, to the end, whether or not an earlier one matched and whether or
    not the offered text is an address at all.
    """
    text = offered or ""
    well_formed = is_ss58(text)
    fingerprint = _fingerprint(text)
    found = False
    for hotkey in allowed:
        found |= hmac.compare_digest(fingerprint, _fingerprint(hotkey))
    return well_formed and found


def _read_prefix(raw: bytes) -> tuple[int, int]:
    """The prefix and how many bytes it takes."""
    if len(raw) < 2 or raw[0] > 127:
        raise BadAddress("no such network prefix")
    if raw[0] <= LAST_SIMPLE_PREFIX:
        return raw[0], 1
    # Two bytes: 01 and bits 7 to 2 of the number, then bits 1 to 0 and bits 13 to 8.
    low = (raw[0] & 0b0011_1111) << 2 | raw[1] >> 6
    high = raw[1] & 0b0011_1111
    return high << 8 | low, 2


def _write_prefix(prefix: int) -> bytes:
    if prefix <= LAST_SIMPLE_PREFIX:
        return bytes([prefix])
    low, high = prefix & 0xFF, prefix >> 8
    return bytes([0b0100_0000 | low >> 2, (low & 0b11) << 6 | high])


def _checksum(payload: bytes) -> bytes:
    return hashlib.blake2b(b"SS58PRE" + payload).digest()[:CHECKSUM_BYTES]


def _fingerprint(text: str) -> bytes:
    """Of one length for every text: ``compare_digest`` is quicker where the lengths differ."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
