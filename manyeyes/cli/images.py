"""Provides images: uses local images, pulls missing images, and builds images whose version this project pins."""

import re
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from functools import partial

from docker.errors import ImageNotFound

from manyeyes.cli.docker_api import PULL_S, PullFailed, docker_client, pull_image
from manyeyes.cli.process import CommandFailed, end_all
from manyeyes.cli.required_images import (
    BASES,
    BUILT,
    INPUTS_LABEL,
    RequiredImage,
    build_base,
    build_python,
    required_images,
)
from manyeyes.cli.terminal import CliError, Step, print_ok, print_warning, step
from manyeyes.config.placement import PlacedCluster

NO_SUCH_IMAGE = re.compile(
    r"not found|manifest unknown|does not exist|denied|unauthorized|invalid reference", re.IGNORECASE
)
"""Errors of a registry that answers but does not have the image for this host."""


class Registries:
    """Pulls images and remembers unreachable registries, so that only the first image waits for a timeout."""

    def __init__(self, may_pull: bool) -> None:
        self._may_pull = may_pull
        self._unreachable: dict[str, str] = {}
        """{registry: reason why no more images are pulled from it}"""
        self._unreachable_for_optional: dict[str, str] = {}
        self._reasons: dict[str, str] = {}

    def pull(self, reference: str, optional: bool = False) -> bool:
        """Pulls the image. Returns whether it was pulled."""
        if not self._may_pull:
            return False
        host = registry_of(reference)
        unreachable = self._unreachable | (self._unreachable_for_optional if optional else {})
        if host in unreachable:
            self._reasons[reference] = unreachable[host]
            return False
        reason = _pull(reference)
        if reason is None:
            return True
        self._reasons[reference] = reason
        if not NO_SUCH_IMAGE.search(reason):
            (self._unreachable_for_optional if optional else self._unreachable)[host] = reason
        return False

    def why_not(self, reference: str) -> str:
        """Returns Docker's error; empty if no pull was tried."""
        return self._reasons.get(reference, "")


def registry_of(reference: str) -> str:
    """nginx:1.30 -> docker.io; nvcr.io/nvidia/x:1 -> nvcr.io."""
    first, slash, _ = reference.partition("/")
    return first if slash and ("." in first or ":" in first or first == "localhost") else "docker.io"


def _pull(reference: str) -> str | None:
    """Pulls an image. Returns the error; None if it was pulled."""
    try:
        with step(f"pulling {reference}") as current:
            current.may_fail = True
            pull_image(reference, on_progress=lambda told: setattr(current, "note", told))
            current.outcome = f"pulled {reference}"
    except PullFailed as error:
        # The reason is the last part of Docker's message: ... dial tcp: lookup registry.example: no such host.
        print_warning(f"{reference} cannot be pulled: {str(error).rsplit(': ', 1)[-1][:60]}")
        return str(error)[:300]
    except TimeoutError:
        print_warning(f"{reference} could not be pulled within {PULL_S / 3600:.0f} hours")
        return f"it took longer than {PULL_S / 3600:.0f} hours"
    return None


BUILD_JOBS = 2
COMPOSE_LABEL = "com.docker.compose.service"
"""Label of images that `docker compose build` built from this repository."""


@dataclass
class ImageReport:
    """The result for each image reference."""

    present: list[str] = field(default_factory=list)
    pulled: list[str] = field(default_factory=list)
    built: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)


def provide(cluster: PlacedCluster, pull: bool = True) -> ImageReport:
    """Provides all required images. `pull=False` builds the missing ones. Raises CliError before the first build."""
    outcome = ImageReport()
    missing = []
    for image in required_images(cluster):
        if _present(image):
            outcome.present.append(image.reference)
        else:
            missing.append(image)
    if outcome.present:
        print_ok(f"{len(outcome.present)} images present")
    to_build = [image for image in missing if image.inputs and image.can_be_built]
    registries = Registries(pull)
    # First the images that cannot be built: if a pull fails, the command fails early.
    others = [image for image in missing if image not in to_build]
    for image in sorted(others, key=lambda one: (one.optional, one.can_be_built and not one.only_when_asked)):
        if registries.pull(image.reference, image.optional):
            outcome.pulled.append(image.reference)
            continue
        if image.optional:
            outcome.missing.append(image.reference)
            continue
        _refuse_where_not_built(image, registries, pull)
        to_build.append(image)
    if to_build:
        _build(_with_bases(cluster, to_build, registries, outcome), outcome)
    for reference in outcome.missing:
        print_warning(f"the cluster starts without {reference}, which could not be pulled")
    return outcome


