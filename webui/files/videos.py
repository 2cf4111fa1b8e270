"""Reads a video with OpenCV, as vLLM does, and writes a clip with only the frames for the model.

Engines refuse a frame rate or a frame limit in the request, and a clip of 16 frames has a hundredth of the bytes.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OPENCV_LOG_LEVEL", "OFF")  # before OpenCV is imported: the page itself reports damaged files
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")

import cv2

from webui.files import decoding, vision_tokens
from webui.i18n import N_, _
from webui.user_error import UserError

ATTACH_ANOTHER = N_("Attach another file.")
CODEC = "mp4v"
MAX_FRAMES = 128
OPENING_BYTES = 100_000_000
"""Memory to open a video: FFmpeg decodes some frames before their size is known."""
BYTES_A_PIXEL = 24
"""A frame in BGR, and the earlier frames that the codec refers to."""


@dataclass(frozen=True)
class VideoInfo:
    seconds: float
    width: int
    height: int
    frames: int
    """Number of frames in the file."""


def probe_video(path: Path) -> VideoInfo:
    """Returns the properties of the video. Raises UserError if it cannot be opened or has no frame."""
    if path.stat().st_size == 0:
        raise UserError(_("{name} is empty.", name=path.name), _(ATTACH_ANOTHER))
    with _open_video(path) as video:
        count, per_s = int(video.get(cv2.CAP_PROP_FRAME_COUNT)), video.get(cv2.CAP_PROP_FPS)
        width, height = int(video.get(cv2.CAP_PROP_FRAME_WIDTH)), int(video.get(cv2.CAP_PROP_FRAME_HEIGHT))
        readable = video.isOpened()
    if readable and width >= 1 and height >= 1:
        decoding.check_pixels(path.name, width, height)
        with _open_video(path, width * height * BYTES_A_PIXEL) as video:
            readable = video.grab()
    if not readable or width < 1 or height < 1:
        raise UserError(
            _("{name} is not a video that can be read.", name=path.name),
            _("Attach another file, for example an MP4."),
        )
    if count < 1 or per_s <= 0:  # a WebM from a camera has no duration
        raise UserError(
            _("{name} has no duration in its metadata.", name=path.name), _("Save it as MP4, then attach it again.")
        )
    return VideoInfo(count / per_s, width, height, count)


@contextmanager
def _open_video(path: Path, needed: int = OPENING_BYTES) -> Iterator[cv2.VideoCapture]:
    """Opens the video after reserving `needed` bytes. FFmpeg uses one thread, because each thread holds frames."""
    with decoding.SHARED_BUDGET.holding(needed):
        video = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
        try:
            yield video
        finally:
            video.release()


def thin_video(path: Path, to: Path, clip: VideoInfo, count: int, longest: int) -> int:
    """Writes `count` evenly spaced frames to `to` (MP4) and returns how many could be read.

    The clip has the duration of the video, so that "at second 12" stays correct.
    """
    size = tuple(side + side % 2 for side in vision_tokens.shrink_size(clip.width, clip.height, longest))
    rate = count / clip.seconds
    written = 0
    with _open_video(path, clip.width * clip.height * BYTES_A_PIXEL) as video:
        writer = cv2.VideoWriter(str(to), cv2.VideoWriter.fourcc(*CODEC), rate, (size[0], size[1]))
        try:
            for nth in range(count):
                video.set(cv2.CAP_PROP_POS_FRAMES, int(nth * clip.frames / count))
                is_read, frame = video.read()
                if not is_read or frame.shape[0] * frame.shape[1] > decoding.MAX_PIXELS:  # the frame size may change
                    break
                if (frame.shape[1], frame.shape[0]) != size:
                    frame = cv2.resize(frame, (size[0], size[1]), interpolation=cv2.INTER_AREA)
                writer.write(frame)
                written += 1
        finally:
            writer.release()
    if written == 0:
        to.unlink(missing_ok=True)
        raise UserError(_("{name} is damaged: no frame can be read.", name=path.name), _(ATTACH_ANOTHER))
    return written
