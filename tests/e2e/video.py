"""A small MP4, made with the OpenCV that real vLLM brings; asked for once per run."""

import functools
import os
import subprocess

IMAGE = os.environ.get("MANYEYES_VLLM_CPU_IMAGE", "manyeyes/vllm-cpu:0.32.0")
PROGRAM = """
import sys, cv2, numpy
writer = cv2.VideoWriter("/tmp/clip.mp4", cv2.VideoWriter_fourcc(*"mp4v"), 8, (320, 240))
for number in range(8 * int(sys.argv[1])):
    frame = numpy.full((240, 320, 3), 30, numpy.uint8)
    cv2.circle(frame, (20 + number * 2 % 280, 120), 20, (0, 200, 255), -1)
    writer.write(frame)
writer.release()
sys.stdout.buffer.write(open("/tmp/clip.mp4", "rb").read())
"""


@functools.cache
def clip(seconds: int) -> bytes:
    """A ball that moves, 320 x 240 at 8 frames per second."""
    command = ["docker", "run", "--rm", "-i", "--network=none", "--entrypoint", "python", IMAGE, "-", str(seconds)]
    return subprocess.run(command, input=PROGRAM.encode(), check=True, capture_output=True).stdout
