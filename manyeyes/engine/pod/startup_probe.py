"""0 once the engine answers /health and has answered one picture. `startup_probe.py MODEL [--no-picture] [--timeout-s N] [--mark FILE]`

The first picture is several times slower than those after it, so that no user should get it. It is the startup probe on
Kubernetes: before it succeeds no readiness probe is asked, and DNS does not name the pod. With --mark it is a health check for
Swarm, which has one for everything: FILE tells that the picture was answered, and from then on only /health is asked.
"""

import argparse
import json
import sys
import urllib.request
from pathlib import Path

# A grey PNG of 32 x 32 pixels, as the controller sends it (manyeyes/controller/health/probe.py).
PNG = "iVBORw0KGgoAAAANSUhEUgAAACAAAAAgCAAAAABWESUoAAAAFklEQVR42mNoIAAYRhWMKhhVMFIVAABCAAAfN5c2AAAAAABJRU5ErkJggg=="


def question(model: str, picture: bool) -> dict[str, object]:
    """One token about one picture."""
    content: list[dict[str, object]] = [{"type": "text", "text": "What is this?"}]
    if picture:
        content.insert(0, {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}})
    return {"model": model, "messages": [{"role": "user", "content": content}], "max_tokens": 1}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--no-picture", action="store_true")
    parser.add_argument("--timeout-s", type=float, default=120)
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--mark", type=Path)
    given = parser.parse_args()
    body = json.dumps(question(given.model, not given.no_picture)).encode()
    asked = urllib.request.Request(
        f"{given.url}/v1/chat/completions", data=body, headers={"Content-Type": "application/json"}
    )
    # Proxies of the environment are for others.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        opener.open(f"{given.url}/health", timeout=given.timeout_s).close()
        if given.mark and given.mark.exists():
            return 0
        reply = json.load(opener.open(asked, timeout=given.timeout_s))
        ended = reply["choices"][0]["finish_reason"]
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        print(f"not warm: {error}", file=sys.stderr)
        return 1
    # vLLM says "abort" with status 200 while it shuts down.
    if ended not in ("length", "stop"):
        return 1
    if given.mark:
        given.mark.touch()
    return 0


if __name__ == "__main__":
    sys.exit(main())
