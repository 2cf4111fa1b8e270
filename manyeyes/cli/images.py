"""Provides images: uses local images, pulls missing images, and builds images whose version this project pins."""

import re
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from docker.errors import ImageNotFound

from manyeyes.cli.docker_api import PULL_S, PullFailed, docker_client, pull_image
from manyeyes.cli.image_digests import ImageDigests
from manyeyes.cli.process import CommandFailed, stop_all
from manyeyes.cli.required_images import (
    BASES,
    BUILT,
    INPUTS_LABEL,
    SOURCES,
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

    def __init__(self, may_pull: bool, digests: ImageDigests) -> None:
        self._may_pull = may_pull
        self._digests = digests
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
        reason = _pull(self._digests.pinned(reference))
        if reason is None:
            self._digests.accept_pulled(reference)
            return True
        self._reasons[reference] = reason
        if not NO_SUCH_IMAGE.search(reason):
            (self._unreachable_for_optional if optional else self._unreachable)[host] = reason
        return False

    def failure_reason(self, reference: str) -> str:
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
            pull_image(reference, on_progress=lambda progress: setattr(current, "note", progress))
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


def provide(cluster: PlacedCluster, pull: bool = True, config: Path | None = None) -> ImageReport:
    """Provides all required images. `pull=False` builds the missing ones. Raises CliError before the first build.

    With `config`, digests of pulled images are recorded next to it, and checked.
    """
    report, digests = ImageReport(), ImageDigests(config)
    missing = []
    for image in required_images(cluster):
        if _is_present(image, digests):
            report.present.append(image.reference)
        else:
            missing.append(image)
    if report.present:
        print_ok(f"{len(report.present)} images present")
    to_build = [image for image in missing if image.inputs and image.can_be_built]
    registries = Registries(pull, digests)
    # First the images that cannot be built: if a pull fails, the command fails early.
    not_buildable = [image for image in missing if image not in to_build]
    for image in sorted(
        not_buildable,
        key=lambda candidate: (candidate.optional, candidate.can_be_built and not candidate.needs_explicit_request),
    ):
        if registries.pull(image.reference, image.optional):
            report.pulled.append(image.reference)
            continue
        if image.optional:
            report.missing.append(image.reference)
            continue
        _reject_if_not_buildable(image, registries, pull)
        to_build.append(image)
    if to_build:
        _build(_with_bases(cluster, to_build, registries, report, digests), report)
        for reference in report.built:
            digests.forget(reference)
    for reference in report.missing:
        print_warning(f"the cluster starts without {reference}, which could not be pulled")
    return report


def _reject_if_not_buildable(image: RequiredImage, registries: Registries, pull: bool) -> None:
    """Raises CliError if the build would make another version, or is too expensive to start without a request."""
    reason = registries.failure_reason(image.reference)
    problem = f"could not be pulled: {reason}" if reason else "is not on this host"
    if "@" in image.reference:
        raise CliError(
            f"{image.reference} is pinned by its digest and cannot be pulled; an image built here has another digest. "
            "Remove @sha256:... in `images:` to build it."
        )
    if not image.can_be_built:
        limitation = (
            f"this project builds only {image.buildable_reference}"
            if image.buildable_reference
            else "it can only be pulled"
        )
        raise CliError(
            f"Image {image.reference}: {problem}. It cannot be built here: {limitation}. "
            "Check the name and the tag, or the network to its registry (docker login, a mirror)."
        )
    if image.needs_explicit_request and pull:
        raise CliError(
            f"Image {image.reference}: {problem}. Try again, or name a mirror in `images:`. "
            "`make images` builds it here from PyPI: it downloads about 10 GB, and the result was not tested on a GPU."
        )


def _is_present(image: RequiredImage, digests: ImageDigests) -> bool:
    with docker_client() as client:
        try:
            local_image = client.images.get(image.reference)
        except ImageNotFound:
            return False
    digests.check(image.reference, local_image)
    labels = local_image.labels
    if not image.inputs or labels.get(INPUTS_LABEL) == image.inputs:
        return True
    if INPUTS_LABEL in labels or COMPOSE_LABEL in labels:
        return not image.can_be_built  # built from this repository, from other sources
    print_warning(f"{image.reference} is on this host and was not built by ManyEyes: it is used unchanged")
    return True


def _with_bases(
    cluster: PlacedCluster,
    images: list[RequiredImage],
    registries: Registries,
    report: ImageReport,
    digests: ImageDigests,
) -> list[RequiredImage]:
    """Returns the images and the missing base images of their builds."""
    python = cluster.images.python
    by_reference = {image.reference: image for image in images}
    required = {reference for image in images for reference in image.base_images}
    if python in required and not _is_present(RequiredImage(python), digests):
        if registries.pull(python):
            report.pulled.append(python)
        else:
            _reject_if_not_buildable(
                RequiredImage(python, lambda: None, buildable_reference=BUILT.python), registries, pull=True
            )
            by_reference[python] = RequiredImage(python, lambda: build_python(python), (BASES["bookworm"],))
            required.add(BASES["bookworm"])
    for suite, reference in BASES.items():
        if (
            reference in required
            and reference not in by_reference
            and not _is_present(RequiredImage(reference), digests)
        ):
            by_reference[reference] = RequiredImage(reference, partial(build_base, suite, reference))
    return list(by_reference.values())


def _build(images: list[RequiredImage], report: ImageReport) -> None:
    """Builds the images, two at a time, each after its base images."""
    with step(f"building {len(images)} images") as current, ThreadPoolExecutor(BUILD_JOBS) as threads:
        try:
            _build_in_order(images, report, current, threads)
        except BaseException:
            stop_all()  # otherwise the thread pool would wait for builds that are no longer needed
            raise
        current.outcome = f"built {', '.join(_short_name(image.reference) for image in images)}"
    for image in images:
        if source := SOURCES.get(image.reference):
            print_ok(f"{image.reference} has {source}")


def _build_in_order(
    images: list[RequiredImage], report: ImageReport, current: Step, threads: ThreadPoolExecutor
) -> None:
    waiting = {image.reference: image for image in images}
    running: dict[Future[None], str] = {}
    while waiting or running:
        for reference, image in list(waiting.items()):
            blocked = any(base in waiting or base in running.values() for base in image.base_images)
            if not blocked and len(running) < BUILD_JOBS:
                del waiting[reference]
                assert image.build
                running[threads.submit(image.build)] = reference
        current.note = ", ".join(_short_name(reference) for reference in running.values())
        done, _ = wait(running, return_when=FIRST_COMPLETED)
        for future in done:
            reference = running.pop(future)
            _finish(future, reference)
            report.built.append(reference)
            current.title = f"building {len(images)} images, {len(report.built)} done"


def _finish(future: Future[None], reference: str) -> None:
    try:
        future.result()
    except CommandFailed as error:
        raise CliError(
            f"{reference} could not be built: {error.last_line[:200]}. "
            "Check that the package mirrors are reachable; behind TLS inspection set CA_CERTIFICATES in .env.",
            details="\n".join(error.output.splitlines()[-30:]),
        ) from error


def _short_name(reference: str) -> str:
    return reference.rsplit("/", 1)[-1]
