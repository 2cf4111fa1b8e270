"""Docker's own faults, on an engine of the test's own: its restart, its sudden death, its full disk. `make test-nightly`.

Wants root and a network namespace of its own (the target makes one); takes some minutes and 3 GB of memory for the engine's disk.
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from benchmarks.chaos.experiment import ClusterContainers
from benchmarks.chaos.load import LoadUsers
from loadtest.gateway_client import GatewayClient
from loadtest.http_client import parse_target
from loadtest.users import mix
from loadtest.virtual_user import RequestSettings
from manyeyes.config.gateway import Images
from manyeyes.devcluster.eventually import eventually

ROOT = Path(__file__).resolve().parents[2]
NAME, PORT = "manyeyes-long", 18094
# Not the loopback's: what asks for that goes through a process of Docker's, what comes from outside through the kernel's own rules, and
# so does what asks an address like this one.
ADDRESS = "10.77.77.1"
URL = f"http://{ADDRESS}:{PORT}"
DISK_MB = 2800
CONFIG = f"""
name: {NAME}
flavour: emulated
pools:
  - {{name: big, model: org/Big-VL}}
  - {{name: some, model: org/Some-VL, scaling: {{min: 1}}}}
engines:
  - {{name: emu-0, pool: big, flavour: emulated}}
  - {{name: emu-1, pool: big, flavour: emulated}}
  - {{name: emu-2, pool: big, flavour: emulated}}
  - {{name: one, pool: some, flavour: emulated}}
  - {{name: two, pool: some, flavour: emulated}}
gateway: {{host: {ADDRESS}, anonymous: true, port: {PORT}}}
controller: {{register_private: true}}
monitoring: {{enabled: false}}
network: {{subnet: 10.213.83.0/24, controller_ip: 10.213.83.2}}
"""


def alone() -> bool:
    """In a network namespace with nothing but the loopback interface, or this test's own bridges."""
    return os.geteuid() == 0 and not any(name.startswith(("eth", "en")) for _, name in socket.if_nameindex())


pytestmark = pytest.mark.skipif(not alone(), reason="wants root and a network namespace of its own: make test-nightly")


@dataclass
class Engine:
    """A dockerd with a small disk of its own."""

    folder: Path
    process: "subprocess.Popen[bytes] | None" = None
    crowds: list[LoadUsers] = field(default_factory=list)

    @property
    def data(self) -> Path:
        return self.folder / "data"

    def start(self, live_restore: bool = False) -> None:
        command = [
            shutil.which("dockerd") or "/usr/sbin/dockerd", f"--host=unix://{self.folder}/d.sock", f"--data-root={self.data}",
            f"--exec-root={self.folder}/exec", f"--pidfile={self.folder}/pid", "--default-address-pool=base=10.214.0.0/16,size=24",
            f"--add-runtime=clamp={ROOT}/manyeyes/cli/docker/runc-clamp", "--default-runtime=clamp", "--log-level=warn",
            *(["--live-restore"] if live_restore else []),
        ]  # fmt: skip
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        eventually(self.answers, 60, 0.2, "the test's Docker engine")

    def answers(self) -> bool:
        return subprocess.run(["docker", "version"], capture_output=True).returncode == 0

    def end(self, number: int) -> None:
        assert self.process
        self.process.send_signal(number)
        self.process.wait(timeout=60)

    def fill(self) -> Path:
        """Leaves not a block free."""
        filler = self.data / "filler"
        for size in (1 << 20, 512):
            with contextlib.suppress(OSError), filler.open("ab", buffering=0) as file:
                while file.write(b"\0" * size):
                    pass
        return filler


def load_images(into: str, folder: Path) -> None:
    """Those of the host's engine; building wants a network, which this namespace has none of."""
    images = Images()
    names = [images.nginx, images.controller, images.webui, images.emulator]
    there = {**os.environ, "DOCKER_HOST": into}
    with subprocess.Popen(
        ["docker", "save", *names], stdout=subprocess.PIPE, env={**os.environ, "DOCKER_HOST": ""}
    ) as save:
        subprocess.run(["docker", "load", "-q"], stdin=save.stdout, check=True, capture_output=True, env=there)
    assert save.returncode == 0


