"""An uploaded archive: streamed once, straight into the file that the submission keeps."""

import hashlib
import os
import secrets
import stat
import time
from pathlib import Path
from typing import IO, Any

from django.conf import settings
from django.core.files.uploadedfile import UploadedFile
from django.core.files.uploadhandler import FileUploadHandler, SkipFile
from django.http.multipartparser import MultiPartParser, MultiPartParserError

FIELDS = frozenset({"archive", "file"})
"""The names that the archive's form field may have."""
PART = ".part"


class ArchiveTooLarge(Exception):
    """The archive has more than ``limit`` bytes. Nothing of it was kept."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        super().__init__(f"the archive has more than {limit} bytes")


class UploadedArchive(UploadedFile):  # type: ignore[type-arg]  # generic only in its stubs
    """A complete archive in ``INCOMING_DIR``.

    Closing it, as Django does at the end of the request, removes the file.
    Whoever wants to keep it moves it away first.
    """

    def __init__(self, path: Path, content: IO[bytes], sha256: str, **described: Any) -> None:
        super().__init__(file=content, **described)
        self.path = path
        self.sha256 = sha256

    def temporary_file_path(self) -> str:
        return str(self.path)

    def close(self) -> None:
        super().close()
        self.path.unlink(missing_ok=True)


class ArchiveUploadHandler(FileUploadHandler):
    """Stores the first file named ``archive`` or ``file``; reads past every other one.

    Whatever ends the upload early, no file is left. Raises ``ArchiveTooLarge``
    as soon as the limit is passed, and ``MultiPartParserError`` for a body that
    stops inside the archive.
    """

    chunk_size = 256 * 1024

    def __init__(self, request: Any = None) -> None:
        super().__init__(request)
        self._parsing = False
        self._taken = False
        # Not called "file": Django closes an attribute of that name when it skips
        # another field, and that would be our archive.
        self._content: IO[bytes] | None = None

    def handle_raw_input(
        self,
        input_data: Any,
        META: Any,
        content_length: int,
        boundary: Any,
        encoding: str | None = None,
    ) -> Any:
        """Run Django's parser from here, since it does not tell handlers when it fails.

        A client that leaves raises out of the parser's read, and the half
        written file would stay.
        """
        if self._parsing:
            return None
        self._parsing = True
        try:
            return MultiPartParser(META, input_data, [self], encoding).parse()
        except BaseException:
            self._discard()
            raise

    def new_file(self, *args: Any, **kwargs: Any) -> None:
        super().new_file(*args, **kwargs)
        if self._taken or self.field_name not in FIELDS:
            raise SkipFile
        self._taken = True
        folder = Path(settings.INCOMING_DIR)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._path = folder / f"{secrets.token_hex(16)}{PART}"
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        self._content = os.fdopen(descriptor, "w+b")
        self._digest = hashlib.sha256()
        self._size = 0

    def receive_data_chunk(self, raw_data: bytes, start: int) -> None:
        assert self._content is not None  # noqa: S101 - new_file() skips, or opens it
        self._size += len(raw_data)
        if self._size > settings.MAX_ARCHIVE_BYTES:
            raise ArchiveTooLarge(settings.MAX_ARCHIVE_BYTES)
        self._digest.update(raw_data)
        self._content.write(raw_data)

    def file_complete(self, file_size: int) -> UploadedArchive:
        assert self._content is not None  # noqa: S101 - as above
        self._content.seek(0)  # writes out what is buffered, too: a full disk shows here
        content, self._content = self._content, None
        return UploadedArchive(
            self._path,
            content,
            self._digest.hexdigest(),
            name=self.file_name,
            content_type=self.content_type,
            size=self._size,
            charset=self.charset,
            content_type_extra=self.content_type_extra,
        )

    def upload_interrupted(self) -> None:
        # Django also calls this when the last field was one that we skipped; then
        # the archive is complete, and no longer ours.
        if self._content is not None:
            self._discard()
            raise MultiPartParserError("the body ended inside the archive")

    def _discard(self) -> None:
        if self._content is None:
            return
        content, self._content = self._content, None
        try:
            content.close()
        finally:  # closing writes out what is buffered, and fails on a full disk
            self._path.unlink(missing_ok=True)


def sweep_incoming(folder: Path, older_than_seconds: float) -> int:
    """Remove what killed processes left behind; returns how many files that were.

    An upload in progress keeps its file's time fresh, so ``older_than_seconds`` only has to
    be longer than a client may pause.
    """
    removed = 0
    for path in folder.glob(f"*{PART}"):
        try:
            status = path.lstat()
            if stat.S_ISREG(status.st_mode) and time.time() - status.st_mtime > older_than_seconds:
                path.unlink()
                removed += 1
        except FileNotFoundError:  # its own process was faster
            continue
    return removed
