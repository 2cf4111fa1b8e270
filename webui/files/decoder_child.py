"""A process that decodes files for the page, with limits of memory and CPU time: `python -m webui.files.decoder_child FD`.

A file of one kilobyte may need days or all memory, and libraries that decode may crash. Then this process ends and the
page continues. It gets requests as JSON on the socket FD, one at a time, and answers with JSON and bytes. The page never
unpickles an answer, because a file may control this process.
"""

import contextlib
import json
import math
import resource
import socket
import struct
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from webui.files import images
from webui.i18n import use_language
from webui.user_error import UserError

MAX_BYTES = 700_000_000
"""Memory for one file, in addition to what the process needs without one."""
SIZES = struct.Struct("!IQ")
"""Precedes a message: the lengths of its JSON and of its bytes."""
Answer = tuple[Any, bytes]


def shrink_image(path: str, longest: int, suffix: str) -> Answer:
    shrunk = images.shrink_image(Path(path), longest)
    if shrunk is None:
        return None, b""
    return [shrunk[1], shrunk[0].size], images.encode_image(shrunk[0], suffix)


def read_image(path: str) -> Answer:
    return None, images.encode_image(images.read_image(Path(path)), ".png")


def count_pages(path: str) -> Answer:
    return images.count_pages(Path(path)), b""


def page_sizes(path: str, longest: int) -> Answer:
    return images.page_sizes(Path(path), longest), b""


def render_page(path: str, number: int, longest: int) -> Answer:
    page_image = images.render_page(Path(path), number, longest)
    return page_image.size, images.encode_image(page_image, ".png")


def probe_video(path: str) -> Answer:
    from webui.files import videos  # OpenCV needs 40 MB

    clip = videos.probe_video(Path(path))
    return [clip.seconds, clip.width, clip.height, clip.frames], b""


def thin_video(path: str, to: str, clip: list[Any], count: int, longest: int) -> Answer:
    from webui.files import videos

    return videos.thin_video(Path(path), Path(to), videos.VideoInfo(*clip), count, longest), b""


OPERATIONS: dict[str, Callable[..., Answer]] = {
    operation.__name__: operation
    for operation in (shrink_image, read_image, count_pages, page_sizes, render_page, probe_video, thin_video)
}


def main() -> None:
    connection = socket.socket(fileno=int(sys.argv[1]))
    _limit_memory()
    while (request := _receive(connection)) is not None:
        _limit_cpu(request["cpu_s"])
        result, data = _run(request)
        text = json.dumps(result).encode()
        connection.sendall(SIZES.pack(len(text), len(data)) + text)
        connection.sendall(data)


def _run(request: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
    try:
        with use_language(request["language"]):
            value, data = OPERATIONS[request["operation"]](*request["arguments"])
            return {"value": value}, data
    except UserError as failure:
        return {"failure": [failure.summary, failure.advice]}, b""
    except Exception as error:
        if isinstance(error, MemoryError) or "memory" in str(error).lower():  # OpenCV has a separate error
            return {"out_of_memory": True}, b""
        frames = traceback.extract_tb(error.__traceback__)
        return {"bug": f"{type(error).__name__} at {frames[-1].filename}:{frames[-1].lineno}"}, b""


def _limit_memory() -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(OSError):  # if the container has no memory left, this process is ended and not the page
        Path("/proc/self/oom_score_adj").write_text("1000")
    lines = Path("/proc/self/status").read_text().splitlines()
    used_bytes = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmData:"))
    resource.setrlimit(resource.RLIMIT_DATA, (used_bytes + MAX_BYTES,) * 2)


def _limit_cpu(cpu_s: int) -> None:
    """The kernel ends this process when it has used so much more CPU time."""
    soft = math.ceil(time.process_time()) + cpu_s
    resource.setrlimit(resource.RLIMIT_CPU, (soft, resource.getrlimit(resource.RLIMIT_CPU)[1]))


def _receive(connection: socket.socket) -> dict[str, Any] | None:
    """Returns the next request; None after the page has gone."""
    head = _read(connection, SIZES.size)
    if not head:
        return None
    request: dict[str, Any] = json.loads(_read(connection, SIZES.unpack(head)[0]))
    return request


def _read(connection: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count and (part := connection.recv(count - len(data))):
        data += part
    return data


if __name__ == "__main__":
    main()
