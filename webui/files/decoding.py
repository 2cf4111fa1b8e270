"""How much the page decodes at once: a few kilobytes of a file may unfold to hundreds of megabytes.

Judged from the size that a file says of itself, before anything of it is decoded. All visitors share one sum of bytes; who comes
when it is used up waits. Files are read in threads, so that waiting here stops nothing else.
"""

import ctypes
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from webui.i18n import N_, _
from webui.user_error import UserError

MAX_PIXELS = 50_000_000
"""Of one picture, and of one frame of a video."""
MAX_DECODED_BYTES = 600_000_000
"""Of all that is decoded at a time. The container has 2 GB, with the uploads in them."""
MAX_WAIT_S = 60.0
BYTES_A_PIXEL = 12
"""Four as decoded, four in RGB or RGBA, four while it is scaled down."""
M_MMAP_THRESHOLD, MMAP_FROM_BYTES = -3, 1024 * 1024
SCALE_DOWN = N_("Scale it down, then attach it again.")


class DecodeBudget:
    def __init__(self, total_bytes: int, wait_s: float = MAX_WAIT_S) -> None:
        self._left = self._total_bytes = total_bytes
        self._wait_s = wait_s
        self._changed = threading.Condition()
        self._mine = threading.local()

    @contextmanager
    def holding(self, bytes_needed: int) -> Iterator[None]:
        """Waits until there is room. Raises UserError after the deadline. What needs more than there is gets all of it, alone.

        Inside another one of the same thread it takes nothing: two that hold a part and wait for more would wait for each other.
        """
        if getattr(self._mine, "holds", False):
            yield
            return
        share = min(bytes_needed, self._total_bytes)
        with self._changed:
            if not self._changed.wait_for(lambda: self._left >= share, self._wait_s):
                raise UserError(_("The page is busy with large files of other visitors."), _("Try again in a minute."))
            self._left -= share
        self._mine.holds = True
        try:
            yield
        finally:
            self._mine.holds = False
            with self._changed:
                self._left += share
                self._changed.notify_all()


SHARED_BUDGET = DecodeBudget(MAX_DECODED_BYTES)


def return_freed_memory() -> None:
    """From here on what a decoded picture took goes back to the system when it is freed.

    glibc otherwise learns from the first large picture to keep such blocks, in each thread for itself: six pictures that were
    decoded one after the other in six threads held 2.5 GB.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # glibc's own
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, MMAP_FROM_BYTES)


def check_pixels(name: str, width: int, height: int) -> int:
    """Its pixels. Raises UserError where they are too many."""
    if width * height > MAX_PIXELS:
        raise too_large_error(name, (width, height))
    return width * height


def too_large_error(name: str, found: tuple[int, int] | None = None) -> UserError:
    sides = f" ({found[0]} × {found[1]})" if found else ""
    return UserError(
        _(
            "{name} has too many pixels{sides}; the most is {most} million.",
            name=name,
            sides=sides,
            most=MAX_PIXELS // 1_000_000,
        ),
        _(SCALE_DOWN),
    )
