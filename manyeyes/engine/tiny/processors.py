"""How pictures and videos become patches: the files that the Qwen3-VL processor reads.

As Qwen3-VL's own, with a smaller upper size: one token is a square of 32 by 32 pixels, and for video of two frames.
"""

import json
from pathlib import Path

SHARED = {
    "processor_class": "Qwen3VLProcessor",
    "patch_size": 16,
    "temporal_patch_size": 2,
    "merge_size": 2,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
}

# "shortest_edge" and "longest_edge" are the least and the most pixels of a picture (not edges), 64 to 1280 tokens.
IMAGE = SHARED | {
    "image_processor_type": "Qwen2VLImageProcessorFast",
    "size": {"shortest_edge": 65_536, "longest_edge": 1_310_720},
}

# The same for all frames of a video together: at most 2048 tokens, so that one fits into a short context.
VIDEO = SHARED | {
    "video_processor_type": "Qwen3VLVideoProcessor",
    "size": {"shortest_edge": 4_096, "longest_edge": 4_194_304},
    "fps": 2,
    "min_frames": 4,
    "max_frames": 64,
}


def save(folder: Path) -> None:
    """Write both files into `folder`."""
    for name, content in (("preprocessor_config.json", IMAGE), ("video_preprocessor_config.json", VIDEO)):
        (folder / name).write_text(json.dumps(content, indent=2) + "\n")
