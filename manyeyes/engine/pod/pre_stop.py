"""Before a pod's engine is told to stop: `pre_stop.py --announced-s 35 --finish-s 300`.

Kubernetes takes the pod out of DNS at the same instant; gateways may have the old answer for --announced-s more and go on sending
requests, which are served. From then on nothing new comes, and what is inside may finish for --finish-s. vLLM must not get
SIGTERM earlier: it then refuses new requests, or ends them empty with status 200.
"""

import argparse
import json
import sys
import time
import urllib.request

LOOK_EVERY_S = 1.0


def inside(url: str) -> int | None:
    """Requests in the engine; None where it does not tell."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        return int(json.load(opener.open(f"{url}/load", timeout=5))["server_load"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--announced-s", type=float, required=True)
    parser.add_argument("--finish-s", type=float, required=True)
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    given = parser.parse_args()
    time.sleep(given.announced_s)
    until = time.monotonic() + given.finish_s
    # One that does not tell may be busy, or gone: there is nothing better than to wait the time out, or for the kubelet to end it.
    while inside(given.url) != 0 and time.monotonic() < until:
        time.sleep(LOOK_EVERY_S)
    return 0


if __name__ == "__main__":
    sys.exit(main())
