"""What the API server does to media before the engine core sees them: vllm/renderers/base.py. Pure: no clock.

Media are decoded on eight threads. Everything else that turns them into the model's input happens on one thread, request
after request: for a small vision model this, not the GPU, is what limits an engine.
"""

from collections import OrderedDict

from manyeyes.simulator.profile import Profile
from manyeyes.simulator.request import Medium

DECODING_THREADS = 8  # VLLM_MEDIA_LOADING_THREAD_COUNT
BYTES_PER_PIXEL = 12  # 3 colours, each twice for the temporal patch, 2 bytes each


class ProcessorCache:
    """Whose pixels are still there: keys of media, the longest unused first."""

    def __init__(self, capacity_bytes: float) -> None:
        self._capacity = capacity_bytes
        self._bytes = 0
        self._sizes: OrderedDict[int, int] = OrderedDict()

    def use(self, medium: Medium) -> bool:
        """Whether it was there. It is afterwards, unless it is too large."""
        if medium.key in self._sizes:
            self._sizes.move_to_end(medium.key)
            return True
        size = medium.fitted_pixels * BYTES_PER_PIXEL
        if size <= self._capacity:
            self._sizes[medium.key] = size
            self._bytes += size
            while self._bytes > self._capacity:
                self._bytes -= self._sizes.popitem(last=False)[1]
        return False

    def forget(self) -> None:
        self._sizes.clear()
        self._bytes = 0


def decoding_s(medium: Medium, profile: Profile) -> float:
    """Seconds on one of the decoding threads."""
    return profile.decode_ms / 1e3 * medium.source_pixels / 1e6


def preprocessing_s(medium: Medium, profile: Profile, *, cached: bool) -> float:
    """Seconds on the only preprocessing thread."""
    if cached:
        return profile.cached_item_ms / 1e3
    return (profile.preprocess_item_ms + profile.preprocess_ms * medium.fitted_pixels / 1e6) / 1e3
