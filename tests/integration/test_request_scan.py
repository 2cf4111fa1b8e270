"""What the gateway reads from a body, against a real JSON parser over random and broken documents."""

import json
import random
from typing import Any

import pytest

from tests.integration.scan.images import SMALL_URL, data_url, png
from tests.integration.scan.server import Modules

SYSTEM = ("system", "developer")
LETTERS = 'ab "\\/\n\t{}[]:,é漢😀\u2028'


class Writer:
    """Random chat bodies as text, written in every way JSON allows, with the facts a reader must find in them."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.ascii = self.random.random() < 0.5

    def blank(self) -> str:
        return self.random.choice(["", "", "", " ", "\n  ", "\t", "\r\n"])

    def dump(self, value: Any) -> str:
        """`value` with random blanks between tokens."""
        if isinstance(value, dict):
            items = [
                f"{self.blank()}{self.key(k)}{self.blank()}:{self.blank()}{self.dump(v)}" for k, v in value.items()
            ]
            return "{" + (self.blank() + ",").join(items) + self.blank() + "}"
        if isinstance(value, list):
            return "[" + ",".join(f"{self.blank()}{self.dump(v)}{self.blank()}" for v in value) + "]"
        return json.dumps(value, ensure_ascii=self.ascii)

    def key(self, key: str) -> str:
        """Now and then its first letter is written as an escape."""
        if key and ord(key[0]) < 0x10000 and self.random.random() < 0.1:
            return f'"\\u{ord(key[0]):04x}' + json.dumps(key[1:])[1:]
        return json.dumps(key)

    def text(self) -> str:
        return "".join(self.random.choice(LETTERS) for _ in range(self.random.randrange(12)))

    def junk(self, depth: int = 0) -> Any:
        """Anything, with keys that mean something elsewhere."""
        kind = self.random.randrange(7 if depth < 4 else 5)
        if kind < 5:
            return [
                self.text(),
                None,
                self.random.random() < 0.5,
                self.random.randrange(-99, 99),
                self.random.uniform(-9, 9),
            ][kind]
        if kind == 5:
            return [self.junk(depth + 1) for _ in range(self.random.randrange(4))]
        keys = [
            "model",
            "messages",
            "role",
            "content",
            "text",
            "stream",
            "temperature",
            "assistant",
            "effort",
            self.text(),
        ]
        return {key: self.junk(depth + 1) for key in self.random.sample(keys, self.random.randrange(4))}

    def part(self) -> dict[str, Any]:
        url = self.random.choice([SMALL_URL, SMALL_URL, "https://example.com/a.png"])
        return self.random.choice(
            [
                {"type": "text", "text": self.text()},
                {"type": "image_url", "image_url": {"detail": "low", "url": url}},
                {"image_url": url, "type": "input_image"},
                {"type": "video_url", "video_url": {"url": url.replace("image/png", "video/mp4")}},
                {"type": "thinking", "thinking": self.text()},
            ]
        )

    def message(self) -> dict[str, Any]:
        content: Any = self.text()
        if self.random.random() < 0.5:
            content = [self.part() for _ in range(self.random.randrange(4))]
        elif self.random.random() < 0.1:
            content = None
        message = {"role": self.random.choice(["user", "user", "assistant", "system", "tool"]), "content": content}
        if self.random.random() < 0.2:
            message["tool_calls"] = [{"function": {"name": "f", "arguments": self.text()}}]
        return self.shuffled(message)

    def shuffled(self, items: dict[str, Any]) -> dict[str, Any]:
        return dict(self.random.sample(list(items.items()), len(items)))

    def body(self) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self.text() or "m",
            "messages": [self.message() for _ in range(self.random.randrange(6))],
        }
        if self.random.random() < 0.3:
            body["stream"] = self.random.choice([True, False, None])
        if self.random.random() < 0.3:
            body["temperature"] = self.random.choice([0, 0.0, 1, 0.7, -0.0, 1e-3])
        if self.random.random() < 0.2:
            body["reasoning_effort"] = self.random.choice(["low", "high"])
        if self.random.random() < 0.2:
            body["prompt_cache_key"] = self.text()
        for key in self.random.sample(["tools", "metadata", "x", "user", "response_format"], self.random.randrange(3)):
            body[key] = self.junk()
        return self.shuffled(body)


def units(text: str) -> int:
    """What JavaScript calls the length of a text."""
    return len(text.encode("utf-16-le")) // 2


def expected(body: dict[str, Any]) -> dict[str, Any]:
    """The facts, from the parsed document."""
    facts: dict[str, Any] = {
        "model": body["model"],
        "stream": body.get("stream") is True,
        "temperature": body.get("temperature"),
        "effort": body.get("reasoning_effort", ""),
        "cacheKey": body.get("prompt_cache_key", ""),
        "images": 0,
        "videos": 0,
        "textBytes": 0,
        "links": [],
        "sizes": [],
    }
    for place, message in enumerate(body["messages"]):
        content = message["content"]
        if isinstance(content, str):
            facts["textBytes"] += units(content)
        for number, part in enumerate(content if isinstance(content, list) else []):
            facts["textBytes"] += units(part.get("text", ""))
            facts["images"] += "image_url" in part
            facts["videos"] += "video_url" in part
            for key in ("image_url", "video_url"):
                if key in part:
                    url = part[key] if isinstance(part[key], str) else part[key]["url"]
                    facts["links"] += [url] if not url.startswith("data:") else []
                    if url == SMALL_URL and key == "image_url":
                        facts["sizes"].append([f"messages[{place}].content[{number}]", 8, 6])
    return facts


def turn(message: dict[str, Any]) -> str:
    """Role, texts and media of one message, as request.js joins them."""
    told, content = message["role"], message["content"]
    if isinstance(content, str):
        told += f"\0{content}"
    for part in content if isinstance(content, list) else []:
        for key, value in part.items():
            if key == "text":
                told += f"\0{value}"
            elif key in ("image_url", "video_url"):
                told += "\0" + (value if isinstance(value, str) else value["url"])
    if "tool_calls" in message:
        told += json.dumps(message["tool_calls"], ensure_ascii=False, separators=(",", ":"))
    return str(told)


def conversation(body: dict[str, Any]) -> dict[str, Any]:
    """The turns of the parsed document."""
    messages = body["messages"]
    start = next((n for n, one in enumerate(messages) if one["role"] not in SYSTEM), len(messages))
    turns = messages[start:]
    answers = [n for n, one in enumerate(turns) if one["role"] == "assistant"]
    users = [turn(one) for one in turns if one["role"] == "user"]
    return {
        "turns": [turn(one) for one in turns],
        "answered": answers[-1] if answers else 0,
        "firstUser": users[0] if users else "",
    }


@pytest.mark.parametrize("seed", range(8))
def test_random_bodies_are_read_as_a_json_parser_reads_them(njs: Modules, seed: int) -> None:
    writers = [Writer(1000 * seed + n) for n in range(400)]
    bodies = [writer.body() for writer in writers]
    documents = [writer.dump(body).encode() for writer, body in zip(writers, bodies, strict=True)]
    for document, body, found in zip(documents, bodies, njs.read(documents), strict=True):
        assert json.loads(document) == body
        assert "refused" not in found, (found, document)
        wanted = expected(body)
        assert {key: found[key] for key in wanted} == wanted, document
        told = {key: found[key] for key in ("turns", "answered", "firstUser")}
        assert told == conversation(body), document


@pytest.mark.parametrize("seed", range(4))
def test_only_the_top_level_model_is_renamed_and_every_other_byte_stays(njs: Modules, seed: int) -> None:
    writers = [Writer(70_000 + 1000 * seed + n) for n in range(300)]
    bodies = [writer.body() for writer in writers]
    documents = [writer.dump(body) for writer, body in zip(writers, bodies, strict=True)]
    renamed = njs.renamed([document.encode() for document in documents])
    for document, body, new in zip(documents, bodies, renamed, strict=True):
        assert json.loads(new) == body | {"model": 'another "one"'}
        assert new.count("\n") == document.count("\n")


@pytest.mark.parametrize("seed", range(4))
def test_cut_bodies_are_refused_and_never_read_as_whole(njs: Modules, seed: int) -> None:
    writer = Writer(seed)
    documents = []
    for n in range(300):
        whole = Writer(5000 + 1000 * seed + n)
        text = whole.dump(whole.body()).encode()
        documents.append(text[: writer.random.randrange(len(text))])
    assert all("refused" in found for found in njs.read(documents))


@pytest.mark.parametrize("seed", range(4))
def test_damaged_bodies_are_read_in_bounded_time_and_what_no_parser_takes_is_mostly_refused(
    njs: Modules, seed: int
) -> None:
    chance = random.Random(seed)
    documents = []
    for n in range(400):
        whole = Writer(9000 + 1000 * seed + n)
        text = bytearray(whole.dump(whole.body()).encode())
        for _ in range(chance.randrange(1, 4)):
            at = chance.randrange(len(text))
            text[at : at + chance.randrange(2)] = chance.choice(
                [b'"', b"{", b"}", b"[", b"]", b",", b":", b"\\", b"x", b"\xff", b"\0"]
            )
        documents.append(bytes(text))
    for document, found in zip(documents, njs.read(documents), strict=True):
        try:
            body = json.loads(document)
        except ValueError:
            continue
        is_damaged_image = "cannot be read" in found.get("refused", "")
        if isinstance(body, dict) and isinstance(body.get("model"), str) and not is_damaged_image:
            assert found.get("model") == body["model"], document


NESTED = 100_000


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"   ",
        b"null",
        b"[]",
        b'"text"',
        b"{",
        b'{"model":"m"',
        b'{"model":"m"}}',
        b'{"model":"m"} {}',
        b'{"model":"m",}',
        b'{"model" "m"}',
        b'{"model":}',
        b'{"a":[1,]}',
        b'{"a":[,1]}',
        b"{'model':'m'}",
        b'{"model":"m\\"}',
        b"\xef\xbb\xbf{}",
        b'{"a":' * NESTED + b"1" + b"}" * NESTED,
        b'{"a":' + b"[" * NESTED + b"]" * NESTED + b"}",
        b'{"a":"' + b'\\"' * 8_000_000 + b'"}',
        b'{"a":[' + b"1," * 4_000_000 + b"1]}",
    ],
    ids=lambda document: f"{document[:20]!r} {len(document)}",
)
def test_what_is_no_json_object_or_too_intricate_is_refused(njs: Modules, document: bytes) -> None:
    assert "refused" in njs.read([document])[0]


def test_a_16_mb_picture_is_jumped_over(njs: Modules) -> None:
    url = data_url(png(8, 6, b"x" * 12 * 1024**2))
    body = {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}], "model": "m"}
    found = njs.read([json.dumps(body).encode()])[0]
    assert (found["model"], found["images"]) == ("m", 1)
    assert found["firstImage"].startswith(f"\0{len(url)}:")


def test_a_model_that_stands_in_tools_or_messages_is_not_the_model(njs: Modules) -> None:
    tools = [{"type": "function", "function": {"parameters": {"properties": {"model": {"type": "string"}}}}}]
    body = {
        "tools": tools,
        "messages": [{"role": "user", "content": "x", "model": "no"}],
        "metadata": {"model": "no"},
        "model": "yes",
    }
    assert njs.read([json.dumps(body).encode()])[0]["model"] == "yes"


def test_of_a_key_that_comes_twice_the_last_counts_as_for_the_engine(njs: Modules) -> None:
    message = '[{"role":"user","content":[{"type":"image_url","image_url":{"url":"data:,"}}]}]'
    document = f'{{"messages":{message},"messages":[{{"role":"user","content":"a","content":"bc"}}],"model":"two"}}'
    found = njs.read([document.encode(), b'{"model":"one","model":5}'])
    assert (found[0]["model"], found[0]["images"], found[0]["textBytes"]) == ("two", 0, 2)
    assert "more than once" in found[1]["refused"]


def test_responses_and_completions_are_read_too(njs: Modules) -> None:
    bodies: list[dict[str, Any]] = [
        {"model": "m", "input": "Hello"},
        {
            "model": "m",
            "input": [
                {
                    "role": "user",
                    "content": [{"type": "input_text", "text": "Hi"}, {"type": "input_image", "image_url": SMALL_URL}],
                }
            ],
        },
        {
            "model": "m",
            "reasoning": {"effort": "high"},
            "input": [{"role": "user", "content": "a"}, {"type": "function_call", "name": "f"}],
        },
        {"model": "m", "prompt": "Once"},
        {"model": "m", "prompt": ["Once", "Twice"]},
        {"model": "m", "prompt": [1, 2, 3]},
    ]
    found = njs.read([json.dumps(body).encode() for body in bodies])
    assert [(one["textBytes"], one["images"], one["effort"], one["answered"]) for one in found] == [
        (5, 0, "", 0),
        (2, 1, "", 0),
        (1, 0, "high", 1),
        (4, 0, "", 0),
        (9, 0, "", 0),
        (0, 0, "", 0),
    ]


def test_a_link_is_found_wherever_a_message_hides_it(njs: Modules) -> None:
    contents: list[Any] = [
        [{"type": "image_url", "image_url": {"url": "http://h/"}}],
        [{"type": "image_url", "image_url": "http://h/"}],
        [{"image_url": {"detail": {"url": "http://h/"}}}],
        [[{"image_url": {"url": "http://h/"}}]],
        {"image_url": {"url": "http://h/"}},
        [{"type": "file", "file_url": "http://h/"}],
        [{"type": "image_url", "image_url": [{"url": "http://h/"}]}],
    ]
    documents = [
        json.dumps({"model": "m", "messages": [{"role": "user", "content": content}]}).encode() for content in contents
    ]
    documents.append(documents[0].replace(b'"url"', b'"\\u0075rl"').replace(b"http:", b"h\\u0074tp:"))
    assert [found["links"] for found in njs.read(documents)] == [["http://h/"]] * len(documents)


def test_pictures_in_the_body_are_no_links_however_they_are_written(njs: Modules) -> None:
    urls = [
        SMALL_URL,
        SMALL_URL.replace("data", "DATA"),
        SMALL_URL.replace("/", "\\/"),
        SMALL_URL.replace("d", "\\u0064"),
    ]
    texts = [
        f'{{"model":"m","messages":[{{"role":"user","content":[{{"image_url":{{"url":"{url}"}}}}]}}]}}' for url in urls
    ]
    assert [found["links"] for found in njs.read([text.encode() for text in texts])] == [[]] * len(urls)
