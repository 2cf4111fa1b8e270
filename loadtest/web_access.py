"""Protects Locust's web page in the cluster: starting load, and reading the page from outside, require the admin key.

The controller knows the key: it answers a request that is marked as coming from outside only with it.
"""

import os
import urllib.error
import urllib.request

from flask import Request, Response

CONTROLLER_VARIABLE = "MANYEYES_CONTROLLER_URL"
"""Unset: Locust runs on its operator's machine, and no key is required."""
TIMEOUT_S = 5.0
OUTSIDE = "X-ManyEyes-Outside"
FIGURES = "/stats/requests"
"""The figures of a run, which the web page of the cluster shows without the key."""


def check_access(request: Request) -> Response | None:
    """Returns the refusal of a request to Locust's page; None if it is allowed."""
    if not (controller := os.environ.get(CONTROLLER_VARIABLE, "")):
        return None
    if _is_from_another_site(request):
        return Response("This page can be used only from its own address.\n", 403, content_type="text/plain")
    if request.method == "GET" and request.path.endswith(FIGURES) and OUTSIDE not in request.headers:
        return None
    headers = {OUTSIDE: "1", "Authorization": request.headers.get("Authorization", "")}
    try:
        with urllib.request.urlopen(
            urllib.request.Request(f"{controller}/live", headers=headers), timeout=TIMEOUT_S
        ) as response:
            return None if response.status == 200 else _unavailable()
    except urllib.error.HTTPError as refusal:
        response_headers = {"WWW-Authenticate": challenge} if (challenge := refusal.headers["WWW-Authenticate"]) else {}
        return Response(refusal.read(), refusal.code, response_headers, content_type="application/json")
    except (OSError, ValueError):
        return _unavailable()


def _is_from_another_site(request: Request) -> bool:
    """A browser sends the key also with requests that another site triggers."""
    origin = request.headers.get("Origin", "")
    is_foreign_origin = bool(origin) and origin.partition("://")[2] != request.host
    return is_foreign_origin or request.headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin")


def _unavailable() -> Response:
    return Response(
        "The controller, which checks the admin key, does not answer. Try again.\n", 503, content_type="text/plain"
    )