def make(target_name: str, folder: Path, *given: str) -> None:
    environment = {
        **os.environ,
        "MANYEYES_ENV_FILE": str(folder / "env"),
        "SECRETS_DIR": str(folder / "secrets"),
        "DOCKER": "keep",
    }
    ended = subprocess.run(
        ["make", target_name, f"CONFIG={folder}/config/cluster.yaml", *given],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    subprocess.run(["ip", "address", "add", f"{ADDRESS}/32", "dev", "lo"], check=True)
    folder = tmp_path_factory.mktemp("d")
    folder.chmod(0o755)
    one = Engine(folder)
    one.data.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "tmpfs", one.data], check=True)
    before = os.environ.get("DOCKER_HOST")
    os.environ["DOCKER_HOST"] = f"unix://{folder}/d.sock"
    os.environ["DOCKER_SOCKET"] = f"{folder}/d.sock"  # what stands in front of it for the controller
    (folder / "secrets").mkdir(mode=0o750)
    (folder / "config").mkdir()
    (folder / "config").chmod(0o755)
    (folder / "config/cluster.yaml").write_text(CONFIG)
    try:
        one.start()
        load_images(os.environ["DOCKER_HOST"], folder)
        make("up", folder)
        make("scale", folder, "N=1", "POOL=some")
        whole(time.time())
        yield one
    finally:
        with contextlib.suppress(AssertionError):
            make("clean", folder)
        if one.process and one.process.poll() is None:
            one.end(signal.SIGTERM)
        print((folder / "log").read_text(errors="replace")[-6000:])
        subprocess.run(["umount", "-l", one.data], check=False)
        del os.environ["DOCKER_SOCKET"]
        if before is None:
            del os.environ["DOCKER_HOST"]
        else:
            os.environ["DOCKER_HOST"] = before


@contextlib.contextmanager
def people(count: int = 12) -> Iterator[LoadUsers]:
    users = LoadUsers(RequestSettings(to=parse_target(URL), model="big"), mix("text"))
    users.start(count)
    try:
        eventually(lambda: sum(not one.failed for one in users.samples) > 10, 30)
        yield users
    finally:
        users.stop()


def whole(since_s: float, within_s: float = 180) -> float:
    """Waits until every part runs and is healthy and every engine gets requests; seconds since then."""

    def check() -> bool:
        states = ClusterContainers(NAME).states()
        assert states, "Docker does not answer"
        scaled = {"one", "two"}
        bad = [name for name, one in states.items() if not (one.running and one.healthy) and name not in scaled]
        assert bad == [], bad
        up = GatewayClient(URL).up()
        assert up - scaled == {"emu-0", "emu-1", "emu-2"}
        # Scaled down to one before any fault, and so it stays.
        assert len(up & scaled) == 1, up
        assert sum(states[name].running for name in scaled) == 1, states
        return True

    eventually(check, within_s, 0.5, "the cluster is whole")
    return time.time() - since_s


def started(service: str) -> bool:
    return subprocess.run(["docker", "start", f"{NAME}-{service}-1"], capture_output=True).returncode == 0


def register(name: str, folder: Path) -> int:
    key = (folder / "secrets/admin.key").read_text().strip()
    body = {"name": name, "pool": "big", "address": "10.213.83.77:8000"}
    return httpx.post(
        f"{URL}/api/engines", json=body, headers={"Authorization": f"Bearer {key}"}, timeout=10
    ).status_code


def registered(folder: Path) -> set[str]:
    key = (folder / "secrets/admin.key").read_text().strip()
    told = httpx.get(f"{URL}/api/engines", headers={"Authorization": f"Bearer {key}"}, timeout=10).json()
    return {one["name"] for one in (told["engines"] if isinstance(told, dict) else told)}


