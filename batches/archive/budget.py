"""What unpacking has cost so far, held against the limits."""

from batches.archive.problems import Unreadable
from batches.archive.specs import Limits


class Budget:
    """Counts what really comes out of the archive; what its headers declare is never believed."""

    def __init__(self, limits: Limits, archive_bytes: int) -> None:
        self.limits = limits
        self.archive_bytes = archive_bytes
        self.files = 0
        self.unpacked_bytes = 0

    def spend_file(self) -> None:
        """Pay for one more file or folder."""
        self.files += 1
        self.check_files(self.files)

    def check_files(self, count: int) -> None:
        """Refuse ``count`` files and folders if they are too many."""
        if count > self.limits.max_files:
            raise Unreadable(
                f"holds more than {self.limits.max_files} files and folders; remove what is not needed"
            )

    def spend_bytes(self, count: int) -> None:
        """Pay for ``count`` bytes, before they are written."""
        self.unpacked_bytes += count
        unpacked = self.unpacked_bytes
        if unpacked > self.limits.max_unpacked_bytes:
            raise Unreadable(
                f"unpacks to more than {self.limits.max_unpacked_bytes} bytes; remove what is not needed"
            )
        if (
            unpacked > self.limits.ratio_free_bytes
            and unpacked > self.limits.max_ratio * self.archive_bytes
        ):
            raise Unreadable(
                f"unpacks to more than {self.limits.max_ratio} times its size; "
                "leave out large files that compress to nothing"
            )
