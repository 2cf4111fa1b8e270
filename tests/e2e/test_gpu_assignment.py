"""Each engine's first process gets exactly its own GPUs, shown without a GPU: a Docker engine of the test's own, with an
empty stand-in for NVIDIA's hook, lets the reservations through and puts NVIDIA_VISIBLE_DEVICES where the real hook reads it.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from manyeyes.config.gateway import Images
from manyeyes.config.loader import load
from manyeyes.config.placement import DEFAULT_INVENTORY, place_engines
from manyeyes.devcluster.eventually import eventually
from manyeyes.render.renderer import render

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="starting a Docker engine wants root")


@dataclass
class OwnEngine:
    """A dockerd beside the host's: its own socket, images and containers, no bridge, no firewall rules."""

    folder: Path

    def docker(self, *arguments: str, environment: dict[str, str] | None = None) -> str:
        told = subprocess.run(
            ["docker", "-H", f"unix://{self.folder}/docker.sock", *arguments],
            capture_output=True, text=True, cwd=ROOT, env={**os.environ, **(environment or {})},
        )  # fmt: skip
        assert told.returncode == 0, told.stdout + told.stderr
        return told.stdout


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnEngine]:
    folder = tmp_path_factory.mktemp("dockerd")
    hook = folder / "bin/nvidia-container-runtime-hook"
    hook.parent.mkdir()
    hook.write_text("#!/bin/sh\nexit 0\n")
    hook.chmod(0o755)
    log = (folder / "log").open("w")
    process = subprocess.Popen(
        [
            # Network and mounts of its own: a second engine would take the host's docker0 away from the first.
            "unshare", "--net", "--mount", "--propagation=private",
            shutil.which("dockerd") or "/usr/sbin/dockerd", f"--host=unix://{folder}/docker.sock",
            f"--data-root={folder}/data", f"--exec-root={folder}/exec", f"--pidfile={folder}/pid",
            "--bridge=none", "--iptables=false", "--ip6tables=false", "--storage-driver=vfs",
            f"--add-runtime=clamp={ROOT}/manyeyes/cli/docker/runc-clamp", "--default-runtime=clamp",
        ],
        stdout=log, stderr=log, start_new_session=True,
        env={**os.environ, "PATH": f"{hook.parent}:{os.environ['PATH']}:/usr/sbin:/sbin"},
    )  # fmt: skip
    own = OwnEngine(folder)
    try:
        eventually(lambda: (folder / "docker.sock").exists() and _answers(own), 60, 0.2, "the test's Docker engine")
        _sleeping_image(own, folder)
        yield own
    finally:
        with contextlib.suppress(AssertionError):
            if running := own.docker("ps", "-aq").split():
                own.docker("rm", "-f", *running)
        process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=30)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        log.close()
        print((folder / "log").read_text()[-3000:])
        shutil.rmtree(folder / "data", ignore_errors=True)


def _answers(own: OwnEngine) -> bool:
    own.docker("version")
    return True


def _sleeping_image(own: OwnEngine, folder: Path) -> None:
    """Under vLLM's tag: a process that takes any flags and sleeps; from this host's own files."""
    root = folder / "image"
    for source in ("/bin/sleep", "/bin/sh", *_libraries("/bin/sleep"), *_libraries("/bin/sh")):
        target = root / source.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, target)
    subprocess.run(["tar", "-C", root, "-cf", folder / "image.tar", "."], check=True)
    entrypoint = 'ENTRYPOINT ["/bin/sh", "-c", "exec /bin/sleep 1000", "vllm-serve"]'
    own.docker("import", "-c", entrypoint, str(folder / "image.tar"), Images().vllm_cuda)


def _libraries(program: str) -> list[str]:
    listed = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
    words = [word for line in listed.splitlines() for word in line.split()]
    return [word for word in words if word.startswith("/")]


def start(own: OwnEngine, config: Path, folder: Path) -> dict[str, str]:
    """Starts the rendered engines of a configuration; {engine: NVIDIA_VISIBLE_DEVICES of its first process}.

    The file is taken as rendered, but for the downloader and the MPS server, which the sleeping image cannot be.
    """
    text = render(place_engines(load(config), DEFAULT_INVENTORY), DEFAULT_INVENTORY, Path("c.yaml"), Path("r"))[
        "engines.yaml"
    ]
    document = yaml.safe_load(text)
    example = config.stem
    services = {name: service for name, service in document["services"].items() if name not in ("models", "mps")}
    for service in services.values():
        del service["depends_on"]
        service.pop("ipc", None)
        service.pop("entrypoint", None)  # of engines that share a GPU: Python, which the sleeping image has not
        for mount in service["volumes"]:
            mount.pop("volume", None)  # a folder of the volume, which the downloader creates
    document |= {"name": f"gpu-{example}", "services": services}
    file = folder / "engines.yaml"
    file.write_text(yaml.safe_dump(document))
    try:
        own.docker("compose", "-f", str(file), "up", "-d")
        found = {}
        for name in services:
            told = json.loads(own.docker("inspect", f"gpu-{example}-{name}-1"))[0]
            environ = Path(f"/proc/{told['State']['Pid']}/environ").read_bytes().split(b"\0")
            visible = [one for one in environ if one.startswith(b"NVIDIA_VISIBLE_DEVICES=")]
            found[name] = visible[0].split(b"=")[1].decode() if visible else ""
        return found
    finally:
        own.docker("compose", "-f", str(file), "down", "-t", "0")


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ("config/cluster.yaml", {"gpu-0": "0", "gpu-1": "1"}),
        ("config/examples/three-4090.yaml", {"gpu-0": "0", "gpu-1": "1", "gpu-2": "2"}),
        ("config/examples/tensor-parallel.yaml", {"pair-0": "0,1", "pair-1": "2,3"}),
        ("config/examples/gpu-shared-by-two.yaml", {"gpu-0-8b": "0", "gpu-0-4b": "0"}),
    ],
)
def test_each_engines_first_process_has_exactly_its_own_gpus(
    engine: OwnEngine, config: str, expected: dict[str, str], tmp_path: Path
) -> None:
    assert start(engine, ROOT / config, tmp_path) == expected
