"""Text files as their authors left them: any usual encoding, any line ends."""

import codecs
from pathlib import Path

UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
MAX_TEXT_BYTES = 4 * 1024 * 1024


class BadText(Exception):
    """The file cannot be read as text; the message says why and what to do."""


def read_bytes(path: Path, max_bytes: int = MAX_TEXT_BYTES) -> bytes:
    """What is in ``path``, which is held in memory. Raises ``BadText``."""
    if path.is_dir():
        raise BadText("is a folder; it has to be a file")
    if not path.is_file():
        raise BadText("is missing; add it")
    if path.stat().st_size > max_bytes:
        raise BadText(f"is larger than {max_bytes} bytes; make it shorter")
    return path.read_bytes()


def unicode_text(data: bytes) -> str:
    """``data`` read as UTF-8, or as UTF-16 where it is marked so. Raises ``BadText``."""
    try:
        return data.decode("utf-16" if data.startswith(UTF16) else "utf-8-sig")
    except UnicodeDecodeError:
        raise BadText("is not UTF-8 text; save it as UTF-8") from None


def any_text(data: bytes) -> str:
    """``data`` read as text in any case, if need be as western Europe wrote it before Unicode.

    Lines end in a line feed. Raises ``BadText`` for what holds a NUL and therefore is no text.
    """
    try:
        text = unicode_text(data)
    except BadText:
        try:
            text = data.decode("cp1252")
        except UnicodeDecodeError:
            text = data.decode("latin-1")
    if "\0" in text:
        raise BadText("holds a NUL character; save it as UTF-8 text")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def shell_script(data: bytes) -> bytes:
    """``data`` as a shell can run it: without a byte-order mark, lines ending in a line feed.

    Bytes that are no text otherwise stay as they are: a script may carry a payload.
    """
    if data.startswith(UTF16):
        try:
            data = data.decode("utf-16").encode()
        except UnicodeDecodeError:
            raise BadText("is not valid UTF-16; save it as UTF-8") from None
    data = data.removeprefix(codecs.BOM_UTF8)
    return data if b"\0" in data else data.replace(b"\r\n", b"\n")
