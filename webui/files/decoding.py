"""Limits the memory for decoding: a file of a few kilobytes can decode to hundreds of megabytes.

The size is taken from the file's header before anything is decoded. All users share one budget in bytes; when it is
used up, further files wait. Files are read in threads, so waiting does not block anything else.
"""

import ctypes
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from webui.i18n import N_, _
from webui.user_error import UserError

MAX_PIXELS = 50_000_000
"""Maximum pixels of an image, and of a frame of a video."""
MAX_DECODED_BYTES = 600_000_000
"""Maximum memory for all decoding at the same time. The container has 2 GB, which include the uploads."""
MAX_WAIT_S = 60.0
BYTES_A_PIXEL = 12
"""Four bytes for the decoded image, four for RGB or RGBA, four while it is scaled down."""
M_MMAP_THRESHOLD, MMAP_FROM_BYTES = -3, 1024 * 1024
SCALE_DOWN = N_("Scale it down, then attach it again.")


class DecodeBudget:
    def __init__(self, total_bytes: int, wait_s: float = MAX_WAIT_S) -> None:
        self._available_bytes = self._total_bytes = total_bytes
        self._wait_s = wait_s
        self._changed = threading.Condition()
        self._of_thread = threading.local()

    @contextmanager
    def holding(self, bytes_needed: int) -> Iterator[None]:
        """Reserves memory; waits until it is available. Raises UserError after the timeout.

        A request above the total gets the whole budget. A nested call in the same thread reserves nothing, because two
        threads that each hold a part and wait for more would deadlock.
        """
        if getattr(self._of_thread, "holds", False):
            yield
            return
        share = min(bytes_needed, self._total_bytes)
        with self._changed:
            if not self._changed.wait_for(lambda: self._available_bytes >= share, self._wait_s):
                raise UserError(_("The page is busy with large files of other users."), _("Try again in a minute."))
            self._available_bytes -= share
        self._of_thread.holds = True
        try:
            yield
        finally:
            self._of_thread.holds = False
            with self._changed:
                self._available_bytes += share
                self._changed.notify_all()


SHARED_BUDGET = DecodeBudget(MAX_DECODED_BYTES)


def return_freed_memory() -> None:
    """Makes glibc return the memory of decoded images to the system when they are freed.

    Otherwise, after the first large image, glibc keeps such blocks for reuse, separately in each thread: six images
    that were decoded one after the other in six threads held 2.5 GB.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # only glibc has it
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, MMAP_FROM_BYTES)


def check_pixels(name: str, width: int, height: int) -> int:
    """Returns the number of pixels. Raises UserError if it exceeds MAX_PIXELS."""
    if width * height > MAX_PIXELS:
        raise too_large_error(name, (width, height))
    return width * height


def too_large_error(name: str, size: tuple[int, int] | None = None) -> UserError:
    sides = f" ({size[0]} × {size[1]})" if size else ""
    return UserError(
        _(
            "{name} has too many pixels{sides}; the limit is {limit} million.",
            name=name,
            sides=sides,
            limit=MAX_PIXELS // 1_000_000,
        ),
        _(SCALE_DOWN),
    )