def _refuse_where_not_built(image: RequiredImage, registries: Registries, pull: bool) -> None:
    """Raises CliError if the build would make another version, or is too expensive to start without a request."""
    why = registries.why_not(image.reference)
    could_not = f"could not be pulled: {why}" if why else "is not on this host"
    if "@" in image.reference:
        raise CliError(
            f"{image.reference} is pinned by its digest and cannot be pulled; an image built here has another digest. "
            "Remove @sha256:... in `images:` to build it."
        )
    if not image.can_be_built:
        only = f"this project builds only {image.makes}" if image.makes else "it can only be pulled"
        raise CliError(
            f"Image {image.reference}: {could_not}. It cannot be built here: {only}. "
            "Check the name and the tag, or the network to its registry (docker login, a mirror)."
        )
    if image.only_when_asked and pull:
        raise CliError(
            f"Image {image.reference}: {could_not}. Try again, or name a mirror in `images:`. "
            "`make images` builds it here from PyPI: it downloads about 10 GB, and the result was not tested on a GPU."
        )


def _present(image: RequiredImage) -> bool:
    with docker_client() as client:
        try:
            labels = client.images.get(image.reference).labels
        except ImageNotFound:
            return False
    if not image.inputs or labels.get(INPUTS_LABEL) == image.inputs:
        return True
    if INPUTS_LABEL in labels or COMPOSE_LABEL in labels:
        return not image.can_be_built  # built from this repository, from other sources
    print_warning(f"{image.reference} is on this host and was not built by ManyEyes: it is used unchanged")
    return True


def _with_bases(
    cluster: PlacedCluster, images: list[RequiredImage], registries: Registries, outcome: ImageReport
) -> list[RequiredImage]:
    """Returns the images and the missing base images of their builds."""
    python = cluster.images.python
    known = {image.reference: image for image in images}
    wanted = {reference for image in images for reference in image.after}
    if python in wanted and not _present(RequiredImage(python)):
        if registries.pull(python):
            outcome.pulled.append(python)
        else:
            _refuse_where_not_built(RequiredImage(python, lambda: None, makes=BUILT.python), registries, pull=True)
            known[python] = RequiredImage(python, lambda: build_python(python), (BASES["bookworm"],))
            wanted.add(BASES["bookworm"])
    for suite, reference in BASES.items():
        if reference in wanted and reference not in known and not _present(RequiredImage(reference)):
            known[reference] = RequiredImage(reference, partial(build_base, suite, reference))
    return list(known.values())


def _build(images: list[RequiredImage], outcome: ImageReport) -> None:
    """Builds the images, two at a time, each after its base images."""
    with step(f"building {len(images)} images") as current, ThreadPoolExecutor(BUILD_JOBS) as threads:
        try:
            _build_in_order(images, outcome, current, threads)
        except BaseException:
            end_all()  # otherwise the thread pool would wait for builds that are no longer needed
            raise
        current.outcome = f"built {', '.join(_short(image.reference) for image in images)}"


def _build_in_order(
    images: list[RequiredImage], outcome: ImageReport, current: Step, threads: ThreadPoolExecutor
) -> None:
    waiting = {image.reference: image for image in images}
    running: dict[Future[None], str] = {}
    while waiting or running:
        for reference, image in list(waiting.items()):
            blocked = any(base in waiting or base in running.values() for base in image.after)
            if not blocked and len(running) < BUILD_JOBS:
                del waiting[reference]
                assert image.build
                running[threads.submit(image.build)] = reference
        current.note = ", ".join(_short(reference) for reference in running.values())
        done, _ = wait(running, return_when=FIRST_COMPLETED)
        for future in done:
            reference = running.pop(future)
            _finish(future, reference)
            outcome.built.append(reference)
            current.title = f"building {len(images)} images, {len(outcome.built)} done"


def _finish(future: Future[None], reference: str) -> None:
    try:
        future.result()
    except CommandFailed as error:
        raise CliError(
            f"{reference} could not be built: {error.last_line[:200]}. "
            "Check that the package mirrors are reachable; behind TLS inspection set CA_CERTIFICATES in .env.",
            details="\n".join(error.output.splitlines()[-30:]),
        ) from error


def _short(reference: str) -> str:
    return reference.rsplit("/", 1)[-1]
