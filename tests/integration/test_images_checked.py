"""Width and height of images, which the gateway reads before an engine decodes a pixel, and what it refuses."""

import base64
import hashlib
import io
import json
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from PIL import Image

from manyeyes.config.credentials import ApiKey, ApiKeys
from manyeyes.devcluster.cluster import LocalCluster, local_cluster
from manyeyes.devcluster.eventually import eventually
from tests.integration.documents import document
from tests.integration.scan.images import bmp, chunk, data_url, gif, jpeg, png, segment, tiff, webp
from tests.integration.scan.server import Modules

Encoded = tuple[str, dict[str, Any]]
ENCODERS: list[Encoded] = [
    ("PNG", {}), ("JPEG", {}), ("JPEG", {"progressive": True, "icc_profile": b"y" * 90_000}), ("WEBP", {}),
    ("WEBP", {"lossless": True}), ("WEBP", {"exif": b"Exif\0\0MM"}), ("GIF", {}), ("BMP", {}), ("TIFF", {}),
    ("TIFF", {"compression": "tiff_lzw"}), ("AVIF", {}),
]  # fmt: skip
FIRST = "messages[0].content[0]"


def encoded(kind: str, size: tuple[int, int], mode: str = "RGB", **options: Any) -> bytes:
    file = io.BytesIO()
    Image.new(mode, size, 1).save(file, kind, **options)
    return file.getvalue()


def body(*urls: str) -> bytes:
    """As JSON that leaves `\\` in a URL alone."""
    parts = ",".join(f'{{"type":"image_url","image_url":{{"url":"{url}"}}}}' for url in urls)
    return f'{{"model":"m","messages":[{{"role":"user","content":[{parts}]}}]}}'.encode()


def judged(njs: Modules, files: list[bytes]) -> list[Any]:
    """[width, height] of each file, or why it is refused."""
    found = njs.read([body(data_url(file)) for file in files])
    return [one["refused"] if "refused" in one else one["sizes"][0][1:] for one in found]


@pytest.mark.parametrize("size", [(1, 1), (8, 6), (300, 17)])
def test_the_size_is_the_one_that_the_decoder_finds(njs: Modules, size: tuple[int, int]) -> None:
    files = [encoded(kind, size, **options) for kind, options in ENCODERS]
    files += [encoded(kind, size, "RGBA") for kind in ("PNG", "WEBP", "AVIF", "TIFF")]
    files += [encoded("BMP", size, "1"), encoded("GIF", size, "P"), encoded("PNG", size, "I;16")]
    assert judged(njs, files) == [list(size)] * len(files)
    slashes = [body(data_url(file).replace("/", "\\/")) for file in files]
    assert [one["sizes"] for one in njs.read(slashes)] == [[[FIRST, *size]]] * len(files)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_the_first_frame_of_many_counts(njs: Modules, kind: str) -> None:
    frames = [Image.new("RGB", (50, 40), colour) for colour in ("red", "blue", "green")]
    file = io.BytesIO()
    frames[0].save(file, kind, save_all=True, append_images=frames[1:])
    assert judged(njs, [file.getvalue()]) == [[50, 40]]


TEXT = chunk(b"tEXt", b"Comment\0" + b"x" * 50_000)
SIDES = [(256, 4, 1, 16), (257, 4, 1, 16)]
LARGE = {
    "png": (png(13370, 13370), [13370, 13370]),
    "png after a text": (png(13370, 13370, before=TEXT), [13370, 13370]),
    "jpeg": (jpeg(65_500, 65_500), [65_500, 65_500]),
    "jpeg after metadata": (jpeg(30_000, 20, segment(0xE1, b"x" * 65_000) * 4), [30_000, 20]),
    "jpeg with padding": (jpeg(30_000, 20, b"\xff\xff\xff"), [30_000, 20]),
    "webp": (webp(16_384, 16_384), [16_384, 16_384]),
    "gif": (gif(30_000, 20_000, (0, 0, 10, 10)), [30_000, 20_000]),
    "gif with a frame beyond its screen": (gif(1, 1, (60_000, 60_000, 5000, 5000)), [65_000, 65_000]),
    "bmp": (bmp(20_000, 20_000), [20_000, 20_000]),
    "bmp from the top": (bmp(20_000, -20_000), [20_000, 20_000]),
    "tiff": (tiff([(256, 3, 1, 60_000), (257, 3, 1, 50_000)]), [60_000, 50_000]),
    "tiff of a large tile": (tiff([*SIDES, (322, 4, 1, 20_000), (323, 3, 1, 20_000)]), [20_000, 20_000]),
    "tiff from its end": (tiff([(256, 4, 1, 70_000), (257, 3, 1, 5)], ">", gap=300_000), [70_000, 5]),
}  # fmt: skip


