"""The controller's own tasks and its event loop: each task is restarted, and no file or name lookup blocks the answers of DNS."""

import ast
import asyncio
import builtins
import io
import os
import socket
import sys
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import dns.message
import dns.rcode
import pytest

from manyeyes.controller.supervision import keep_running
from tests.live_controller import PATIENCE_S, LiveController, live_controller
from tests.unit.test_controller_dns import SRV

ROOT = Path(__file__).resolve().parents[2]
QUERY = dns.message.make_query(SRV, "SRV").to_wire()
FILE_CALLS = [
    *((builtins, "open"), (io, "open")),
    *((os, name) for name in ("open", "fsync", "replace", "rename", "unlink", "mkdir", "listdir", "scandir", "symlink", "readlink", "stat", "chmod")),
    *((socket, name) for name in ("getaddrinfo", "gethostbyname")),
]  # fmt: skip
SOURCE_LINES = ("linecache", "inspect", "tokenize", "<frozen genericpath>")
SHORT = {
    "controller/membership/engine_monitor.py": "a canary: its exceptions are raised in the next probe",
    "controller/health/probe.py": "counters of one probe: their exceptions are raised in the probe",
    "controller/autoscaling/lifecycle.py": "one start or stop: it handles its own exceptions",
    "controller/autoscaling/actuators.py": "one restart: it handles its own exceptions",
    "controller/__main__.py": "the HTTP server: the controller exits with it; and the wait for a signal",
    "egress_proxy/proxy.py": "two directions of one connection: their exceptions are handled by its handler",
    "openai_adapter/__main__.py": "a server, and the end of one",
    "openai_adapter/app.py": "one request, and the end of its connection",
}
"""Tasks that end by themselves."""


def created_tasks(file: Path) -> list[ast.Call]:
    """The calls that create a task which is not supervised."""
    return [
        call
        for call in ast.walk(ast.parse(file.read_text()))
        if isinstance(call, ast.Call)
        and getattr(call.func, "attr", "") in ("create_task", "ensure_future")
        and "keep_running(" not in ast.unparse(call)
    ]


def test_every_task_that_has_no_end_is_supervised() -> None:
    folders = [ROOT / "manyeyes" / name for name in ("controller", "egress_proxy", "openai_adapter")]
    found = {
        str(file.relative_to(ROOT / "manyeyes")): [ast.unparse(call) for call in calls]
        for folder in folders
        for file in folder.rglob("*.py")
        if (calls := created_tasks(file))
    }
    watching = found.pop("controller/membership/fleet.py")
    assert watching == ["self._tasks.create_task(watching)"]  # which is keep_running() one line above
    assert set(found) == set(SHORT)


def coroutine_name(task: "asyncio.Task[Any]") -> str:
    return getattr(task.get_coro(), "__qualname__", "")


async def test_the_tasks_of_a_running_controller_are_all_supervised(tmp_path: Path) -> None:
    before = asyncio.all_tasks()
    async with live_controller(tmp_path) as live:
        await live.call("GET", "/status")
        names = sorted(coroutine_name(task) for task in asyncio.all_tasks() - before)
        supervised = [name for name in names if name == "keep_running"]
        # Two engines, a remote endpoint, and: members_memory is within `engines`; gateway, configuration, spans, dns_udp, scaling.
        assert len(supervised) >= 9, names
        others = {name for name in names if name != "keep_running"}
        assert others <= {
            "run", "Server.serve", "QuietServer.serve", "Event.wait", "Probe._read_counters", "Probe.send_canary",
            "RequestResponseCycle.run_asgi", "LifespanOn.main",
        }, others  # fmt: skip


async def test_a_task_that_fails_again_and_again_waits_longer_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 8:
            raise asyncio.CancelledError

    async def fails() -> None:
        raise ValueError

    monkeypatch.setattr("manyeyes.controller.supervision.asyncio.sleep", sleep)
    with pytest.raises(asyncio.CancelledError):
        await keep_running("test", fails)
    assert pauses == [1, 2, 4, 8, 16, 30, 30, 30]


