"""What the gateway refuses or changes of a body before an engine sees it: dear shapes, a uuid of media, lists of frames."""

import base64
import json
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from manyeyes.config.credentials import ApiKey, ApiKeys
from manyeyes.devcluster.cluster import LocalCluster, local_cluster
from tests.integration.documents import document
from tests.integration.scan.images import data_url
from tests.integration.scan.images import png as png_file
from tests.integration.scan.server import Modules

# --- dear shapes --------------------------------------------------------------------------------------------------


def messages(*many: str) -> str:
    return f'{{"model":"m","messages":[{",".join(many)}]}}'


def parts(*many: str) -> str:
    return messages(f'{{"role":"user","content":[{",".join(many)}]}}')


def beside(text: str) -> str:
    return f'{{"model":"m","x":{text}}}'


DEAR = {
    "empty messages": (messages(*["{}"] * 340_000), "256 KiB outside of strings"),
    "empty parts": (parts(*["{}"] * 340_000), "256 KiB outside of strings"),
    "messages": (messages(*['{"role":"user","content":""}'] * 2001), "2000 messages and content parts"),
    "parts": (parts(*["{}"] * 2000), "2000 messages and content parts"),
    "parts of many messages": (
        messages(*[f'{{"role":"user","content":[{",".join(["1"] * 200)}]}}' for _ in range(10)]),
        "2000 messages and content parts",
    ),
    "parts of a tool's output": (f'{{"model":"m","input":[{{"output":[{",".join(["1"] * 2000)}]}}]}}', "2000 messages"),
    "backslashes": (beside('"' + "\\" * 16_000_000 + '"'), "escaped quotes"),
    "runs of backslashes": (beside('"' + ("\\" * 998 + '\\\\\\"') * 1000 + '"'), "escaped quotes"),
    "escaped quotes": (beside('"' + '\\"' * 80_000 + '"'), "escaped quotes"),
    "strings": (beside("[" + ",".join(['""'] * 60_000) + "]"), "a third as many strings"),
    "keys": (beside("{" + ",".join(f'"k{n}":1' for n in range(40_000)) + "}"), "a third as many strings"),
    "equal models": ("{" + ",".join(['"model":"m"'] * 20_000) + "}", "a third as many strings"),
    "keys of a content": (
        messages('{"role":"user","content":{' + ",".join(f'"{n}":1' for n in range(10_001)) + "}}"),
        "too many strings, escapes",
    ),
    "keys of a part": (parts("{" + ",".join(f'"{n}":1' for n in range(10_001)) + "}"), "too many strings, escapes"),
    "equal long strings": (beside("[" + ",".join(['"' + "a" * 4097 + '"'] * 1001) + "]"), "1000 strings of over 4096"),
    "short strings": (beside("[" + ",".join(['"' + "a" * 4096 + '"'] * 300) + "]"), "1 MiB in strings"),
    "blanks": ('{"model":"m",' + " \r\n" * 100_000 + '"x":1}', "256 KiB outside of strings"),
    "blanks at the end": ('{"model":"m"}' + "\n" * 300_000, "256 KiB outside of strings"),
    "digits": (beside("1" * 300_000), "256 KiB outside of strings"),
    "numbers": ('{"model":"m","prompt":[' + "1," * 200_000 + "1]}", "256 KiB outside of strings"),
    "brackets": (beside("[" * 500_000 + "]" * 500_000), "256 KiB outside of strings"),
    "levels of a content": (messages('{"role":"user","content":' + "[" * 80 + "]" * 80 + "}"), "64 levels"),
    "links": (
        parts(*[f'{{"type":"image_url","image_url":{{"url":"http://h/{"x" * 4000}"}}}}' for _ in range(80)]),
        "256 KiB of links",
    ),
}


@pytest.mark.parametrize("shape", DEAR)
def test_a_body_that_is_dear_to_read_is_refused_and_told_the_limit(njs: Modules, shape: str) -> None:
    document, limit = DEAR[shape]
    found = njs.read([document.encode()])[0]
    assert "too complex" in found.get("refused", ""), str(found)[:200]
    assert limit in found["refused"]


