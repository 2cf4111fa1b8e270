"""Images and videos in the engine: the cache of the vision encoder's outputs (vllm/v1/core/encoder_cache_manager.py), and the
API server's work on media before the engine core gets them (vllm/renderers/base.py). Pure: no clock."""

from collections import OrderedDict

from manyeyes.simulator.profile import TimingProfile
from manyeyes.simulator.request import MediaItem, RunningSequence


class EncoderCache:
    """Images and videos that need not be encoded again. The capacity is in vision tokens."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._free = capacity
        self._sizes: dict[int, int] = {}
        self._users: dict[int, set[RunningSequence]] = {}
        self._idle: OrderedDict[int, None] = OrderedDict()  # not in use; the longest unused first

    def use(self, medium: MediaItem, sequence: RunningSequence) -> bool:
        """Whether the medium is cached. If so, it stays cached until the sequence releases it."""
        if medium.key not in self._sizes:
            return False
        self._idle.pop(medium.key, None)
        self._users.setdefault(medium.key, set()).add(sequence)
        return True

    def make_room(self, tokens: int) -> bool:
        """Whether this number of vision tokens can be added. Evicts unused media as needed."""
        if tokens > self._free + sum(self._sizes[key] for key in self._idle):
            return False
        while tokens > self._free:
            key, _ = self._idle.popitem(last=False)
            self._free += self._sizes.pop(key)
        return True

    def add(self, medium: MediaItem, sequence: RunningSequence) -> None:
        """Cache a medium for the sequence that encodes it. Call `make_room` first."""
        self._sizes[medium.key] = medium.tokens
        self._free -= medium.tokens
        self._users[medium.key] = {sequence}

    def release(self, sequence: RunningSequence, key: int) -> None:
        """Release a medium that the sequence does not need any longer."""
        users = self._users.get(key)
        if users and sequence in users:
            users.discard(sequence)
            if not users:
                del self._users[key]
                self._idle[key] = None

    def forget(self) -> None:
        """Evict all unused media."""
        for key in self._idle:
            self._free += self._sizes.pop(key)
        self._idle.clear()


DECODING_THREADS = 8  # VLLM_MEDIA_LOADING_THREAD_COUNT
BYTES_PER_PIXEL = 12  # 3 colours, each twice for the temporal patch, 2 bytes each


class ProcessorCache:
    """Media whose preprocessed pixels are cached: keys of media, the longest unused first."""

    def __init__(self, capacity_bytes: float) -> None:
        self._capacity = capacity_bytes
        self._bytes = 0
        self._sizes: OrderedDict[int, int] = OrderedDict()

    def use(self, medium: MediaItem) -> bool:
        """Whether the medium was cached. Afterwards it is cached, unless it is too large."""
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
    """Seconds of work on one of the decoding threads."""
    return profile.decode_ms / 1e3 * medium.source_pixels / 1e6


def preprocessing_s(medium: MediaItem, profile: TimingProfile, *, cached: bool) -> float:
    """Seconds of work on the single preprocessing thread."""
    if cached:
        return profile.cached_item_ms / 1e3
    return (profile.preprocess_item_ms + profile.preprocess_ms * medium.fitted_pixels / 1e6) / 1e3
