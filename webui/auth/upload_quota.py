"""Limits the disk space of uploads: for each visitor, for each address, and in all.

Each folder of the upload folder counts for every visitor and every address that uploaded it, with the files that the
page made from it. An upload reserves its size before its first byte is stored. Programs without a cookie are distinguished
by their address.
"""

import os
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from ipaddress import ip_address, ip_network
from pathlib import Path

from webui.i18n import _

MB = 1024 * 1024
TOTAL_BYTES = 800 * MB
"""The page's /tmp has 1 GiB."""
FILE_OVERHEAD_BYTES = 16 * 1024
"""A small file uses a page of memory and its entries in the page's tables."""


class QuotaExceeded(Exception):
    """`summary` and `advice` are for the visitor, as in UserError."""

    def __init__(self, status: int, summary: str, advice: str) -> None:
        super().__init__(summary)
        self.status = status
        self.summary = summary
        self.advice = advice


def payers_of(owner: str, address: str, is_shared: bool) -> tuple[str, str]:
    """Returns the visitor and the address that an upload counts for. `is_shared`: many programs are this owner."""
    try:
        found = ip_address(address)
        network = str(found if found.version == 4 else ip_network(f"{found}/64", strict=False))
    except ValueError:
        network = address
    return f"visitor {owner} {network if is_shared else ''}", f"address {network}"


class UploadQuota:
    def __init__(self, visitor_bytes: int = 200 * MB, total_bytes: int = TOTAL_BYTES) -> None:
        self.visitor_bytes = visitor_bytes
        self.total_bytes = total_bytes
        self._lock = threading.Lock()
        self._payers: dict[Path, set[str]] = {}
        self._reserved: Counter[str] = Counter()
        self._reserved_bytes = 0
        self._current: ContextVar[tuple[str, ...]] = ContextVar("payers", default=())

    @contextmanager
    def paying(self, payers: tuple[str, ...]) -> Iterator[None]:
        """Sets who pays for files that are made inside the block, and in threads and tasks started there."""
        token = self._current.set(payers)
        try:
            yield
        finally:
            self._current.reset(token)

    def charge(self, folder: Path) -> None:
        """Lets the current visitor pay for a folder of uploads."""
        with self._lock:
            self._payers.setdefault(folder, set()).update(self._current.get())

    @contextmanager
    def reserving(self, needed_bytes: int, folder: Path) -> Iterator[None]:
        """Reserves space in the upload `folder` for the current visitor. Raises QuotaExceeded."""
        payers = self._current.get()
        with self._lock:
            self._check(needed_bytes, payers, folder)
            self._reserved_bytes += needed_bytes
            self._reserved.update(dict.fromkeys(payers, needed_bytes))
        try:
            yield
        finally:
            with self._lock:
                self._reserved_bytes -= needed_bytes
                self._reserved.subtract(dict.fromkeys(payers, needed_bytes))
                self._reserved = +self._reserved

    def _check(self, needed_bytes: int, payers: tuple[str, ...], folder: Path) -> None:
        used = used_bytes(folder)
        self._payers = {each: who for each, who in self._payers.items() if each in used}
        limits = (self.visitor_bytes, max(self.visitor_bytes, self.total_bytes // 2))
        for payer, limit, status in zip(payers, limits, (413, 429), strict=False):
            own = sum(size for each, size in used.items() if payer in self._payers.get(each, ()))
            if own + self._reserved[payer] + needed_bytes > limit:
                sentence = (
                    _("Your files on this page would exceed {limit} MB.", limit=limit // MB)
                    if status == 413
                    else _("The files of all visitors at your address would exceed {limit} MB.", limit=limit // MB)
                )
                raise QuotaExceeded(status, sentence, _("Start a new chat or remove files, then attach it again."))
        if sum(used.values()) + self._reserved_bytes + needed_bytes > self.total_bytes:
            raise QuotaExceeded(507, _("The page has no space for more files."), _("Try again later."))


def used_bytes(folder: Path) -> dict[Path, int]:
    """Returns the size of each folder in the upload folder. Files directly in it are being received, and reserved."""
    used = {}
    try:
        entries = [Path(entry.path) for entry in os.scandir(folder) if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return {}
    for each in entries:
        try:
            files = [entry.stat(follow_symlinks=False).st_size for entry in os.scandir(each)]
        except OSError:  # deleted since
            continue
        used[each] = sum(files) + FILE_OVERHEAD_BYTES * (1 + len(files))
    return used


SHARED_QUOTA = UploadQuota()
