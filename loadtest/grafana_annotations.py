"""Marks in Grafana: from when to when each phase was. Never a reason to fail."""

import json
import urllib.request
from collections.abc import Sequence

from loadtest.progress import console

TIMEOUT_S = 5.0


class Annotations:
    """Grafana's HTTP API (`POST /api/annotations`), at `url` with a service account's `token`; without a URL nothing is done."""

    def __init__(self, url: str = "", token: str = "") -> None:
        self._url, self._token = url.rstrip("/"), token
        self.trouble = ""

    def mark(self, text: str, start_s: float, end_s: float, tags: Sequence[str] = ()) -> None:
        """After the first failure nobody asks again, and one line says why."""
        if not self._url or self.trouble:
            return
        body = {
            "time": round(1000 * start_s),
            "timeEnd": round(1000 * end_s),
            "tags": ["manyeyes-loadtest", *tags],
            "text": text,
        }
        headers = {"Content-Type": "application/json"}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        try:
            request = urllib.request.Request(f"{self._url}/api/annotations", json.dumps(body).encode(), headers)
            urllib.request.urlopen(request, timeout=TIMEOUT_S).close()
        except (OSError, ValueError) as error:
            self.trouble = f"Grafana takes no marks: {error}. The run goes on without them."
            console.print(f"  !!  {self.trouble}")