async def change_everything(live: LiveController) -> None:
    """Every kind of change that writes to disk or reads a file of an operator."""
    engine = {"name": "new", "pool": "big", "address": "127.0.0.1:11"}
    assert (await live.call("POST", "/api/engines", engine)).status_code == 201
    assert (await live.call("PATCH", "/api/engines/e-0", {"weight": 3})).status_code == 200
    assert (await live.call("POST", "/api/engines/e-0/drain")).status_code == 200
    assert (await live.call("POST", "/api/engines/e-0/resume")).status_code == 200
    endpoint = {"url": "http://127.0.0.1:12/x", "template": {"q": "{USER_PROMPT}"}, "answer": "$.a", "ca_file": "none"}
    for path, body in (("/api/engines", {"name": "adapted", "pool": "big", "endpoint": endpoint}),
                       ("/api/pools", {"name": "away", "model": "m2", "remote": {"url": "http://127.0.0.1:9/v1", "key_file": "none"}})):  # fmt: skip
        assert (await live.call("POST", path, body)).status_code == 422  # a file that does not exist
    assert (await live.call("POST", "/api/pools/big/scale", {"engines": 2})).status_code in (200, 409)
    assert (await live.call("DELETE", "/api/engines/new")).status_code == 200
    assert (await live.call("DELETE", "/api/engines/unknown")).status_code == 404
    assert "manyeyes_" in (await live.call("GET", "/metrics")).text


async def until(check: Callable[[], Awaitable[object]]) -> None:
    """Waits until `check` returns a truthy value; the test's own limit ends it."""
    while True:
        if await check():
            return
        await asyncio.sleep(0.02)


async def is_long(items: list[int], count: int) -> bool:
    return len(items) >= count


async def applied(live: LiveController, digest: str) -> str:
    """Waits until another configuration is applied and nginx runs it."""
    while True:
        status = (await live.call("GET", "/api/configuration")).json()
        gateway = status["gateway"]
        if status["applied"]["digest"] != digest and gateway["desired"] == gateway["active"]:
            return str(status["applied"]["digest"])
        await asyncio.sleep(0.05)


async def test_no_file_is_touched_and_no_name_is_looked_up_on_the_event_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: set[str] = set()
    async with live_controller(tmp_path) as live:
        first = await applied(live, "")
        with monkeypatch.context() as patch:
            for module, name in FILE_CALLS:
                patch.setattr(module, name, reporting(getattr(module, name), name, found))
            await change_everything(live)
            live_write = live.document["pools"]
            assert isinstance(live_write, list)
            document = live.document | {"pools": [{**live_write[0], "aliases": ["other"]}, *live_write[1:]]}
            await asyncio.to_thread(live.write, **document)
            second = await applied(live, first)
            await asyncio.to_thread(live.settings.config.write_text, "{{ broken }}: [")
            await until(lambda: live.configuration("refused"))
        assert second != first
    assert not found, "\n".join(sorted(found))


def reporting(call: Callable[..., Any], name: str, found: set[str]) -> Callable[..., Any]:
    """The same call, which notes where it was made if that was on the thread of the event loop."""
    loop_thread = threading.get_ident()

    def wrapped(*arguments: Any, **named: Any) -> Any:
        caller = frame = sys._getframe(1) if threading.get_ident() == loop_thread else None
        while frame is not None and "/manyeyes/" not in frame.f_code.co_filename:
            frame = frame.f_back
        # FastAPI names the source lines of a route in an error: files of the image, each read once.
        if frame is not None and caller is not None and Path(caller.f_code.co_filename).stem not in SOURCE_LINES:
            place = f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno} {frame.f_code.co_name}"
            found.add(f"{name}: {place}, by {caller.f_code.co_filename}:{caller.f_lineno}")
        return call(*arguments, **named)

    return wrapped


async def test_while_the_disk_hangs_dns_answers_and_afterwards_everything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk_works = threading.Event()
    hanging: list[int] = []
    real_fsync, loop_thread = os.fsync, threading.get_ident()

    def fsync(handle: int) -> None:
        assert threading.get_ident() != loop_thread, "the event loop waits for the disk"
        hanging.append(handle)
        disk_works.wait(PATIENCE_S)
        real_fsync(handle)

    async with live_controller(tmp_path) as live:
        await applied(live, "")
        monkeypatch.setattr(os, "fsync", fsync)
        drain = asyncio.create_task(live.call("POST", "/api/engines/e-0/drain"))
        register = asyncio.create_task(
            live.call("POST", "/api/engines", {"name": "new", "pool": "big", "address": "127.0.0.1:11"})
        )
        pools = live.document["pools"]
        assert isinstance(pools, list)
        live.write(pools=[{**pools[0], "aliases": ["other"]}, *pools[1:]])
        await until(lambda: is_long(hanging, 2))  # the drain, and nginx's files or the members
        for _ in range(20):
            reply = dns.message.from_wire(await live.asks(QUERY))
            assert reply.rcode() == dns.rcode.NOERROR
        assert not register.done()
        assert (await live.call("GET", "/status")).status_code == 200
        disk_works.set()
        assert (await drain).status_code == 200
        assert (await register).status_code == 201
        assert "e-0" in (tmp_path / "state/held.yaml").read_text()
        assert (tmp_path / "state/engines/new.yaml").exists()
