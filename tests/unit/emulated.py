"""Makes jobs and schedulers for the tests of the emulator's pure parts."""

from manyeyes.simulator import kv_cache
from manyeyes.simulator.kv_cache import KvCache
from manyeyes.simulator.multimodal import EncoderCache
from manyeyes.simulator.request import EngineRequest, MediaItem, RunningSequence
from manyeyes.simulator.scheduler import Scheduler


def medium(key: int, tokens: int = 100, offset: int = 0) -> MediaItem:
    return MediaItem("image", key, offset, tokens, 1, tokens * 1024, tokens * 1024)


def sequence(
    prompt: list[int] | int, answer: int = 5, media: tuple[MediaItem, ...] = (), start: int = 0
) -> RunningSequence:
    """A sequence with the tokens `prompt`, or with so many from `start` on. The tokens of its answer are -1, -2, ..."""
    ids = list(range(start, start + prompt)) if isinstance(prompt, int) else prompt
    job = EngineRequest("m", ids, media, "", ["word"] * answer, "stop", stream=True, include_usage=False)
    return RunningSequence(job, 0.0, hashes=kv_cache.block_hashes([*ids, *range(-1, -1 - answer, -1)]))


def scheduler(kv_tokens: int = 16_000, seats: int = 8, budget: int = 512, encoder_tokens: int = 512) -> Scheduler:
    return Scheduler(KvCache(kv_tokens), EncoderCache(encoder_tokens), seats, budget)