@pytest.mark.parametrize("kind", LARGE)
def test_a_size_is_found_wherever_it_is_written(njs: Modules, kind: str) -> None:
    file, size = LARGE[kind]
    assert judged(njs, [file]) == [size]


def avif(size: tuple[int, int], header: tuple[int, int]) -> bytes:
    """AV1 data of one size in a file whose header names another."""
    data = encoded("AVIF", size, "L", speed=10)
    at = data.index(b"ispe") + 8
    return data[:at] + struct.pack(">II", *header) + data[at + 8 :]


UNREADABLE = {
    "a second size in a png": png(8, 6, before=chunk(b"IHDR", struct.pack(">IIBBBBB", 13370, 13370, 1, 0, 0, 0, 0))),
    "a png without a size": b"\x89PNG\r\n\x1a\n" + chunk(b"IDAT", b""),
    "a png of 10000 chunks": png(8, 6, before=chunk(b"teSt", b"") * 10_000),
    "two frames in a jpeg": jpeg(8, 6, segment(0xC2, b"\x08\x34\x3a\x34\x3a\x01\x01\x11\0")),
    "a jpeg of two readings": jpeg(8, 6, b"\xff\xd8"),
    "a jpeg that ends": b"\xff\xd8" + segment(0xE1, b"x" * 100),
    "a gif of two readings": gif(8, 6, (0, 0, 8, 6), b"!\xf9\0"),
    "no frame in a gif": b"GIF89a" + struct.pack("<HHBBB", 8, 6, 0, 0, 0) + b";",
    "a tiff with a size written twice": tiff([*SIDES, (256, 4, 1, 60_000)]),
    "a tiff with a fraction": tiff([(256, 11, 1, 16), (257, 4, 1, 16)]),
    "a tiff of two widths": tiff([(256, 4, 2, 16), (257, 4, 1, 16)]),
    "a tiff without a size": tiff([(258, 3, 1, 8)]),
    "an avif that is larger inside": avif((2000, 2000), (64, 64)),
    "an avif sequence": encoded("AVIF", (8, 6)).replace(b"ftypavif", b"ftypavis"),
    "a bmp of an unknown header": b"BM" + struct.pack("<IHHII", 54, 0, 0, 54, 41) + b"\1" * 40,
    "no pixels": png(0, 5),
    "a photo of a phone": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + b"\0" * 40,
    "pcx": encoded("PCX", (8, 6)),
    "jpeg 2000": encoded("JPEG2000", (8, 6)),
    "an icon": encoded("ICO", (16, 16)),
    "ppm": encoded("PPM", (8, 6)),
    "tga": encoded("TGA", (8, 6)),
    "no image": b"hello, world",
    "nothing": b"",
}


@pytest.mark.parametrize("kind", UNREADABLE)
def test_an_image_of_unclear_size_is_refused_and_named(njs: Modules, kind: str) -> None:
    reason = judged(njs, [UNREADABLE[kind]])[0]
    assert f"The image cannot be read: {FIRST} " in reason
    assert "Send PNG, JPEG, WebP, GIF, BMP, TIFF or AVIF in standard base64." in reason


GOOD = data_url(png(8, 6, b"x" * 60))


