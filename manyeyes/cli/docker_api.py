"""Access to containers, images, volumes and networks through Docker's SDK. Compose and image builds run as commands."""

import contextlib
import time
from collections.abc import Callable, Iterator

from docker.client import DockerClient
from docker.errors import APIError, DockerException
from requests.exceptions import RequestException

from manyeyes.cli.terminal import CliError

TIMEOUT_S = 30.0
PULL_S = 6 * 3600.0
"""vLLM's image for GPUs is 13 GB compressed: 3 hours at 10 Mbit/s."""


class PullFailed(Exception):
    """An image could not be pulled; the text is Docker's reason."""


@contextlib.contextmanager
def docker_client(timeout_s: float = TIMEOUT_S) -> Iterator[DockerClient]:
    """A client of the same Docker engine that the command `docker` uses. Docker errors inside it are raised as
    CliError."""
    try:
        with contextlib.closing(DockerClient.from_env(timeout=timeout_s, use_ssh_client=True)) as client:
            yield client
    except (DockerException, RequestException) as error:
        raise CliError(f"Docker: {_reason(error)}") from error


def has_image(reference: str) -> bool:
    """Whether the image is on this host; false without a Docker engine."""
    try:
        with docker_client() as client:
            client.api.inspect_image(reference)
    except CliError:
        return False
    return True


def pull_image(reference: str, on_progress: Callable[[str], None]) -> None:
    """Pulls an image and calls `on_progress` with the downloaded size. Raises PullFailed, TimeoutError."""
    layers: dict[str, tuple[int, int]] = {}
    deadline = time.monotonic() + PULL_S
    try:
        with contextlib.closing(DockerClient.from_env(timeout=TIMEOUT_S, use_ssh_client=True)) as client:
            for event in client.api.pull(reference, stream=True, decode=True):
                if "error" in event:
                    raise PullFailed(event["error"])
                if event.get("status") == "Downloading":
                    size = event["progressDetail"]
                    layers[event["id"]] = size.get("current", 0), size.get("total", 0)
                    downloaded, total = (sum(layer[part] for layer in layers.values()) / 1e6 for part in (0, 1))
                    on_progress(f"{downloaded:.0f} of {total:.0f} MB")
                if time.monotonic() > deadline:
                    raise TimeoutError
    except (DockerException, RequestException) as error:
        raise PullFailed(_reason(error)) from error


def _reason(error: Exception) -> str:
    """Returns the explanation of Docker's engine, or the error itself if the engine did not answer."""
    explanation = error.explanation if isinstance(error, APIError) else error
    return " ".join(str(explanation or error).split())
