"""The pre-stop hook of an engine's pod: `pre_stop.py --announced-s 35 --finish-s 300`.

Kubernetes removes the pod from DNS at the same time. Gateways may use a cached answer for --announced-s and continue to
send requests, which are served. After that no new requests arrive, and requests in flight may finish within --finish-s.
vLLM must not get SIGTERM earlier, because it then rejects new requests, or ends them empty with status 200.
"""

import argparse
import json
import sys
import time
import urllib.request

POLL_INTERVAL_S = 1.0


def query_load(url: str) -> int | None:
    """Returns the number of requests in the engine; None if the engine does not report it."""
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
    arguments = parser.parse_args()
    time.sleep(arguments.announced_s)
    deadline = time.monotonic() + arguments.finish_s
    # An engine that does not report it may be busy or gone, so wait until the timeout, or until the kubelet kills it.
    while query_load(arguments.url) != 0 and time.monotonic() < deadline:
        time.sleep(POLL_INTERVAL_S)
    return 0


if __name__ == "__main__":
    sys.exit(main())
