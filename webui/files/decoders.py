"""Decodes files in child processes (decoder_child.py), so that no file can stop the page or another visitor.

A child that needs more CPU time or memory than a file may have ends, and the visitor gets an error. One visitor never
has all children. A file that ended a child is refused for ten minutes.
"""

import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

from webui.auth import uploads
from webui.files import decoding, images
from webui.files.decoder_child import MAX_BYTES, SIZES
from webui.files.videos import BYTES_A_PIXEL, OPENING_BYTES, VideoInfo
from webui.i18n import N_, _, current_language
from webui.user_error import UserError

WALL_FACTOR, WALL_EXTRA_S = 10, 60
"""On a busy machine a child may wait for a core, which its CPU time does not count."""
REFUSED_S = 600.0
MAX_REFUSED = 1000
DOCUMENT_BYTES = 250_000_000
"""Memory that is reserved while a PDF is open: its largest image and the rendered page."""
MAX_ANSWER_BYTES = MAX_BYTES
MAX_JSON_BYTES = 10_000_000
ATTACH_ANOTHER = N_("Attach another file.")
_logger = logging.getLogger("webui")


class ChildEnded(Exception):
    """`returncode` as in subprocess: the negative number of the signal that ended the child."""

    def __init__(self, returncode: int) -> None:
        super().__init__(returncode)
        self.returncode = returncode


class DecoderChild:
    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair()
        command = [sys.executable, "-m", "webui.files.decoder_child", str(theirs.fileno())]
        # One thread each: their stacks count as memory, and the number of processes in the container is limited.
        threads = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            command,
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **threads},
        )
        theirs.close()

    def run(self, request: dict[str, Any], wall_s: float) -> tuple[dict[str, Any], bytes]:
        """Raises ChildEnded if the child ended or did not answer in time; it is of no use then."""
        self._socket.settimeout(wall_s)
        try:
            text = json.dumps(request).encode()
            self._socket.sendall(SIZES.pack(len(text), 0) + text)
            json_bytes, data_bytes = SIZES.unpack(self._read(SIZES.size))
            if json_bytes > MAX_JSON_BYTES or data_bytes > MAX_ANSWER_BYTES:
                raise OSError("the answer is too long")
            result: dict[str, Any] = json.loads(self._read(json_bytes))
            return result, self._read(data_bytes)
        except (OSError, ValueError) as error:
            if isinstance(error, TimeoutError):
                self.process.send_signal(signal.SIGXCPU)
            raise ChildEnded(self.end()) from None

    def end(self) -> int:
        """Closes the connection, which ends the child. Kills a child that continues, and returns its exit code."""
        self._socket.close()
        try:
            return self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()

    def _read(self, count: int) -> bytes:
        data = bytearray()
        while len(data) < count:
            part = self._socket.recv(min(count - len(data), 1 << 20))
            if not part:
                raise OSError("the child closed the connection")
            data += part
        return bytes(data)


