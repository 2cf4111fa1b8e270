"""Startup probe: 0 once the engine answers /health and has answered one picture. `warm.py MODEL [--no-picture] [--timeout-s N]`

The first picture is several times slower than those after it, so that no user should get it. Before this probe succeeds
Kubernetes asks no readiness probe, and DNS does not name the pod.
"""

import argparse
import json
import sys
import urllib.request

# A grey PNG of 32 x 32 pixels, as the controller sends it (controller/probe.py).
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
    given = parser.parse_args()
    body = json.dumps(question(given.model, not given.no_picture)).encode()
    asked = urllib.request.Request(
        f"{given.url}/v1/chat/completions", data=body, headers={"Content-Type": "application/json"}
    )
    # Proxies of the environment are for others.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        opener.open(f"{given.url}/health", timeout=given.timeout_s).close()
        reply = json.load(opener.open(asked, timeout=given.timeout_s))
        ended = reply["choices"][0]["finish_reason"]
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        print(f"not warm: {error}", file=sys.stderr)
        return 1
    # vLLM says "abort" with status 200 while it shuts down.
    return 0 if ended in ("length", "stop") else 1


if __name__ == "__main__":
    sys.exit(main())