@pytest.mark.parametrize("size", [60, 9000], ids=["short", "long"])
@pytest.mark.parametrize(
    "spoil",
    [
        lambda url: url.replace(";base64", ""),
        lambda url: url.replace(";base64", ";BASE64"),
        lambda url: url.replace(";base64", ";base64;x=y"),
        lambda url: url.replace(";base64", ";base64 "),
        lambda url: f" {url}",
        lambda url: "data:,",
        lambda url: f"{url[:30]}\\n{url[30:]}",
        lambda url: f"{url[:30]} {url[30:]}",
        lambda url: url.replace("+", "-").replace("A", "_"),
        lambda url: url.replace("A", "%41"),
        lambda url: f"{url[:40]}={url[40:]}",
    ],
)  # fmt: skip
def test_only_standard_base64_is_an_image(njs: Modules, spoil: Any, size: int) -> None:
    url = data_url(png(8, 6, b"x" * size))
    found = njs.read([body(url), body(spoil(url)), body("data:;base64," + url.partition(",")[2])])
    assert found[0]["sizes"] == found[2]["sizes"] == [[FIRST, 8, 6]]
    assert FIRST in found[1]["refused"]


@pytest.mark.parametrize("url", ["data:video/mp4,AAAA", "data:audio/wav;charset=x,AAAA", "data:,x"])
def test_other_media_must_be_in_base64_too(njs: Modules, url: str) -> None:
    parts = [f'{{"type":"{key}","{key}":{{"url":"{url}"}}}}' for key in ("video_url", "audio_url")]
    documents = [f'{{"model":"m","messages":[{{"role":"user","content":[{one}]}}]}}'.encode() for one in parts]
    assert all("is not in base64" in found["refused"] for found in njs.read(documents))


def test_a_small_image_does_not_hide_a_large_one_with_the_same_mark(njs: Modules) -> None:
    """The mark of a long string samples it: the size is not among the samples."""
    small, large = (png(*size, b"x" * 9000) for size in ((16, 16), (13370, 13370)))
    for files in ([small, large], [large, small], [small, small, large, small]):
        found = njs.read([body(*(data_url(file) for file in files))])[0]
        assert [13370, 13370] in [one[1:] for one in found["sizes"]]
        assert len({one[0] for one in found["sizes"]}) == len(files)


def test_a_list_of_frames_does_not_hide_behind_an_image_with_the_same_mark(njs: Modules) -> None:
    data = "".join(f"\\u{ord(letter):04x}" for letter in "data:")
    image, frames = (
        data_url(png(8, 6, b"x" * 9000)).replace("data:image/png", data + kind) for kind in ("video/jpex", "video/jpeg")
    )
    for urls in ((frames, image), (image, frames)):
        assert "list of frames" in njs.read([body(*urls)])[0].get("refused", "")
    assert njs.read([body(image, image)])[0]["sizes"] == [[FIRST, 8, 6], ["messages[0].content[1]", 8, 6]]


PLACES: dict[str, dict[str, Any]] = {
    "messages[1].content[2]": {
        "messages": [
            {"role": "system", "content": "x"},
            {"role": "user", "content": ["a", "b", {"type": "image_url", "image_url": {"url": GOOD}}]},
        ]
    },
    "messages[0].content[0]": {"messages": [{"role": "tool", "content": [{"image_url": GOOD}]}]},
    "messages[0]": {"messages": [{"role": "user", "content": {"image_url": {"url": GOOD}}}]},
    "input[0].content[1]": {"input": [{"role": "user", "content": ["x", {"type": "input_image", "image_url": GOOD}]}]},
    "input[1].output[0]": {
        "input": [
            {"role": "user", "content": "x"},
            {"type": "function_call_output", "output": [{"type": "input_image", "image_url": GOOD}]},
        ]
    },
    "input[0]": {
        "input": [{"type": "computer_call_output", "output": {"type": "computer_screenshot", "image_url": GOOD}}]
    },
    "input": {"messages": [], "input": [{"content": [{"type": "input_image", "image_url": GOOD}]}]},
}


@pytest.mark.parametrize("place", PLACES)
def test_an_image_is_named_by_its_place(njs: Modules, place: str) -> None:
    found = njs.read([json.dumps({"model": "m"} | PLACES[place]).encode()])[0]
    assert found["sizes"] == [[place, 8, 6]]


