"""Pictures and videos in the engine: the cache of the vision encoder's outputs (vllm/v1/core/encoder_cache_manager.py), and what
the API server does to media before the engine core sees them (vllm/renderers/base.py). Pure: no clock."""

from collections import OrderedDict

from manyeyes.simulator.profile import TimingProfile
from manyeyes.simulator.request import MediaItem, RunningSequence


class EncoderCache:
    """Which images and videos need not be encoded again. Its room counts vision tokens."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._free = capacity
        self._sizes: dict[int, int] = {}
        self._users: dict[int, set[RunningSequence]] = {}
        self._idle: OrderedDict[int, None] = OrderedDict()  # nobody uses them; the longest unused first

    def use(self, medium: MediaItem, sequence: RunningSequence) -> bool:
        """Whether it is there; if so it stays until the sequence gives it back."""
        if medium.key not in self._sizes:
            return False
        self._idle.pop(medium.key, None)
        self._users.setdefault(medium.key, set()).add(sequence)
        return True

    def make_room(self, tokens: int) -> bool:
        """Whether so many vision tokens more can be kept. Drops what nobody uses, as far as needed."""
        if tokens > self._free + sum(self._sizes[key] for key in self._idle):
            return False
        while tokens > self._free:
            key, _ = self._idle.popitem(last=False)
            self._free += self._sizes.pop(key)
        return True

    def add(self, medium: MediaItem, sequence: RunningSequence) -> None:
        """Keep it for the sequence that has it encoded; `make_room` comes first."""
        self._sizes[medium.key] = medium.tokens
        self._free -= medium.tokens
        self._users[medium.key] = {sequence}

    def release(self, sequence: RunningSequence, key: int) -> None:
        """The sequence needs it no longer."""
        users = self._users.get(key)
        if users and sequence in users:
            users.discard(sequence)
            if not users:
                del self._users[key]
                self._idle[key] = None

    def forget(self) -> None:
        """Drop what nobody uses."""
        for key in self._idle:
            self._free += self._sizes.pop(key)
        self._idle.clear()


DECODING_THREADS = 8  # VLLM_MEDIA_LOADING_THREAD_COUNT
BYTES_PER_PIXEL = 12  # 3 colours, each twice for the temporal patch, 2 bytes each


class ProcessorCache:
    """Whose pixels are still there: keys of media, the longest unused first."""

    def __init__(self, capacity_bytes: float) -> None:
        self._capacity = capacity_bytes
        self._bytes = 0
        self._sizes: OrderedDict[int, int] = OrderedDict()

    def use(self, medium: MediaItem) -> bool:
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


def decoding_s(medium: MediaItem, profile: TimingProfile) -> float:
    """Seconds on one of the decoding threads."""
    return profile.decode_ms / 1e3 * medium.source_pixels / 1e6


def preprocessing_s(medium: MediaItem, profile: TimingProfile, *, cached: bool) -> float:
    """Seconds on the only preprocessing thread."""
    if cached:
        return profile.cached_item_ms / 1e3
    return (profile.preprocess_item_ms + profile.preprocess_ms * medium.fitted_pixels / 1e6) / 1e3
