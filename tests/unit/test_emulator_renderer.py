import asyncio
from time import monotonic

import pytest

from manyeyes.emulator.engine import Preprocessor
from manyeyes.emulator.metrics import Metrics
from manyeyes.simulator.multimodal import BYTES_PER_PIXEL, ProcessorCache
from manyeyes.simulator.profile import TimingProfile
from tests.unit.emulated import medium, sequence

# 20 ms an item on the only thread; a megapixel costs nothing more.
PROFILE = TimingProfile("gpu", "model", 1, 0, 0, 20.0, 0, 0, 50.0, 0, 0, 0, 0, 0, 0, 0, 0)


def test_the_same_picture_is_preprocessed_once() -> None:
    cache = ProcessorCache(1e9)
    assert [cache.use(medium(key)) for key in (1, 2, 1, 2)] == [False, False, True, True]


def test_the_longest_unused_picture_makes_room() -> None:
    cache = ProcessorCache(2 * medium(1).fitted_pixels * BYTES_PER_PIXEL)
    assert [cache.use(medium(key)) for key in (1, 2, 1, 3, 1, 2)] == [False, False, True, False, True, False]


def test_a_picture_larger_than_the_cache_is_not_kept() -> None:
    cache = ProcessorCache(10)
    assert not cache.use(medium(1))
    assert not cache.use(medium(1))


async def test_pictures_of_different_requests_are_preprocessed_one_after_the_other() -> None:
    renderer = Preprocessor(PROFILE, Metrics("m"), 1e9)
    began = monotonic()
    await asyncio.gather(*(renderer.render(sequence(200, media=(medium(key),)).job) for key in range(3)))
    assert monotonic() - began >= 0.058


async def test_health_takes_longer_the_more_requests_are_in_rendering() -> None:
    renderer = Preprocessor(PROFILE, Metrics("m"), 1e9)
    assert renderer.health_s == 0
    waiting = [asyncio.create_task(renderer.render(sequence(200, media=(medium(key),)).job)) for key in range(3)]
    await asyncio.sleep(0)
    assert renderer.health_s == pytest.approx(3 * 0.050)
    await asyncio.gather(*waiting)
    assert renderer.health_s == 0


async def test_a_request_that_is_given_up_leaves_the_renderer() -> None:
    renderer = Preprocessor(PROFILE, Metrics("m"), 1e9)
    waiting = [asyncio.create_task(renderer.render(sequence(200, media=(medium(key),)).job)) for key in range(2)]
    await asyncio.sleep(0.001)
    for task in waiting:
        task.cancel()
    await asyncio.wait(waiting)
    assert renderer.rendering == 0
    await renderer.render(sequence(200, media=(medium(9),)).job)