def test_a_tools_output_with_a_role_is_read(njs: Modules) -> None:
    output = {"role": "user", "type": "computer_call_output", "output": {"image_url": GOOD}}
    assert njs.read([json.dumps({"model": "m", "input": [output]}).encode()])[0]["sizes"] == [["input[0]", 8, 6]]


def test_a_uuid_in_a_very_large_request_is_refused_and_not_removed(njs: Modules) -> None:
    part = {"type": "text", "text": "x" * 9_000_000, "uuid": "x"}
    request = {"model": "m", "messages": [{"role": "user", "content": [part]}]}
    assert "Send it without uuid" in njs.read([json.dumps(request).encode()])[0]["refused"]


def test_more_than_256_images_are_refused(njs: Modules) -> None:
    found = njs.read([body(*[GOOD] * 256), body(*[GOOD] * 257)])
    assert len(found[0]["sizes"]) == 256
    assert "more than 256 images" in found[1]["refused"]


@pytest.mark.parametrize(
    ("fields", "found"),
    [
        ({}, (1, 1)), ({"n": 4}, (1, 4)), ({"n": "4"}, (1, 4)), ({"n": None}, (1, 1)), ({"n": 0}, (1, 1)),
        ({"n": 2, "best_of": 5}, (1, 5)), ({"prompt": ["a", "b"], "n": 3}, (2, 3)), ({"prompt": [1, 2, 3]}, (1, 1)),
        ({"prompt": [[1], [2, 3]]}, (2, 1)), ({"n": [7]}, (1, 1)),
    ],
)  # fmt: skip
def test_answers_and_prompts_are_counted(njs: Modules, fields: dict[str, Any], found: tuple[int, int]) -> None:
    facts = njs.read([json.dumps({"model": "m"} | fields).encode()])[0]
    assert (facts["prompts"], facts["answers"]) == found


# --- through the gateway ------------------------------------------------------------------------------------------