@pytest.mark.parametrize("tail", ["null", "[null]", "[1,null]", "[[1,2],[3]]", "{}", "5", '[{"content":[1]}]'])
def test_an_odd_prompt_is_the_engines_to_judge(njs: Modules, tail: str) -> None:
    assert njs.read([f'{{"model":"m","prompt":{tail}}}'.encode()])[0]["model"] == "m"


def test_a_large_ordinary_request_is_read(njs: Modules) -> None:
    turns: list[dict[str, Any]] = [{"role": ("user", "assistant")[n % 2], "content": "word " * 200} for n in range(100)]
    for n in range(16):
        url = data_url(png_file(8, 6, bytes([n]) * 9 * 256**2))
        turns[2 * n]["content"] = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "and?"}]
    properties = {f"p{n}": {"type": "string", "description": "e" * 60} for n in range(12)}
    tool = {"name": "f", "description": "d" * 500, "parameters": {"type": "object", "properties": properties}}
    body = {"model": "m", "messages": turns, "tools": [{"type": "function", "function": tool}] * 128}
    found = njs.read([json.dumps(body, indent=1).encode()])[0]
    assert (found.get("model"), found["images"], len(found["turns"])) == ("m", 16, 100)


def test_thirty_thousand_tokens_and_a_document_full_of_quotes_are_read(njs: Modules) -> None:
    tokens = {"model": "m", "prompt": [151_000 + n for n in range(30_000)]}
    quotes = {"model": "m", "messages": [{"role": "user", "content": '{"a": "b"}\n' * 15_000}]}
    found = njs.read([json.dumps(body).encode() for body in (tokens, quotes)])
    assert [one.get("model") for one in found] == ["m", "m"], found


# --- lists of frames ----------------------------------------------------------------------------------------------

FRAMES = [
    "data:video/jpeg;base64,AAAA,AAAA",
    "DATA:video/jpeg;base64,AAAA",
    "data:VIDEO/JPEG;base64,AAAA",
    "data:Video/Jpeg;charset=x;base64,AAAA",
    "data:video\\/jpeg;base64,AAAA",
    "data:\\u0076ideo/jpeg;base64,AAAA",
    "\\u0064ata:video/jpe\\u0067;base64,AAAA",
    "  data:video/jpeg;base64,AAAA",
    "data:video/jpeg,AAAA",
]


@pytest.mark.parametrize("url", FRAMES)
@pytest.mark.parametrize("size", [0, 5_000, 20_000])
def test_a_list_of_frames_is_refused_however_it_is_written(njs: Modules, url: str, size: int) -> None:
    url += "A" * size
    contents = [
        f'[{{"type":"video_url","video_url":{{"url":"{url}"}}}}]',
        f'[{{"type":"video_url","video_url":"{url}"}}]',
        f'[{{"video_url":"{url}"}}]',
        f'[{{"\\u0076ideo_url":{{"\\u0075rl":"{url}"}}}}]',
        f'[{{"type":"image_url","image_url":{{"url":"{url}"}}}}]',
        f'[[{{"video_url":{{"url":"{url}"}}}}]]',
    ]
    bodies = [f'{{"model":"m","messages":[{{"role":"user","content":{one}}}]}}'.encode() for one in contents]
    bodies.append(f'{{"model":"m","input":[{{"type":"x","output":[{{"video_url":"{url}"}}]}}]}}'.encode())
    for body, found in zip(bodies, njs.read(bodies), strict=True):
        assert "video/jpeg is a list of frames" in found.get("refused", ""), body[:200]


def test_a_blank_inside_the_type_of_a_data_url_makes_it_a_link_that_nobody_allows(njs: Modules) -> None:
    urls = [
        "data:vid\\teo/jpeg;base64,AA",
        "da\\nta:video/jpeg;base64,AA",
        "data:" + "\\t" * 3000 + "video/jpeg;base64,AA",
    ]
    bodies = [parts(f'{{"video_url":{{"url":"{url}"}}}}').encode() for url in urls]
    assert all(len(found["links"]) == 1 for found in njs.read(bodies))


