"""`tests/run swarm`: the rendered stack on a swarm of one node, with emulated engines, for real.

Turns the Docker daemon into a swarm and back: refused where it is in one already. Deploys, asks, scales a pool 2 -> 6 -> 2 under load,
updates it, kills an engine, and prints what came of each. Leaves no stack, no volume, no swarm and no network behind.
"""

import contextlib
import json
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import yaml

ROOT = Path(__file__).resolve().parents[2]
STACK, PORT, USERS = "manyeyes-proof", 18_088, 12
OUT = ROOT / "build/swarm-proof"
URL = f"http://127.0.0.1:{PORT}"
BRIDGE = "docker_gwbridge"


def docker(*arguments: str, check: bool = True) -> str:
    run = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False, cwd=ROOT)
    if check and run.returncode:
        raise SystemExit(f"docker {' '.join(arguments)}: {run.stderr.strip()}")
    return run.stdout.strip()


def until(check: Callable[[], bool], within_s: float, what: str) -> float:
    began = time.monotonic()
    while time.monotonic() < began + within_s:
        if check():
            return time.monotonic() - began
        time.sleep(0.2)
    print(docker("service", "ls", check=False))
    for service in docker("service", "ls", "--quiet", check=False).split():
        print(docker("service", "ps", "--no-trunc", service, check=False))
        print(docker("service", "logs", "--tail", "15", service, check=False))
    raise SystemExit(f"{what}: not within {within_s} s")


def ask(client: httpx.Client) -> tuple[int, str]:
    body = {"model": "qwen3-vl-8b", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 8}
    try:
        reply = client.post(f"{URL}/v1/chat/completions", json=body)
    except httpx.TransportError as error:
        return 0, type(error).__name__
    return reply.status_code, f"{reply.headers.get('X-ManyEyes-Pool')}/{reply.headers.get('X-ManyEyes-Engine')}"


@contextlib.contextmanager
def users() -> Iterator[Counter[tuple[int, str]]]:
    seen: Counter[tuple[int, str]] = Counter()
    over = threading.Event()

    def user() -> None:
        with httpx.Client(timeout=60, trust_env=False) as client:
            while not over.is_set():
                seen[ask(client)] += 1

    threads = [threading.Thread(target=user) for _ in range(USERS)]
    for thread in threads:
        thread.start()
    try:
        yield seen
    finally:
        over.set()
        for thread in threads:
            thread.join()


def told(what: str, seen: Counter[tuple[int, str]]) -> None:
    statuses: Counter[int] = Counter()
    for (status, _), count in seen.items():
        statuses[status] += count
    answered = {name for (status, name), _ in seen.items() if status == 200}
    print(
        f"{what}: {sum(statuses.values())} requests, by status {dict(statuses)}, answered by {len(answered)} engines",
        flush=True,
    )


def engines_up(pool: str) -> int:
    with contextlib.suppress(httpx.TransportError, ValueError, KeyError):
        pools = httpx.get(f"{URL}/healthz", trust_env=False).json()["pools"]
        return int(next((one["up"] for one in pools if one["name"] == pool), -1))
    return -1


def rendered() -> Path:
    document = yaml.safe_load((ROOT / "config/cluster.yaml").read_text())
    document["gateway"] = {**document.get("gateway", {}), "port": PORT, "host": "0.0.0.0", "anonymous": True}
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / "cluster.yaml").write_text(yaml.safe_dump(document))
    subprocess.run(
        [sys.executable, "-m", "manyeyes.cli", "swarm", "--config", OUT / "cluster.yaml", "--out", OUT / "stacks"],
        cwd=ROOT,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    return OUT / "stacks/emulated/stack.yaml"


def prove(file: Path) -> None:
    began = time.monotonic()
    print(docker("stack", "deploy", "--detach=true", "--resolve-image=never", "-c", str(file), STACK))
    until(lambda: engines_up("qwen3-vl-8b") == 2 and engines_up("qwen3-vl-4b") == 1, 180, "all engines up")
    print(f"from `docker stack deploy` to all engines up: {time.monotonic() - began:.0f} s")
    page_s = until(lambda: httpx.get(URL, trust_env=False).status_code == 200, 120, "the page")
    print(f"the page answers {page_s:.0f} s later")
    service = f"{STACK}_qwen3-vl-8b"
    with users() as seen:
        docker("service", "scale", "--detach", f"{service}=6")
        took = until(lambda: len({name for _, name in list(seen)}) >= 6, 120, "six engines answer")
        print(f"scaled 2 -> 6, all six answer after {took:.0f} s")
        docker("service", "scale", "--detach", f"{service}=2")
        took = until(
            lambda: (
                len(docker("service", "ps", "-q", "-f", "desired-state=running", service).split()) == 2
                and not _leaving(service)
            ),
            180,
            "two are left",
        )
        print(f"scaled 6 -> 2, the others are gone after {took:.0f} s")
    told("scaling 2 -> 6 -> 2", seen)
    with users() as seen:
        docker("service", "update", "--detach", "--force", service)
        took = until(lambda: _updated(service), 240, "the update is over")
        print(f"rolling restart of both engines: {took:.0f} s")
    told("rolling restart", seen)
    with users() as seen:
        time.sleep(2)
        container = docker("ps", "-q", "-f", f"label=com.docker.swarm.service.name={service}").split()[0]
        docker("kill", container)
        until(lambda: engines_up("qwen3-vl-8b") == 1, 60, "the killed one is out")
        took = until(lambda: engines_up("qwen3-vl-8b") == 2, 120, "another one is up")
        print(f"another engine is up {took:.0f} s after the killed one was out")
    told("one of two engines killed", seen)


def _leaving(service: str) -> bool:
    return bool(docker("ps", "-q", "-f", f"label=com.docker.swarm.service.name={service}").split()[2:])


def _updated(service: str) -> bool:
    state = json.loads(docker("service", "inspect", service))[0].get("UpdateStatus", {})
    return bool(state.get("State") == "completed")


def main() -> int:
    if docker("info", "--format", "{{.Swarm.LocalNodeState}}") != "inactive":
        print("This Docker daemon is in a swarm already; the proof makes one of its own and leaves it.")
        return 2
    had_bridge = BRIDGE in docker("network", "ls", "--format", "{{.Name}}").split()
    docker("swarm", "init", "--advertise-addr", "127.0.0.1", "--listen-addr", "127.0.0.1:2377")
    try:
        prove(rendered())
    finally:
        docker("stack", "rm", STACK, check=False)
        mine = ("ps", "-aq", "-f", f"label=com.docker.stack.namespace={STACK}")
        deadline = time.monotonic() + 60
        while docker(*mine) and time.monotonic() < deadline:
            for container in docker(*mine).split():
                docker("kill", container, check=False)
            time.sleep(1)
        docker("swarm", "leave", "--force", check=False)
        for container in docker(*mine).split():
            docker("rm", "-f", container, check=False)
        if not had_bridge:
            docker("network", "rm", BRIDGE, check=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
