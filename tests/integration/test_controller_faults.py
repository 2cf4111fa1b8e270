"""What may happen to the controller itself: killed, restarted, its disk full, its files corrupt, its resolver gone."""

import contextlib
import os
import signal
import time
from pathlib import Path

import dns.flags
import dns.rcode
import pytest

from manyeyes.devcluster.cluster import LocalCluster, local_cluster
from manyeyes.devcluster.eventually import eventually
from manyeyes.devcluster.ports import free_port
from tests.integration.documents import document
from tests.integration.full_disk import full_disk
from tests.integration.membership import asked, controller, rotation, sentences, states, within
from tests.integration.raw_tcp_engine import raw_engine

BOTH = {"big-0", "big-1"}


def kept(running: LocalCluster) -> str:
    file = running.folder / "state/members.yaml"
    return file.read_text() if file.exists() else ""


def both_are_kept(running: LocalCluster) -> bool:
    return rotation(running) == BOTH and kept(running).count("state: up") == 2


def answers_http(running: LocalCluster) -> bool:
    with contextlib.suppress(Exception):
        return bool(controller(running, "/live").status_code == 200)
    return False


def test_killed_and_started_again_its_first_answer_is_its_last_one(tmp_path: Path) -> None:
    with local_cluster(tmp_path, document({"big": sorted(BOTH)})) as running:
        eventually(lambda: both_are_kept(running), 30)
        # The engines cannot be looked at: whatever it answers, it remembers.
        for name in BOTH:
            os.killpg(running.processes[name].pid, signal.SIGSTOP)
        running.kill("controller")
        running.start_controller()
        first = eventually(lambda: rotation(running), 20, 0.01)
        assert first == BOTH
        # It answers DNS before it answers HTTP.
        eventually(lambda: answers_http(running), 20, 0.01)
        assert "SERVFAIL" not in controller(running, "/metrics").text
        for name in BOTH:
            os.killpg(running.processes[name].pid, signal.SIGCONT)
        eventually(lambda: set(states(running).values()) == {"up"}, 20)
        assert not [one for one in sentences(running) if "warm-up" in one]


def test_an_engine_that_died_while_it_was_away_is_out_within_2_s_of_its_start(tmp_path: Path) -> None:
    with local_cluster(tmp_path, document({"big": sorted(BOTH)})) as running:
        eventually(lambda: both_are_kept(running), 30)
        running.kill("controller")
        running.kill("big-0")
        running.start_controller()
        eventually(lambda: answers_http(running), 20, 0.01)
        within(2, time.monotonic(), lambda: rotation(running) == {"big-1"}, "died meanwhile, out of rotation")


def test_corrupt_memory_is_set_aside_and_the_service_goes_on(tmp_path: Path) -> None:
    with local_cluster(tmp_path, document({"big": sorted(BOTH)})) as running:
        eventually(lambda: both_are_kept(running), 30)
        running.kill("controller")
        (running.folder / "state/members.yaml").write_bytes(b"{: \xff")
        (running.folder / "state/held.yaml").write_text("[what")
        running.start_controller()
        eventually(lambda: rotation(running) == BOTH, 20)
        assert len(list((running.folder / "state").glob("*.bad"))) == 2
        assert running.log("controller").count("state_set_aside") == 2


def test_a_full_disk_costs_the_memory_and_not_the_service(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    with full_disk(tmp_path / "state"), local_cluster(tmp_path, document({"big": sorted(BOTH)})) as running:
        eventually(lambda: rotation(running) == BOTH, 30)
        eventually(lambda: "No space left on device" in running.log("controller"), 10)
        killed_s = time.monotonic()
        running.kill("big-0")
        within(2, killed_s, lambda: rotation(running) == {"big-1"}, "killed with a full disk, out of rotation")
        assert answers_http(running)


def test_while_no_name_can_be_looked_up_engines_that_answer_stay(tmp_path: Path) -> None:
    """The resolver is gone, as when Docker's own is: nothing is known of names, which is no proof against an engine."""
    ports = {name: free_port() for name in BOTH}
    hosts = tmp_path / "names"
    hosts.write_text("127.0.0.1 engine-host\n")
    with contextlib.ExitStack() as stack:
        for port in ports.values():
            stack.enter_context(raw_engine(port, hang_up=True))  # every probe looks the name up
        addresses = {name: f"127.0.0.1:{port}" for name, port in ports.items()}
        running = stack.enter_context(local_cluster(tmp_path, document({"big": sorted(BOTH)}), addresses=addresses))
        eventually(lambda: rotation(running) == BOTH, 30)
        running.kill("controller")
        file = running.folder / "cluster.yaml"
        file.write_text(file.read_text().replace("127.0.0.1:", "engine-host:"))
        running.start_controller({"PYTHONPATH": str(_resolver(tmp_path, hosts))})
        eventually(lambda: rotation(running) == BOTH, 30)
        hosts.unlink()

        def has_been_looked_up() -> bool:
            if rotation(running) != BOTH:
                pytest.fail("an engine was taken out because its name cannot be looked up")
            return len(failures.read_text()) >= 4 if failures.exists() else False

        failures = hosts.with_name("failures")
        eventually(has_been_looked_up, 60, 0.1, "several look-ups fail")
        hosts.write_text("")  # the resolver is back, and there is no such name
        running.kill("controller")
        running.start_controller({"PYTHONPATH": str(_resolver(tmp_path, hosts))})
        eventually(lambda: rotation(running) == set(), 20)


def _resolver(folder: Path, hosts: Path) -> Path:
    """A folder for PYTHONPATH in which getaddrinfo reads `hosts`, and cannot be asked while there is no such file."""
    made = folder / "resolver"
    made.mkdir(exist_ok=True)
    (made / "sitecustomize.py").write_text(f"""
import socket, pathlib, uvloop
hosts, real = pathlib.Path({str(hosts)!r}), uvloop.Loop.getaddrinfo

class Loop(uvloop.Loop):
    async def getaddrinfo(self, host, port, **more):
        if host != "engine-host":
            return await real(self, host, port, **more)
        if not hosts.exists():
            with hosts.with_name("failures").open("a") as failures:
                failures.write("x")
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        if "engine-host" not in hosts.read_text():
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

uvloop.new_event_loop = uvloop._new_event_loop = Loop
run = uvloop.run
uvloop.run = lambda main, **more: run(main, loop_factory=Loop, **more)
""")
    return made


def test_twenty_engines_in_a_pool_reach_nginx_whose_resolver_has_no_edns(tmp_path: Path) -> None:
    names = [f"e-{number}" for number in range(20)]
    ports = {name: free_port() for name in names}
    with contextlib.ExitStack() as stack:
        for port in ports.values():
            stack.enter_context(raw_engine(port))
        addresses = {name: f"127.0.0.1:{port}" for name, port in ports.items()}
        running = stack.enter_context(local_cluster(tmp_path, document({"big": names}), addresses=addresses))
        eventually(lambda: rotation(running) == set(names), 30)
        small = asked(running, edns=False)
        assert small.flags & dns.flags.TC
        assert small.rcode() == dns.rcode.NOERROR
        assert sum(len(rrset) for rrset in asked(running, tcp=True, edns=False).answer) == 20
        running.answers_from("big", set(names))
