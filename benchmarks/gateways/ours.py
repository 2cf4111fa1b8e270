"""This checkout's gateway as in production (its rendered nginx files, njs and controller), and no gateway at all: each client
goes to an engine itself and stays there for its conversation, which is the bound, not a competitor."""

import contextlib
import io
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.gateways.gateway import MODEL, BenchmarkedGateway, GatewaySetting, RunningGateway, answers
from benchmarks.gateways.nginx_docs import nginx_version
from manyeyes.devcluster.cluster import local_cluster
from manyeyes.render.nginx.files import workers_for


@contextlib.contextmanager
def _run_manyeyes(folder: Path, engines: Sequence[str]) -> Iterator[RunningGateway]:
    addresses = {f"gpu-{number}": address for number, address in enumerate(engines)}
    document = {
        "pools": [{"name": MODEL, "model": "Qwen/Qwen3-VL-4B-Instruct-FP8"}],
        "engines": [{"name": name, "pool": MODEL} for name in addresses],
        "controller": {},
        # As `make up` has it for so many engines; those at an address, as here, count for none.
        "gateway": {"workers": workers_for(len(engines))},
    }
    # The stand prints its logs at the end, for tests; they stay in the folder.
    with contextlib.redirect_stdout(io.StringIO()), local_cluster(folder, document, addresses=addresses) as running:
        address = f"127.0.0.1:{running.ports['gateway']}"
        answers(address, lambda: running.processes["nginx"].poll() is None, folder / "controller.log")
        running.answers_from(MODEL, set(addresses))
        yield RunningGateway((address,), {part: running.processes[part].pid for part in ("nginx", "controller")})


MANYEYES = BenchmarkedGateway(
    name="ManyEyes",
    product="ManyEyes",
    version=lambda: f"this commit, nginx {nginx_version()}",
    run=_run_manyeyes,
    settings=(
        GatewaySetting("every setting at its default", "what a user gets from `make up`", "config/"),
        GatewaySetting(
            "CPU and memory are nginx and the controller together",
            "the controller is not in the data path, but it reads the access log",
            "docs/architecture.md",
        ),
    ),
)


@contextlib.contextmanager
def _run_direct(folder: Path, engines: Sequence[str]) -> Iterator[RunningGateway]:
    yield RunningGateway(tuple(engines))


DIRECT = BenchmarkedGateway(
    name="no gateway",
    product="none",
    version=lambda: "-",
    run=_run_direct,
    settings=(
        GatewaySetting(
            "conversation number modulo the number of engines chooses the engine",
            "perfect affinity at no cost; what a gateway can come near to",
            "benchmarks/gateways/ours.py",
        ),
    ),
)
