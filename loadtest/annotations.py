"""Marks when a run was: in the cluster under test (POST /api/marks, docs/api.md) and in Grafana. Never a reason to fail.

The admin key comes from the environment: without one nothing is marked in the cluster.
"""

import contextlib
import os
import urllib.parse
from collections.abc import Iterator, Sequence

from loadtest.http_client import bearer, fetch
from loadtest.run import console

ADMIN_KEY_VARIABLE = "MANYEYES_ADMIN_KEY"
TIMEOUT_S = 5.0
SPARE_S = 60.0
"""A run that is killed does not end its mark; the mark then ends so much later than planned."""


class ControllerAnnotations:
    def __init__(self, url: str, trusted: str = "") -> None:
        self._url, self._trusted = f"{url.rstrip('/').removesuffix('/v1')}/api/marks", trusted
        self._key = os.environ.get(ADMIN_KEY_VARIABLE, "")
        self.trouble = ""

    @contextlib.contextmanager
    def during(self, text: str, seconds: float) -> Iterator[None]:
        """A mark around the body, which should take `seconds`."""
        text = text.replace("/", " of ")[:120]
        self._ask("POST", "", {"text": text, "seconds": min(86_400, seconds + SPARE_S)})
        try:
            yield
        finally:
            self._ask("DELETE", "/" + urllib.parse.quote(text, safe=""))

    def _ask(self, method: str, path: str, body: dict[str, object] | None = None) -> None:
        """After the first failure nobody asks again, and one line says why."""
        if not self._key or self.trouble:
            return
        try:
            fetch(
                self._url + path,
                body,
                bearer(self._key),
                method=method,
                trusted=self._trusted,
                timeout_s=TIMEOUT_S,
            )
        except (OSError, ValueError) as error:
            self.trouble = f"the run is not marked in the cluster: {error}"
            console.print(f"  !!  {self.trouble}")


class GrafanaAnnotations:
    """Grafana's HTTP API (`POST /api/annotations`), at `url` with a service account's `token`; without a URL nothing is done."""

    def __init__(self, url: str = "", token: str = "") -> None:
        self._url, self._token = url.rstrip("/"), token
        self.trouble = ""

    def mark(self, text: str, start_s: float, end_s: float, tags: Sequence[str] = ()) -> None:
        """After the first failure nobody asks again, and one line says why."""
        if not self._url or self.trouble:
            return
        times = {"time": round(1000 * start_s), "timeEnd": round(1000 * end_s)}
        body = {**times, "tags": ["manyeyes-loadtest", *tags], "text": text}
        try:
            fetch(f"{self._url}/api/annotations", body, bearer(self._token), timeout_s=TIMEOUT_S, uses_proxy=True)
        except (OSError, ValueError) as error:
            self.trouble = f"Grafana takes no marks: {error}. The run goes on without them."
            console.print(f"  !!  {self.trouble}")