class DecoderPool:
    def __init__(self, size: int = 2, cpu_s: int = 20, wait_s: float = decoding.MAX_WAIT_S) -> None:
        self.size = size
        self.cpu_s = cpu_s
        self._wait_s = wait_s
        self._changed = threading.Condition()
        self._idle: list[DecoderChild] = []
        self._children: set[DecoderChild] = set()
        self._running: Counter[str] = Counter()
        self._refused: dict[Path, tuple[float, UserError]] = {}

    def run(self, operation: str, path: Path, *arguments: Any, needed_bytes: int) -> tuple[Any, bytes]:
        """Runs an operation of decoder_child.py on a file. Raises UserError."""
        until_s, failure = self._refused.get(path.parent, (0.0, None))
        if failure is not None and time.monotonic() < until_s:
            raise failure
        request = {
            "operation": operation,
            "arguments": [str(path), *arguments],
            "language": current_language(),
            "cpu_s": self.cpu_s,
        }
        with self._turn(), decoding.SHARED_BUDGET.holding(needed_bytes):
            with self._changed:
                child = self._idle.pop() if self._idle else None
            child = child or DecoderChild()
            self._children.add(child)
            try:
                result, data = child.run(request, self.cpu_s * WALL_FACTOR + WALL_EXTRA_S)
            except ChildEnded as ended:
                self._children.discard(child)
                raise self._refuse(path, ended.returncode) from None
            with self._changed:
                self._idle.append(child)
        if "failure" in result:
            summary, advice = result["failure"]
            raise UserError(str(summary), str(advice))
        if "out_of_memory" in result:
            raise _memory_error(path.name)
        if "bug" in result:
            _logger.error("decoder_failed", extra={"fields": {"operation": operation, "error": str(result["bug"])}})
            raise UserError(_("{name} cannot be read.", name=path.name), _(ATTACH_ANOTHER))
        return result["value"], data

    def close(self) -> None:
        """Ends all children, also those that decode a file."""
        for child in list(self._children):
            child.process.kill()
        with self._changed:
            idle, self._idle = self._idle, []
        for child in idle:
            child.end()

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """Waits for a child. A visitor may have all children but one."""
        owner = uploads.current_owner()
        most = max(1, self.size - 1)
        with self._changed:
            if not self._changed.wait_for(
                lambda: self._running.total() < self.size and self._running[owner] < most, self._wait_s
            ):
                raise UserError(_("The page is busy with large files of other users."), _("Try again in a minute."))
            self._running[owner] += 1
        try:
            yield
        finally:
            with self._changed:
                self._running[owner] -= 1
                self._running = +self._running
                self._changed.notify_all()

    def _refuse(self, path: Path, returncode: int) -> UserError:
        _logger.warning("decoder_ended", extra={"fields": {"exit_code": returncode}})
        failure = (
            UserError(
                _("{name} takes more than {seconds} s to read.", name=path.name, seconds=self.cpu_s), _(ATTACH_ANOTHER)
            )
            if returncode == -signal.SIGXCPU
            else _memory_error(path.name)
        )
        if uploads.upload_folder() in path.parent.parents:
            self._refused[path.parent] = (time.monotonic() + REFUSED_S, failure)
            while len(self._refused) > MAX_REFUSED:
                self._refused.pop(next(iter(self._refused)), None)
        return failure


def _memory_error(name: str) -> UserError:
    return UserError(_("{name} needs too much memory to read, or is damaged.", name=name), _(ATTACH_ANOTHER))


SHARED_POOL = DecoderPool()


def shrink_image(path: Path, longest: int, suffix: str) -> tuple[bytes, tuple[int, int], tuple[int, int]] | None:
    """Returns the encoded scaled image, its original size and its size; None if it is small enough."""
    needed_bytes = images.decoding_bytes(path)
    sizes, data = SHARED_POOL.run("shrink_image", path, longest, suffix, needed_bytes=needed_bytes)
    return None if sizes is None else (data, _size(sizes[0]), _size(sizes[1]))


def read_image(path: Path) -> Image.Image:
    """Returns the image in RGB, upright, with its longer side at most images.MAX_SIDE pixels."""
    _value, data = SHARED_POOL.run("read_image", path, needed_bytes=images.decoding_bytes(path))
    return Image.open(BytesIO(data), formats=["PNG"])


def count_pages(path: Path) -> int:
    return int(SHARED_POOL.run("count_pages", path, needed_bytes=DOCUMENT_BYTES)[0])


def page_sizes(path: Path, longest: int) -> list[tuple[int, int]]:
    return [_size(each) for each in SHARED_POOL.run("page_sizes", path, longest, needed_bytes=DOCUMENT_BYTES)[0]]


def render_page(path: Path, number: int, longest: int) -> tuple[bytes, tuple[int, int]]:
    """Returns page `number` (from 0) as PNG, and its size."""
    size, data = SHARED_POOL.run("render_page", path, number, longest, needed_bytes=DOCUMENT_BYTES)
    return data, _size(size)


def probe_video(path: Path) -> VideoInfo:
    seconds, width, height, frames = SHARED_POOL.run("probe_video", path, needed_bytes=OPENING_BYTES)[0]
    return VideoInfo(float(seconds), int(width), int(height), int(frames))


def thin_video(path: Path, to: Path, clip: VideoInfo, count: int, longest: int) -> int:
    needed_bytes = max(OPENING_BYTES, clip.width * clip.height * BYTES_A_PIXEL)
    values = [clip.seconds, clip.width, clip.height, clip.frames]
    return int(SHARED_POOL.run("thin_video", path, str(to), values, count, longest, needed_bytes=needed_bytes)[0])


def _size(pair: Any) -> tuple[int, int]:
    return int(pair[0]), int(pair[1])
