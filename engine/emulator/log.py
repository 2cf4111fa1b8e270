"""One JSON line an event, on standard output."""

import orjson


def log(event: str, **fields: object) -> None:
    print(orjson.dumps({"event": event, **fields}).decode(), flush=True)
