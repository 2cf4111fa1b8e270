"""manyeyes/engine/pod/media_memory.py: what pictures and videos may take of an engine's memory. vLLM's parts are stand-ins here;
tests/e2e/test_cluster.py asks the real one."""

import asyncio
import importlib.util
import io
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from tests.integration.scan.reference import FORMATS

SOURCE = Path(__file__).resolve().parents[2] / "manyeyes/engine/pod/media_memory.py"
PIXELS = 1_310_720


@dataclass
class MediaWithBytes:
    media: Any
    original_bytes: bytes


class ImageMediaIO:
    def load_bytes(self, data: bytes) -> MediaWithBytes:
        return MediaWithBytes(Image.open(io.BytesIO(data)).convert("RGB"), data)


@dataclass
class VideoMediaIO:
    image_io: Any
    num_frames: int = 32
    kwargs: dict[str, Any] = field(default_factory=lambda: {"max_frames": 16})


class MediaConnector:
    async def load_from_url_async(self, url: bytes, media_io: Any) -> Any:
        return media_io.load_bytes(url)


IMAGE = SimpleNamespace(ALLOWED_IMAGE_FORMATS=("IM", "PNG", "TGA"))


def test_only_formats_that_the_gateway_reads_are_decoded(module: Any) -> None:
    assert module.vllm_image.ALLOWED_IMAGE_FORMATS == FORMATS


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Any:
    registry = SimpleNamespace(register=lambda name: lambda found: found)
    decoders = {name: SimpleNamespace(check_frame_pixel_limit=None) for name in ("opencv", "torchcodec")}
    parts: dict[str, dict[str, Any]] = {
        "vllm": {},
        "vllm.multimodal": {"image": IMAGE},
        "vllm.multimodal.media": {"MEDIA_CONNECTOR_REGISTRY": registry, "MediaConnector": MediaConnector},
        "vllm.multimodal.media.base": {"MediaWithBytes": dict},
        "vllm.multimodal.media.image": {"ImageMediaIO": ImageMediaIO},
        "vllm.multimodal.media.video": {"VideoMediaIO": VideoMediaIO},
        "vllm.multimodal.video_decoders": decoders,
    }
    for name, members in parts.items():
        made = ModuleType(name)
        vars(made).update(members)
        monkeypatch.setitem(sys.modules, name, made)
    monkeypatch.setenv("MANYEYES_MEDIA_MEMORY_MB", "100")
    monkeypatch.setenv("MANYEYES_MEDIA_PIXELS", str(PIXELS))
    monkeypatch.setenv("MANYEYES_FRAME_PIXELS", "10000000")
    spec = importlib.util.spec_from_file_location("media_room_under_test", SOURCE)
    assert spec
    assert spec.loader
    loaded: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def png(width: int, height: int) -> bytes:
    file = io.BytesIO()
    Image.new("1", (width, height)).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize(("width", "height"), [(7000, 1000), (1000, 7000), (2000, 2000), (20_000, 200)])
def test_a_large_picture_is_scaled_down_as_soon_as_it_is_decoded(module: Any, width: int, height: int) -> None:
    found = module.ScaledImage(ImageMediaIO()).load_bytes(png(width, height))
    assert found.media.width * found.media.height <= PIXELS
    assert found.media.width % 32 == found.media.height % 32 == 0
    assert found.original_bytes == png(width, height)  # caches know it by what the client sent


def test_a_picture_that_is_not_too_large_stays_as_it_is(module: Any) -> None:
    assert module.ScaledImage(ImageMediaIO()).load_bytes(png(1000, 1300)).media.size == (1000, 1300)


def test_a_picture_above_pillows_own_limit_is_the_clients_mistake(module: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(ValueError, match="Failed to load image: Image size"):  # vLLM makes 400 of a ValueError
        module.ScaledImage(ImageMediaIO()).load_bytes(png(100, 100))


def test_frames_of_a_video_are_refused_at_a_smaller_size_than_pictures(module: Any) -> None:
    decoders = sys.modules["vllm.multimodal.video_decoders"]
    for decoder in (decoders.opencv, decoders.torchcodec):
        decoder.check_frame_pixel_limit(4096, 2160)
        with pytest.raises(ValueError, match="5000x4000"):
            decoder.check_frame_pixel_limit(5000, 4000)


async def test_a_request_waits_while_others_have_the_room_and_the_first_one_never_does(module: Any) -> None:
    budget = module.MemoryBudget(100)
    await asyncio.wait_for(budget.reserve("first", 150), 1)
    waiting = asyncio.create_task(budget.reserve("second", 10))
    await asyncio.sleep(0)
    await asyncio.wait_for(budget.reserve("first", 50), 1)
    assert not waiting.done()
    budget.release_all("first")
    await asyncio.wait_for(waiting, 1)
    assert budget.used == {"second": 10}


async def test_what_was_not_needed_lets_others_in(module: Any) -> None:
    budget = module.MemoryBudget(100)
    await budget.reserve("first", 90)
    waiting = asyncio.create_task(budget.reserve("second", 50))
    await asyncio.sleep(0)
    assert not waiting.done()
    budget.release("first", 60)
    await asyncio.wait_for(waiting, 1)


async def test_requests_that_each_want_more_than_there_is_are_all_done_one_after_the_other(module: Any) -> None:
    most: list[int] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        for _ in range(16):
            await module.BoundedConnector().load_from_url_async(png(1280, 1024), ImageMediaIO())
        most.append(len(module.BUDGET.used))
        await asyncio.sleep(0)

    guard = module.MediaRoom(app)
    scope = {"type": "http", "method": "POST", "headers": [(b"content-length", b"100000")]}
    await asyncio.wait_for(asyncio.gather(*[guard(scope, None, None) for _ in range(8)]), 60)
    assert len(most) == 8
    assert module.BUDGET.used == {}


async def test_a_request_that_fails_or_whose_client_leaves_gives_its_room_back(module: Any) -> None:
    entered = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await module.BoundedConnector().load_from_url_async(png(1280, 1024), ImageMediaIO())
        entered.set()
        await asyncio.Event().wait()

    scope = {"type": "http", "method": "POST", "headers": []}
    request = asyncio.create_task(module.MediaRoom(app)(scope, None, None))
    await asyncio.wait_for(entered.wait(), 5)
    assert sum(module.BUDGET.used.values()) == 1280 * 1024 * 18
    request.cancel()
    with pytest.raises(asyncio.CancelledError):
        await request
    assert module.BUDGET.used == {}


async def test_health_checks_never_wait_for_room(module: Any) -> None:
    await module.BUDGET.reserve("other", module.BUDGET_BYTES)
    asked: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        asked.append(scope["method"])

    await asyncio.wait_for(module.MediaRoom(app)({"type": "http", "method": "GET", "headers": []}, None, None), 1)
    assert asked == ["GET"]