def test_other_videos_and_pictures_pass(njs: Modules) -> None:
    urls = [
        "data:video/mp4;base64,AAAA",
        "data:video/webm;base64," + "A" * 9000,
        "data:image/jpeg;base64,AAAA",
    ]
    bodies = [parts(f'{{"type":"video_url","video_url":{{"url":"{url}"}}}}').encode() for url in urls]
    assert all("refused" not in found and not found["links"] for found in njs.read(bodies))


# --- the uuid of media --------------------------------------------------------------------------------------------


def without_uuids(njs: Modules, document: str) -> str:
    """The document as it is passed on under another model's name, that name put back."""
    return njs.renamed([document.encode()])[0].replace('"another \\"one\\""', '"m"')


@pytest.mark.parametrize(
    ("written", "passed_on"),
    [
        ('{"type":"text","text":"a","uuid":"x"}', '{"type":"text","text":"a"}'),
        ('{"uuid":"x","type":"text","text":"a"}', '{"type":"text","text":"a"}'),
        ('{"type":"text","uuid":"x","text":"a"}', '{"type":"text","text":"a"}'),
        ('{"uuid":"x"}', "{}"),
        ('{"uuid":"x","uuid":"y"}', "{}"),
        ('{"a":1,"uuid":"x","uuid":"y"}', '{"a":1}'),
        ('{"a":1,"uuid":"x","b":2,"uuid":"y"}', '{"a":1,"b":2}'),
        ('{"\\u0075u\\u0069d":"x","a":1}', '{"a":1}'),
        ('{ "uuid" : {"uuid":[1,{"uuid":2}]} , "a":1}', '{  "a":1}'),
        ('{"a":{"b":1},"uuid":null}', '{"a":{"b":1}}'),
        ('{"a":"\\"uuid\\":","b":"\\\\","uuid":5}', '{"a":"\\"uuid\\":","b":"\\\\"}'),
        ('{"type":"tool_result","content":[{"a":1,"uuid":"x"}]}', '{"type":"tool_result","content":[{"a":1}]}'),
        ('{"image_url":{"url":"data:,","uuid":"x"}}', '{"image_url":{"url":"data:,"}}'),
        ('{"type":"x","arguments":{"uuid":"x"}}', '{"type":"x","arguments":{"uuid":"x"}}'),
        ('{"type":"text","text":"uuid"}', '{"type":"text","text":"uuid"}'),
    ],
)
def test_a_parts_uuid_is_cut_out_and_every_other_byte_stays(njs: Modules, written: str, passed_on: str) -> None:
    for place in (
        '{"model":"m","messages":[{"role":"user","content":[%s]}]}',
        '{"messages":[{"content":"a","role":"system"},{"role":"tool","content":[1,%s ,"z"]}],"model":"m","n":1.0}',
        '{"model":"m","input":[{"type":"function_call_output","output":[ %s]}]}',
        '{"model":"m","\\u006dessages":[{"role":"assistant","content":[%s]}]}',
    ):
        assert without_uuids(njs, place % written) == place % passed_on


@pytest.mark.parametrize(
    "document",
    [
        '{"model":"m","metadata":{"uuid":"x"},"uuid":"y","messages":[]}',
        '{"model":"m","tools":[{"function":{"parameters":{"properties":{"uuid":{"type":"string"}}}}}],"messages":[]}',
        '{"model":"m","messages":[{"role":"assistant","tool_calls":[{"function":{"arguments":{"uuid":"x"}}}]}]}',
        '{"model":"m","input":[{"type":"function_call","arguments":"{\\"uuid\\":\\"x\\"}"}]}',
    ],
)
def test_a_uuid_that_is_no_parts_stays(njs: Modules, document: str) -> None:
    assert without_uuids(njs, document) == document


