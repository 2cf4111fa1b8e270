"""Startup probe of an engine: `startup_probe.py MODEL [--no-picture] [--timeout-s N] [--mark FILE]`.

It exits with 0 when the engine answers /health and has answered one image. The first image is several times slower than
later ones, so no client should send it. On Kubernetes, readiness probes start only after the startup probe succeeds,
and until then DNS does not return the pod. With --mark it is the only health check on Swarm: FILE is created when the
image was answered, and after that only /health is checked.
"""

import argparse
import json
import sys
import urllib.request
from pathlib import Path

# A grey PNG of 32 x 32 pixels, as the controller sends it (manyeyes/controller/health/probe.py).
PNG = "iVBORw0KGgoAAAANSUhEUgAAACAAAAAgCAAAAABWESUoAAAAFklEQVR42mNoIAAYRhWMKhhVMFIVAABCAAAfN5c2AAAAAABJRU5ErkJggg=="


def build_request(model: str, with_image: bool) -> dict[str, object]:
    """Returns a chat request for one token, with one image if `picture` is true."""
    content: list[dict[str, object]] = [{"type": "text", "text": "What is this?"}]
    if with_image:
        content.insert(0, {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}})
    return {"model": model, "messages": [{"role": "user", "content": content}], "max_tokens": 1}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--no-picture", action="store_true")
    parser.add_argument("--timeout-s", type=float, default=120)
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--mark", type=Path)
    arguments = parser.parse_args()
    body = json.dumps(build_request(arguments.model, not arguments.no_picture)).encode()
    request = urllib.request.Request(
        f"{arguments.url}/v1/chat/completions", data=body, headers={"Content-Type": "application/json"}
    )
    # Ignores proxies from the environment.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        opener.open(f"{arguments.url}/health", timeout=arguments.timeout_s).close()
        if arguments.mark and arguments.mark.exists():
            return 0
        response = json.load(opener.open(request, timeout=arguments.timeout_s))
        finish_reason = response["choices"][0]["finish_reason"]
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        print(f"not warm: {error}", file=sys.stderr)
        return 1
    # vLLM answers with "abort" and status 200 while it shuts down.
    if finish_reason not in ("length", "stop"):
        return 1
    if arguments.mark:
        arguments.mark.touch()
    return 0


if __name__ == "__main__":
    sys.exit(main())
