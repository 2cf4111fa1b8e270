"""Checks that vLLM's image can use the GPUs, before the weights are downloaded: a container allocates memory on each.

It finds what nvidia-smi does not show: a missing container toolkit, a driver that is too old for the image, a GPU for
which the image has no kernels.
"""

from manyeyes.cli import start_failure
from manyeyes.cli.process import CommandFailed, run
from manyeyes.cli.terminal import CliError, step
from manyeyes.config.placement import PlacedCluster

TIMEOUT_S = 180.0
"""The first use of eight GPUs without persistence mode takes about ten seconds, and reading the image from a slow disk a
minute."""
ALLOCATE = """
import torch
for number in range(torch.cuda.device_count()):
    (torch.zeros(1024, 1024, device=f"cuda:{number}") + 1).sum().item()
print(torch.cuda.device_count(), "GPUs work")
"""


def probe_gpus(cluster: PlacedCluster) -> None:
    """Raises CliError if the image cannot use the GPUs of the engines that Compose starts."""
    engines = [engine for engine in cluster.started_engines if engine.flavour == "cuda"]
    gpus = list(dict.fromkeys(gpu for engine in engines for gpu in engine.gpus))
    if not gpus:
        return
    # The inner quotes are for Docker, which otherwise reads the comma as its own.
    devices = f'"device={",".join(gpus)}"'
    image = cluster.images.vllm_cuda
    command = ["docker", "run", "--rm", "--network=none", "--pull=never", f"--gpus={devices}", "--entrypoint=python3"]
    with step(f"testing {len(gpus)} GPU{'s' if len(gpus) > 1 else ''} with vLLM's image") as current:
        try:
            run([*command, image, "-c", ALLOCATE], timeout_s=TIMEOUT_S)
        except CommandFailed as error:
            lines = [line for line in error.output.splitlines() if line.strip()]
            cause, _ = start_failure.root_cause(lines)
            raise CliError(
                f"vLLM's image cannot use the GPUs: {cause or error.last_line} {start_failure.remedy(cause)}".strip(),
                details="\n".join(lines[-25:]),
            ) from error
        except TimeoutError as error:
            raise CliError(
                f"vLLM's image did not use the GPUs within {TIMEOUT_S:.0f} s. The driver may hang (dmesg shows an Xid): "
                "restart this host, or try FLAVOUR=cpu."
            ) from error
        current.outcome = f"vLLM's image can use {len(gpus)} GPU{'s' if len(gpus) > 1 else ''}"
