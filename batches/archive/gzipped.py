"""What is inside a gzip file, read in small pieces."""

import zlib
from typing import BinaryIO

from batches.archive.members import CHUNK_BYTES
from batches.archive.problems import Unreadable

GZIP = b"\x1f\x8b"
MAX_STREAMS = 100_000
"""Gzip files may be strung together. Half a gigabyte of empty ones would keep us busy for an hour."""


class Gunzip:
    """A reader whose memory stays flat, whatever the compressed bytes say.

    The standard library's reader goes over the header's free text byte by
    byte in Python, and takes zeros behind the data for padding.
    """

    def __init__(self, source: BinaryIO) -> None:
        self.source = source
        self.streams = 0
        self.pending = b""
        self.ended = False
        self.start(b"")

    def start(self, pending: bytes) -> None:
        self.inflate = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
        self.pending = pending
        self.streams += 1
        if self.streams > MAX_STREAMS:
            raise Unreadable("is made of too many gzip streams; compress it again in one go")

    def read(self, size: int) -> bytes:
        """Up to ``size`` bytes; none only at the end, when everything was checked."""
        while not self.ended:
            self.pending = self.pending or self.source.read(CHUNK_BYTES)
            if not self.pending:
                raise Unreadable("is cut off; upload it again")
            try:
                piece = self.inflate.decompress(self.pending, size)
            except zlib.error:
                raise Unreadable("is damaged: gzip finds an error in it; pack it again") from None
            self.pending = self.inflate.unconsumed_tail
            if self.inflate.eof:
                self.go_on(self.inflate.unused_data)
            if piece:
                return piece
        return b""

    def go_on(self, rest: bytes) -> None:
        """See what follows a finished stream: nothing, or another one."""
        rest = rest if len(rest) >= len(GZIP) else rest + self.source.read(CHUNK_BYTES)
        if not rest:
            self.ended = True
        elif rest.startswith(GZIP):
            self.start(rest)
        else:
            raise Unreadable("has something behind its end that is not gzip; pack it again")
