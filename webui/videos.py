"""Reads a video with OpenCV, as vLLM does, and keeps of it only the frames a model is to see.

Engines refuse a frame rate or a frame limit in the request, and a clip of 16 frames travels in a hundredth of the bytes.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OPENCV_LOG_LEVEL", "OFF")  # before OpenCV is imported: a damaged file is ours to explain
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")

import cv2

from webui import vision_tokens
from webui.failure import Failure
from webui.language import later, say

ANOTHER = later("Attach another one.")
CODEC = "mp4v"


@dataclass(frozen=True)
class Clip:
    seconds: float
    width: int
    height: int
    frames: int
    """In the file."""


def look(path: Path) -> Clip:
    """What the video is. Raises Failure unless it can be opened and has a frame."""
    if path.stat().st_size == 0:
        raise Failure(say("{name} is empty.", name=path.name), say(ANOTHER))
    video = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    try:
        count, per_s = int(video.get(cv2.CAP_PROP_FRAME_COUNT)), video.get(cv2.CAP_PROP_FPS)
        readable = video.isOpened() and video.grab()
        width, height = int(video.get(cv2.CAP_PROP_FRAME_WIDTH)), int(video.get(cv2.CAP_PROP_FRAME_HEIGHT))
    finally:
        video.release()
    if not readable or width < 1 or height < 1:
        raise Failure(
            say("{name} is not a video that can be read.", name=path.name),
            say("Attach another one, for example an MP4."),
        )
    if count < 1 or per_s <= 0:  # a WebM from a camera does not say
        raise Failure(
            say("{name} does not say how long it is.", name=path.name), say("Save it as MP4, then attach it again.")
        )
    return Clip(count / per_s, width, height, count)


def thinned(path: Path, to: Path, clip: Clip, count: int, longest: int) -> int:
    """Writes `count` frames, evenly spread, to `to` (MP4) and says how many there were to read.

    The clip keeps the video's length, so that "at second 12" stays true.
    """
    size = tuple(side + side % 2 for side in vision_tokens.shrunk(clip.width, clip.height, longest))
    rate = count / clip.seconds
    writer = cv2.VideoWriter(str(to), cv2.VideoWriter.fourcc(*CODEC), rate, (size[0], size[1]))
    video = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    written = 0
    try:
        for nth in range(count):
            video.set(cv2.CAP_PROP_POS_FRAMES, int(nth * clip.frames / count))
            found, frame = video.read()
            if not found:
                break
            if (frame.shape[1], frame.shape[0]) != size:
                frame = cv2.resize(frame, (size[0], size[1]), interpolation=cv2.INTER_AREA)
            writer.write(frame)
            written += 1
    finally:
        video.release()
        writer.release()
    if written == 0:
        to.unlink(missing_ok=True)
        raise Failure(say("{name} is damaged: no frame of it can be read.", name=path.name), say(ANOTHER))
    return written
