"""The most expensive request bodies that can be constructed: each is just below one limit of the scan, or far above."""

from collections.abc import Callable, Iterator

from tests.integration.scan.images import chunk, data_url, gif, jpeg, png, segment, tiff

MB = 1024**2


def messages(text: str) -> str:
    return f'{{"model":"m","messages":[{text}]}}'


def parts(text: str) -> str:
    return messages(f'{{"role":"user","content":[{text}]}}')


def beside(text: str) -> str:
    return f'{{"model":"m","x":{text}}}'


def schema(properties: str) -> str:
    return (
        '{"model":"m","messages":[],"response_format":{"type":"json_schema","json_schema":{"name":"x","schema":'
        f'{{"type":"object","properties":{{{properties}}}}}}}}}}}'
    )


def parts_of(files: list[bytes], escape: bool = False) -> str:
    """A message with these images."""
    urls = [data_url(file).replace("/", "\\/") if escape else data_url(file) for file in files]
    images = ",".join(f'{{"type":"image_url","image_url":{{"url":"{url}"}}}}' for url in urls)
    return f'{{"role":"user","content":[{images}]}}'


def image_parts(files: list[bytes], escape: bool = False) -> str:
    return messages(parts_of(files, escape))


def many(text: str, count: int) -> str:
    return ",".join([text] * count)


BELOW: dict[str, Callable[[], str]] = {
    "2 KB chat": lambda: messages(f'{{"role":"user","content":"{"word " * 400}"}}'),
    "16 images of 1 MB": lambda: image_parts([png(900, 900, bytes([n]) * MB) for n in range(16)]),
    "1990 messages": lambda: messages(many('{"role":"user","content":"x"}', 1990)),
    "1990 parts": lambda: parts(many('{"type":"text","text":"x"}', 1990)),
    "1000 parts of odd type": lambda: parts(many('{"type":"x","a":1,"b":2,"c":3}', 1000)),
    "turns of 500 bytes": lambda: messages(many(f'{{"role":"user","content":"{"x" * 500}"}}', 1900)),
    "8000 keys": lambda: parts("{" + ",".join(f'"k{n}":1' for n in range(8000)) + "}"),
    "strings": lambda: beside(f'[{many(chr(34) * 2, 20_000)}]'),
    "escaped quotes": lambda: beside('"' + '\\"' * 64_000 + '"'),
    "runs of backslashes": lambda: beside('"' + ("\\" * 20 + '\\"') * 5800 + '"'),
    "one run of backslashes": lambda: beside('"' + "\\" * 128_000 + '"'),
    "numbers": lambda: f'{{"model":"m","prompt":[{many("1", 130_000)}]}}',
    "nested lists": lambda: parts(many("[" * 60 + "]" * 60, 160)),
    "deep nesting": lambda: beside("[" * 490 + "]" * 490),
    "990 long strings, 62 MB": lambda: beside(f'[{many(chr(34) + "a" * 63_000 + chr(34), 990)}]'),
    "one string of 62 MB": lambda: beside('"' + "a" * 62 * MB + '"'),
    "1 MiB of short strings": lambda: beside(f'[{many(chr(34) + "a" * 4000 + chr(34), 260)}]'),
    "a uuid in 1000 parts": lambda: parts(many('{"type":"text","text":"x","uuid":"x"}', 1000)),
    "a uuid and 7 MB": lambda: parts(f'{{"type":"text","text":"{"x" * 7 * MB}","uuid":"x"}}'),
    "links": lambda: parts(many(f'{{"image_url":"http://h/{"x" * 4000}"}}', 62)),
    "256 small images": lambda: image_parts([png(8, 6)] * 256),
    "256 jpegs of 10 segments": lambda: image_parts([jpeg(8, 6, segment(0xE1, b"") * 10)] * 256),
    "256 images of 200 KB": lambda: image_parts([png(8, 6, bytes([n]) * 180_000) for n in range(256)]),
    "256 equal marks": lambda: image_parts([png(8, 6, b"x" * 9000)] * 256),
    "a png of 4000 chunks": lambda: image_parts([png(8, 6, before=chunk(b"teSt", b"") * 4000)]),
    "a jpeg of 1400 segments": lambda: image_parts([jpeg(8, 6, segment(0xE1, b"x" * 764) * 1400)]),
    "a gif of 15000 blocks": lambda: image_parts([gif(8, 6, (0, 0, 8, 6), b"!\xfe" + b"\1x" * 15_000 + b"\0")]),
    "a tiff of 7000 tags": lambda: image_parts([tiff([(n, 3, 1, 8) for n in range(256, 7256)])]),
    "images with \\/": lambda: image_parts([png(8, 6, b"\xff" * 300_000)] * 75, escape=True),
    "a jpeg with \\/ and metadata": lambda: image_parts(
        [jpeg(8, 6, segment(0xE1, b"\xff" * 40_000)) + b"\xff" * 100_000] * 3, escape=True
    ),
    "3900 keys in a schema": lambda: schema(",".join(f'"p{n}":{{"type":"string"}}' for n in range(1900))),
    "9900 keys in tools": lambda: (
        '{"model":"m","messages":[],"tools":[' + ",".join(f'{{"a":{n},"b":{n},"c":1}}' for n in range(2400)) + "]}"
    ),
    "a regular expression of 16 KB": lambda: schema(
        ",".join(f'"p{n}":{{"pattern":"{"(a{2})" * 660}"}}' for n in range(4))
    ),
    "1000 messages, 100 images, quotes": lambda: messages(
        many('{"role":"user","content":"' + "\\\"" * 10 + '"}', 1000) + "," + parts_of([png(8, 6)] * 100)
    ),
}  # fmt: skip
ABOVE: dict[str, Callable[[], str]] = {
    "1 MB of empty messages": lambda: messages(many("{}", 340_000)),
    "1 MB of empty parts": lambda: parts(many("{}", 340_000)),
    "60 MB of spaces": lambda: beside(" " * 60 * MB + "1"),
    "58 MB of backslashes": lambda: beside('"' + "\\" * 58 * MB + '"'),
    "60 MB of escaped quotes": lambda: beside('"' + '\\"' * 30 * MB + '"'),
    "60 MB of strings": lambda: beside(f'[{many(chr(34) * 2, 20 * MB)}]'),
    "15000 long strings": lambda: beside(f'[{many(chr(34) + "a" * 4100 + chr(34), 15_000)}]'),
    "300 images of 200 KB": lambda: image_parts([png(8, 6, b"x" * 140_000)] * 300),
    "a model of 60 MB": lambda: f'{{"model":"{"m" * 60 * MB}"}}',
    "60 MB of equal keys": lambda: "{" + many('"model":"m"', 5 * MB) + "}",
    "10 million brackets": lambda: beside("[" * 5 * MB + "]" * 5 * MB),
}  # fmt: skip


def bodies() -> Iterator[tuple[str, bytes]]:
    """(name, body), made one after the other: together they are a gigabyte."""
    for name, make in (BELOW | ABOVE).items():
        yield name, make().encode()