def bomb(side: int) -> bytes:
    """A PNG of `side` x `side` pixels, complete: a decoder would allocate all of them."""
    return png(side, side, zlib.compress(b"\0" * ((side + 7) // 8 + 1) * side, 9))


def url_part(data: bytes | str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": data if isinstance(data, str) else data_url(data)}}


FRAMES = "data:video/jpeg;base64," + ",".join([base64.b64encode(png(3000, 3000)).decode()] * 24)
ATTACKS: dict[str, tuple[list[dict[str, Any]], str, str]] = {
    "four png of 13370 x 13370": ([url_part(bomb(13370))] * 4, "image_too_large", FIRST),
    "webp": ([url_part(webp(16_384, 16_384))], "image_too_large", FIRST),
    "tiff": ([url_part(tiff([(256, 3, 1, 13370), (257, 3, 1, 13370)]))], "image_too_large", FIRST),
    "tiff tile": ([url_part(tiff([*SIDES, (322, 4, 1, 20_000), (323, 4, 1, 20_000)]))], "image_too_large", FIRST),
    "avif": ([url_part(avif((2000, 2000), (64, 64)))], "image_unreadable", FIRST),
    "many small": ([url_part(png(4000, 4000))] * 16, "image_too_large", "messages[0].content[12]"),
    "frames": ([{"type": "video_url", "video_url": {"url": FRAMES}}], "video_type_not_allowed", FIRST),
    "not in base64": ([url_part("data:image/png,abc")], "data_url_not_base64", FIRST),
}
SECRET = "sk-two-answers"
KEYS = ApiKeys(keys=(ApiKey(name="two", sha256=hashlib.sha256(SECRET.encode()).hexdigest(), in_flight=3),))


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    pools = document({"big": ["big-0"]}, gateway={"anonymous": True})
    with local_cluster(
        tmp_path_factory.mktemp("local_cluster"), pools, keys=KEYS, engine_flags=("--tpot-ms=20",)
    ) as running:
        running.answers_from("big", {"big-0"})
        yield running


def look(cluster: LocalCluster, parts: list[dict[str, Any]], **headers: str) -> httpx.Response:
    content = [*parts, {"type": "text", "text": "What is it?"}]
    request = {"model": "big", "max_tokens": 1, "messages": [{"role": "user", "content": content}]}
    return cluster.client.post(f"{cluster.url}/v1/chat/completions", json=request, headers=headers)


def log_lines(cluster: LocalCluster, request: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in cluster.log("access").splitlines()]
    return [line for line in lines if line["request"] == request]


@pytest.mark.parametrize("kind", ATTACKS)
def test_an_image_that_would_end_an_engine_reaches_none_and_leaves_one_log_line(
    cluster: LocalCluster, kind: str
) -> None:
    parts, code, place = ATTACKS[kind]
    request = f"attack-{list(ATTACKS).index(kind)}"
    reply = look(cluster, parts, **{"X-Request-Id": request})
    error = reply.json()["error"]
    assert (reply.status_code, error["code"], error["param"], error["type"]) == (
        400,
        code,
        place,
        "invalid_request_error",
    )
    assert place in error["message"]
    assert "X-ManyEyes-Engine" not in reply.headers
    line = eventually(lambda: log_lines(cluster, request), 10, 0.2, "the line is written")
    assert [(one["status"], one["attempts"], one["engine"]) for one in line] == [(400, "", "")]


def test_the_refusal_names_size_and_limit(cluster: LocalCluster) -> None:
    message = look(cluster, [url_part(png(8000, 7000))]).json()["error"]["message"]
    assert message == (
        "The image is too large: messages[0].content[0] has 8000 x 7000 pixels, the limit is 50000000 pixels "
        "(media.max_decoded_pixels). Send it smaller."
    )


def test_images_within_both_limits_are_answered(cluster: LocalCluster) -> None:
    assert look(cluster, [url_part(bomb(3000))] * 4).status_code == 200


def complete(cluster: LocalCluster, secret: str = "", **fields: Any) -> httpx.Response:
    headers = {"Authorization": f"Bearer {secret}"} if secret else {}
    request = {"model": "big", "prompt": "x", "max_tokens": 1, "temperature": 1} | fields
    return cluster.client.post(f"{cluster.url}/v1/completions", json=request, headers=headers)


@pytest.mark.parametrize(
    ("fields", "place"), [({"n": 9}, "n"), ({"prompt": ["x"] * 17}, "prompt"), ({"prompt": ["x"] * 6, "n": 3}, "n")]
)
def test_more_answers_than_an_engine_gives_are_refused(
    cluster: LocalCluster, fields: dict[str, Any], place: str
) -> None:
    reply = complete(cluster, **fields)
    error = reply.json()["error"]
    assert (reply.status_code, error["code"], error["param"]) == (400, "too_many_answers", place)
    assert "X-ManyEyes-Engine" not in reply.headers


def reaches_engine(reply: httpx.Response) -> bool:
    """An emulated engine gives one answer, so it refuses `n`."""
    return "X-ManyEyes-Engine" in reply.headers


def test_more_answers_than_the_key_may_have_are_refused(cluster: LocalCluster) -> None:
    assert reaches_engine(complete(cluster, SECRET, n=3))
    reply = complete(cluster, SECRET, prompt=["x", "y"], n=2)
    assert (reply.status_code, reply.json()["error"]["code"]) == (400, "too_many_answers")
    assert not reaches_engine(reply)


def test_a_request_counts_its_answers_against_the_keys_limit(cluster: LocalCluster) -> None:
    request = {"model": "big", "prompt": "x", "max_tokens": 4000, "ignore_eos": True, "stream": True}
    headers = {"Authorization": f"Bearer {SECRET}"}
    with cluster.client.stream("POST", f"{cluster.url}/v1/completions", json=request, headers=headers) as long_answer:
        assert long_answer.status_code == 200, long_answer.read()
        chunks = long_answer.iter_raw()  # without a reference it closes the answer
        next(chunks)
        refused = complete(cluster, SECRET, n=3)
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "rate_limit_exceeded")
        assert "Retry-After" in refused.headers
        assert reaches_engine(complete(cluster, SECRET, n=2))
        assert reaches_engine(complete(cluster, n=3))
    eventually(lambda: reaches_engine(complete(cluster, SECRET, n=3)), 20, 0.2, "the answers are counted no longer")
