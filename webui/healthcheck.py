"""Container health check: exits with code 0 if the page responds. Run it with `python -m webui.healthcheck`."""

import os
import sys
import urllib.request

from webui import settings

TIMEOUT_S = 3


def main() -> int:
    url = f"http://127.0.0.1:{settings.read_settings(os.environ).port}/"
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    request = urllib.request.Request(url, headers={"Accept": "text/html"})  # the login page also counts
    try:
        with opener.open(request, timeout=TIMEOUT_S) as response:
            return 0 if response.status == 200 else 1
    except OSError as error:
        print(f"{url} does not respond: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
