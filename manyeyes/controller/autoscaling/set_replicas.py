"""`python -m manyeyes.controller.autoscaling.set_replicas N|auto [--pool POOL]`: sets the number of engines of a pool.

It prints one line per engine whenever the engine's stage changes. `make scale` runs it inside the controller's
container. Exit codes: 0 done, 1 timeout, 2 refused.
"""

import argparse
import sys
import time
from typing import Any

import httpx

from manyeyes.controller.registry.middleware import ADMIN_KEY_FILE
from manyeyes.controller.settings import ControllerSettings

POLL_S = 0.5
STAGE_TEXTS = {
    "serving": "serves",
    "starting": "is starting",
    "draining": "is draining",
    "stopped": "is stopped",
    "unavailable": "is started but not available (down, or drained by an operator)",
}


class SetReplicasError(Exception):
    """The count could not be set; the message says why."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="make scale", description=__doc__)
    parser.add_argument("engines", help="number of engines, or auto")
    parser.add_argument("--pool", default="", help="the pool; required when there are several")
    parser.add_argument("--wait-s", type=float, default=900.0)
    arguments = parser.parse_args()
    try:
        return scale(ControllerSettings(), arguments.engines, arguments.pool, arguments.wait_s)
    except SetReplicasError as error:
        print(error, file=sys.stderr)
        return 2


def scale(settings: ControllerSettings, engines: str, pool: str, wait_s: float) -> int:
    """Sets the count and waits until it is reached. Returns the exit code. Raises SetReplicasError."""
    if not engines.isdecimal() and engines != "auto":
        raise SetReplicasError(
            f"The number of engines: expected a number or `auto`, got '{engines}'. "
            "Run `make scale N=2 [POOL=...]`, or `make scale N=auto` for autoscaling."
        )
    with httpx.Client(base_url=f"http://127.0.0.1:{settings.http_port}", timeout=10, trust_env=False) as client:
        pool = pool or _only_pool(client)
        count = None if engines == "auto" else int(engines)
        state = _call(client, "POST", f"/api/pools/{pool}/scale", {"engines": count}, _key(settings))
        if count is None and state["fixed"] is None:
            print(f"{state['pool']}: the number of engines follows the load again; {state['serving']} serve")
            return 0
        return _follow(client, state, state["fixed"], time.monotonic() + wait_s)


def _follow(client: httpx.Client, state: dict[str, Any], desired: int, until_s: float) -> int:
    printed: dict[str, str] = {}
    problem = ""
    while True:
        if state["problem"] and state["problem"] != problem:
            problem = state["problem"]
            print(f"  {problem}", file=sys.stderr, flush=True)
        for engine in state["engines"]:
            if printed.get(engine["name"]) != engine["stage"]:
                printed[engine["name"]] = engine["stage"]
                busy = (
                    f", {engine['in_flight']} in flight"
                    if engine["stage"] == "draining" and engine["in_flight"]
                    else ""
                )
                print(f"  {engine['name']} {STAGE_TEXTS[engine['stage']]}{busy}", flush=True)
        settled = not any(engine["stage"] in ("starting", "draining") for engine in state["engines"])
        if settled and state["serving"] == desired == state["desired"]:
            print(f"{state['pool']}: {desired} engine{' serves' if desired == 1 else 's serve'}")
            return 0
        if time.monotonic() > until_s:
            why = state["problem"] or "run `docker compose logs controller` for details"
            print(f"{state['pool']}: {state['serving']} of {desired} engines serve; {why}", file=sys.stderr)
            return 1
        time.sleep(POLL_S)
        state = _call(client, "GET", f"/api/pools/{state['pool']}/scaling")


def _only_pool(client: httpx.Client) -> str:
    names = [pool["name"] for pool in _call(client, "GET", "/status")["pools"] if pool["flavour"] != "remote"]
    if len(names) == 1:
        return str(names[0])
    raise SetReplicasError(
        f"There are {len(names)} pools, so name one: `make scale N=2 POOL=...`. Pools: {', '.join(names)}."
    )


def _key(settings: ControllerSettings) -> str:
    try:
        return (settings.secrets / ADMIN_KEY_FILE).read_text(encoding="utf-8").strip()
    except OSError as error:
        raise SetReplicasError(
            f"The admin key in secrets/{ADMIN_KEY_FILE} cannot be read ({type(error).__name__}). "
            "Run `make up` to create it."
        ) from error


def _call(
    client: httpx.Client, method: str, path: str, body: dict[str, Any] | None = None, key: str = ""
) -> dict[str, Any]:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    try:
        reply = client.request(method, path, json=body, headers=headers)
        document = reply.json()
    except (httpx.HTTPError, ValueError) as error:
        raise SetReplicasError(f"The controller does not respond: {type(error).__name__} {error}".strip()) from error
    if reply.status_code != 200:
        raise SetReplicasError(
            document.get("error", {}).get("message") or f"The controller responds with {reply.status_code}."
        )
    return dict(document)


if __name__ == "__main__":
    sys.exit(main())