def test_docker_restarted_takes_the_cluster_down_and_it_comes_back_by_itself(engine: Engine) -> None:
    assert register("kept", engine.folder) < 300
    with people() as users:
        struck_s = time.time()
        engine.end(signal.SIGTERM)
        stopped_s = time.time() - struck_s
        engine.start()
        took_s = whole(struck_s)
        eventually(lambda: any(not one.failed and one.began_s > struck_s + took_s for one in users.samples), 30)
    failed = [one for one in users.samples if one.failed]
    late = [one for one in failed if one.began_s > struck_s + took_s + 2]
    print(
        f"restart: stopped in {stopped_s:.1f} s, whole again {took_s:.1f} s after the strike, {len(failed)} of {len(users.samples)} requests failed"
    )
    assert late == []
    assert "kept" in registered(engine.folder)


def test_docker_killed_costs_nothing_until_it_starts_again_and_then_the_cluster_comes_back_by_itself(
    engine: Engine,
) -> None:
    """Without live-restore a starting dockerd ends what one before it left running, and counts that as somebody's `docker stop`."""
    with people() as users:
        struck_s = time.time()
        engine.end(signal.SIGKILL)
        time.sleep(5)
        without = [one for one in users.samples if one.began_s > struck_s]
        engine.start()
        took_s = whole(struck_s)
        eventually(lambda: any(not one.failed and one.began_s > struck_s + took_s for one in users.samples), 30)
    failed = [one for one in users.samples if one.failed]
    lost = [one for one in without if one.failed]
    print(
        f"killed: {len(without)} requests in 5 s without Docker, {len(lost)} failed; whole again {took_s:.1f} s after the strike, {len(failed)} of {len(users.samples)} failed in all"
    )
    assert len(without) > 10
    assert lost == []
    assert [one for one in failed if one.began_s > struck_s + took_s + 2] == []
    assert "kept" in registered(engine.folder)


def test_with_live_restore_a_killed_docker_costs_nothing_at_all(engine: Engine) -> None:
    engine.end(signal.SIGTERM)
    engine.start(live_restore=True)
    whole(time.time())
    with people() as users:
        before = ClusterContainers(NAME).states()
        struck_s = time.time()
        engine.end(signal.SIGKILL)
        time.sleep(5)
        engine.start(live_restore=True)
        took_s = whole(struck_s)
        eventually(lambda: any(not one.failed and one.began_s > struck_s + took_s for one in users.samples), 30)
    failed = [one for one in users.samples if one.failed]
    print(
        f"killed with live-restore: whole again {took_s:.1f} s after the strike, {len(failed)} of {len(users.samples)} failed"
    )
    assert failed == []
    # Only the filter in front of Docker's socket begins anew: the socket is another one.
    assert [name for name, one in ClusterContainers(NAME).states().items() if one != before[name]] == ["containers"]


def test_a_full_disk_refuses_changes_and_serves_on(engine: Engine) -> None:
    with people() as users:
        before = len(users.samples)
        filler = engine.fill()
        try:
            assert shutil.disk_usage(engine.data).free < 64 * 1024
            assert register("refused", engine.folder) == 507
            eventually(lambda: len(users.samples) > before + 60, 60)
            assert "refused" not in registered(engine.folder)
            subprocess.run(["docker", "kill", "-s", "KILL", f"{NAME}-controller-1"], check=True, capture_output=True)
            eventually(lambda: len(users.samples) > before + 100, 60)
        finally:
            filler.unlink()
        eventually(lambda: started("controller"), 60, 1)
        whole(time.time())
        assert register("taken", engine.folder) < 300
    print(f"full disk: {len(users.samples)} requests, {sum(bool(one.failed) for one in users.samples)} failed")
    assert [one.failed for one in users.samples if one.failed] == []
    assert {"kept", "taken"} <= registered(engine.folder)