def test_a_model_written_twice_or_in_another_case_is_the_endpoints_everywhere(njs: Modules) -> None:
    document = b'{"model":"dear","Model":"dear","MODEL":["dear"],"messages":[{"model":"x"}],"model" : "cheap"}'
    new = njs.renamed([document])[0]
    assert "dear" not in new
    assert "cheap" not in new
    assert json.loads(new)["messages"] == [{"model": "x"}]


@pytest.mark.parametrize(
    "part",
    [
        '{"type":"image_url","image_url":null,"uuid":"x"}',
        '{"type":"image_url","uuid":"x"}',
        '{"image_url":{"url":null},"uuid":"x"}',
        '{"type":"video_url","video_url":"","\\u0075uid":"x"}',
        '{"type":"image_embeds","image_embeds":null,"uuid":7}',
        '{"type":"input_image","uuid":"x"}',
    ],
)
def test_a_uuid_in_place_of_the_media_is_refused(njs: Modules, part: str) -> None:
    assert "has a uuid but no" in njs.read([parts(part).encode()])[0].get("refused", "")


# --- through the gateway ------------------------------------------------------------------------------------------


def png(width: int, height: int) -> str:
    """A data: URL of a picture of that size."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    lines = zlib.compress((b"\0" + b"\x80" * width) * height, 9)
    picture = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", lines) + chunk(b"IEND", b"")
    return "data:image/png;base64," + base64.b64encode(picture).decode()


KEYS = ApiKeys(keys=tuple(ApiKey(name=name, sha256=digest) for name, digest in (
    ("alice", "4d6b6bd5a1b1d0d7a9f4b9d7f4a7d6d4c7c8f4b7e9d1f1a0c1f6f0b4b3a2e1d0"),
    ("bob", "5d6b6bd5a1b1d0d7a9f4b9d7f4a7d6d4c7c8f4b7e9d1f1a0c1f6f0b4b3a2e1d0"),
)))  # fmt: skip


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    pools = document(
        {"big": ["big-0"], "spare": ["spare-0"]},
        {"big": {"aliases": ["Big"]}, "spare": {"model": "x" * 200}},
        gateway={"anonymous": True},
    )
    with local_cluster(tmp_path_factory.mktemp("local_cluster"), pools, keys=KEYS) as running:
        running.answers_from("big", {"big-0"})
        running.answers_from("spare", {"spare-0"})
        yield running


def look(cluster: LocalCluster, *parts: dict[str, Any], **more: Any) -> httpx.Response:
    content = [*parts, {"type": "text", "text": "What is it?"}]
    body = {"model": "big", "messages": [{"role": "user", "content": content}], "max_tokens": 60, "temperature": 0}
    return cluster.client.post(f"{cluster.url}/v1/chat/completions", json=body | more)


def test_a_picture_sent_under_a_uuid_is_answered_to_nobody_else(cluster: LocalCluster) -> None:
    mine, yours = png(640, 480), png(320, 200)
    first = look(cluster, {"type": "image_url", "image_url": {"url": mine}, "uuid": "passport"})
    assert "640 x 480" in first.text, first.text
    other = look(cluster, {"type": "image_url", "image_url": {"url": yours}, "uuid": "passport"})
    assert "320 x 200" in other.text, other.text
    nothing = look(cluster, {"type": "image_url", "image_url": None, "uuid": "passport"})
    assert (nothing.status_code, nothing.json()["error"]["code"]) == (400, "media_missing")


def test_a_large_request_with_a_uuid_passes_without_it(cluster: LocalCluster) -> None:
    part = {"type": "image_url", "image_url": {"url": png(700, 500)}, "uuid": "passport"}
    reply = look(cluster, part, user="x" * 6_000_000)  # beyond nginx's buffer: from a file
    assert "700 x 500" in reply.text, reply.text[:300]


def test_a_list_of_frames_reaches_no_engine(cluster: LocalCluster) -> None:
    reply = look(cluster, {"type": "video_url", "video_url": {"url": "data:video/jpeg;base64,AAAA,AAAA"}})
    assert (reply.status_code, reply.json()["error"]["code"]) == (400, "video_type_not_allowed")
    assert "X-ManyEyes-Engine" not in reply.headers


def test_a_dear_body_is_400_in_openais_form(cluster: LocalCluster) -> None:
    reply = cluster.client.post(
        f"{cluster.url}/v1/chat/completions", content=DEAR["empty messages"][0].replace('"m"', '"big"', 1)
    )
    assert (reply.status_code, reply.json()["error"]["code"]) == (400, "too_intricate")
    assert set(reply.json()["error"]) == {"message", "type", "param", "code"}


CHAT = '{"model":"big","messages":[{"role":"user","content":"x"}],"max_tokens":2}'
COMPLETION = '{"model":"big","prompt":"x","max_tokens":2}'
PATHS = {
    CHAT: [
        "/v1/chat/completions",
        "//v1/chat/completions",
        "/v1//chat/completions",
        "/v1/chat//completions",
        "///v1///chat///completions",
        "/v1/./chat/completions",
        "/x/../v1/chat/completions",
        "/v1/chat%2Fcompletions",
        "/v1/%63hat/completions",
        "/v1/chat/completions/",
        "//v1//chat//completions/",
        "/v1/chat/completions?a=b%20c",
    ],
    COMPLETION: ["/v1/completions", "//v1/completions", "/v1//completions", "/v1/completions/"],
    None: ["/v1//models", "//v1/models", "/v1/models/", "/v1///models", "/v1/models/big", "/v1//models//big/"],
}


@pytest.mark.parametrize("port", ["gateway", "page"])
@pytest.mark.parametrize(("path", "body"), [(path, body) for body, paths in PATHS.items() for path in paths])
def test_a_path_reaches_the_engine_in_its_one_form(
    cluster: LocalCluster, path: str, body: str | None, port: str
) -> None:
    reply = raw_post(cluster, path, body, port)
    assert reply[0] == 200, reply


def raw_post(cluster: LocalCluster, path: str, body: str | None, port: str = "gateway") -> tuple[int, str]:
    """As it is written: httpx would tidy the path."""
    import http.client

    connection = http.client.HTTPConnection("127.0.0.1", cluster.ports[port], timeout=30)
    headers = {"Content-Type": "application/json"} | (cluster.page_headers if port == "page" else {})
    connection.request("GET" if body is None else "POST", path, body, headers)
    reply = connection.getresponse()
    text = reply.read().decode()
    connection.close()
    return reply.status, text


@pytest.mark.parametrize(
    ("model", "status"), [("big", 200), ("Big", 200), ("org/Big-VL", 200), ("BIG", 404), ("org/big-vl", 404)]
)
def test_a_models_name_counts_as_it_is_written(cluster: LocalCluster, model: str, status: int) -> None:
    reply = cluster.ask(model)
    assert reply.status_code == status, reply.text
    assert status == 200 or reply.json()["error"]["code"] == "model_not_found"


def test_a_name_of_200_letters_is_served_and_a_longer_one_is_named_in_no_inner_form(cluster: LocalCluster) -> None:
    assert cluster.ask("x" * 200).status_code == 200
    for size in (201, 300, 5000, 50_000):
        reply = cluster.ask("x" * size)
        assert (reply.status_code, reply.json()["error"]["code"]) == (404, "model_not_found")
        assert "\0" not in reply.json()["error"]["message"]


def test_two_processes_share_what_they_know(cluster: LocalCluster) -> None:
    seen = {httpx.get(f"{cluster.url}/v1/models").json()["data"][0]["id"] for _ in range(12)}
    assert seen == {"big"}
    assert all(httpx.get(f"{cluster.url}/healthz").status_code == 200 for _ in range(12))


@pytest.mark.parametrize(
    ("method", "path", "allowed"), [("GET", "/v1/chat/completions", "POST"), ("POST", "/v1/models", "GET, HEAD")]
)
def test_a_wrong_method_is_told_the_right_one(cluster: LocalCluster, method: str, path: str, allowed: str) -> None:
    reply = cluster.client.request(method, cluster.url + path)
    assert (reply.status_code, reply.headers["Allow"]) == (405, allowed)
