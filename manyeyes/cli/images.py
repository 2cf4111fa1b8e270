"""Container images: used when present, else pulled, else built here where the asked version is the one that the build makes."""

import contextlib
import hashlib
import json
import os
import re
import shutil
import sys
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from manyeyes.cli.errors import CliError
from manyeyes.cli.process import CommandFailed, end_all, run
from manyeyes.cli.terminal import Step, print_ok, print_warning, step
from manyeyes.config.checkout import ROOT
from manyeyes.config.gateway import Images
from manyeyes.config.placement import PlacedCluster

BUILD_JOBS = 2
INPUTS_LABEL = "manyeyes.inputs"
BASES = {"bookworm": "debian:bookworm-slim", "sid": "debian:sid-slim"}
TORCH_WHEEL = "torch==2.13.0+cpu"
BUILT = Images()
"""What is built here, and under which names: the versions that this project pins. Under another name another version is expected."""
PULL_S = 6 * 3600.0
"""vLLM's image for GPUs is 13 GB packed: 3 hours at 10 Mbit/s."""
COMPOSE_LABEL = "com.docker.compose.service"
"""`docker compose build` marks what it builds of ours."""


@dataclass(frozen=True)
class RequiredImage:
    """One image and how it comes here."""

    reference: str
    build: Callable[[], None] | None = None
    """Builds it on this host; None: it can only be pulled."""
    after: tuple[str, ...] = ()
    """Images that its build stands on."""
    inputs: str = ""
    """For our own images: a digest of the sources; another digest means: build anew."""
    optional: bool = False
    """The cluster starts without it."""
    makes: str = ""
    """The one reference whose version the build makes; empty: whatever is asked for."""
    only_when_asked: bool = False
    """Built by `make images` and never instead of pulling it."""

    @property
    def can_be_built(self) -> bool:
        return self.build is not None and (not self.makes or _plain(self.reference) == _plain(self.makes))


@dataclass
class ImageReport:
    """What was done, by image reference."""

    present: list[str] = field(default_factory=list)
    pulled: list[str] = field(default_factory=list)
    built: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)


def ca_certificates() -> Path | None:
    """The CA bundle for builds behind TLS inspection: CA_CERTIFICATES, else the host's when it has CAs of its own."""
    if chosen := os.environ.get("CA_CERTIFICATES"):
        if not Path(chosen).is_file():
            raise CliError(f"CA_CERTIFICATES is {chosen}, which is not a file. Give a PEM bundle, or leave it out.")
        return Path(chosen)
    bundle = Path("/etc/ssl/certs/ca-certificates.crt")
    own = Path("/usr/local/share/ca-certificates")
    return bundle if bundle.is_file() and own.is_dir() and any(own.rglob("*.crt")) else None


def required_images(cluster: PlacedCluster) -> list[RequiredImage]:
    """Every image that a laid-out cluster names, those for building first."""
    images = cluster.images
    flavours = {engine.flavour for engine in cluster.started_engines}
    wanted = [
        _own(images.controller, "docker/controller/Dockerfile", images.python, BUILT.controller),
        _own(images.webui, "docker/webui/Dockerfile", images.python, BUILT.webui),
        _debian(images.nginx, "nginx", BUILT.nginx),
    ]
    if cluster.starts_adapter:
        wanted.append(_own(images.adapter, "docker/openai-adapter/Dockerfile", images.python, BUILT.adapter))
    if "emulated" in flavours:
        wanted.append(_own(images.emulator, "docker/emulator/Dockerfile", images.python, BUILT.emulator))
    if "cpu" in flavours:
        wanted.append(
            RequiredImage(
                images.vllm_cpu,
                lambda: _build_vllm_cpu(images.vllm_cpu, images.python),
                (images.python,),
                makes=BUILT.vllm_cpu,
            )
        )
    if "cuda" in flavours:
        wanted.append(
            RequiredImage(
                images.vllm_cuda,
                lambda: _build_vllm_cuda(images.vllm_cuda, images.python),
                (images.python,),
                makes=BUILT.vllm_cuda,
                only_when_asked=True,
            )
        )
    if cluster.monitoring.enabled:
        wanted.append(_debian(images.prometheus, "prometheus", BUILT.prometheus))
        wanted.append(_debian(images.alertmanager, "alertmanager", BUILT.alertmanager))
        wanted.append(_debian(images.node_exporter, "node-exporter", BUILT.node_exporter))
        wanted.append(_debian(images.nginx_exporter, "nginx-exporter", BUILT.nginx_exporter))
        if cluster.watches_gpus:
            wanted.append(RequiredImage(images.dcgm_exporter, optional=True))
        wanted.append(RequiredImage(images.grafana, optional=True))
    if cluster.logs.loki.enabled:
        wanted += [RequiredImage(images.loki, optional=True), RequiredImage(images.alloy, optional=True)]
    if cluster.tracing.starts_jaeger:
        wanted.append(RequiredImage(images.jaeger, optional=True))
    return wanted


def provide(cluster: PlacedCluster, pull: bool = True) -> ImageReport:
    """Makes every needed image present. `pull=False` builds what is missing. Raises Trouble, before anything is built."""
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
    # First those that are refused where they cannot be pulled.
    others = [image for image in missing if image not in to_build]
    for image in sorted(others, key=lambda one: (one.optional, one.can_be_built and not one.only_when_asked)):
        if registries.give(image.reference, image.optional):
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
        print_warning(f"the cluster starts without {reference}: it can only be pulled")
    return outcome


def _refuse_where_not_built(image: RequiredImage, registries: "Registries", pull: bool) -> None:
    """Raises Trouble where another image than the one that is asked for would be built, or one that takes too much to build unasked."""
    why = registries.why(image.reference)
    could_not = f"could not be pulled: {why}" if why else "is not on this host"
    if "@" in image.reference:
        raise CliError(
            f"{image.reference} is pinned by its digest and cannot be pulled; what is built here has another one. "
            "Leave @sha256:... away in `images:` to have it built."
        )
    if not image.can_be_built:
        only = f"this project builds {image.makes} only" if image.makes else "it can only be pulled"
        raise CliError(
            f"Image {image.reference}: {could_not}. It is not built here: {only}. "
            "Check the name and the tag, or the network to its registry (docker login, a mirror)."
        )
    if image.only_when_asked and pull:
        raise CliError(
            f"Image {image.reference}: {could_not}. Try again, or name a mirror in `images:`. "
            "`make images` builds it here from PyPI: about 10 GB to download, and not tried on a GPU."
        )


class Registries:
    """Which of them are in reach. One refusal is enough: the next image of the same one would wait for the same time-out."""

    def __init__(self, in_reach: bool) -> None:
        self._in_reach = in_reach
        self._away: dict[str, str] = {}
        """{registry: why it is not asked again}"""
        self._away_for_optional: dict[str, str] = {}
        self._why: dict[str, str] = {}

    def give(self, reference: str, optional: bool = False) -> bool:
        """Whether it was pulled."""
        if not self._in_reach:
            return False
        host = registry_of(reference)
        away = self._away | (self._away_for_optional if optional else {})
        if host in away:
            self._why[reference] = away[host]
            return False
        if _pull(reference):
            return True
        why = self._why[reference] = _refusals.get(reference, "")
        if not NO_SUCH_IMAGE.search(why):
            (self._away_for_optional if optional else self._away)[host] = why
        return False

    def why(self, reference: str) -> str:
        """What Docker said; empty where it was not asked."""
        return self._why.get(reference, "")


NO_SUCH_IMAGE = re.compile(
    r"not found|manifest unknown|does not exist|denied|unauthorized|invalid reference", re.IGNORECASE
)
"""The registry answers, and has no such image for this host."""
_refusals: dict[str, str] = {}
"""{image: what Docker said when it could not be pulled}"""


def registry_of(reference: str) -> str:
    """nginx:1.30 -> docker.io; nvcr.io/nvidia/x:1 -> nvcr.io."""
    first, slash, _ = reference.partition("/")
    return first if slash and ("." in first or ":" in first or first == "localhost") else "docker.io"


def _plain(reference: str) -> str:
    """docker.io/library/nginx:1.30 is nginx:1.30."""
    return reference.removeprefix("docker.io/").removeprefix("library/")


def _own(reference: str, dockerfile: str, python: str, makes: str) -> RequiredImage:
    digest = _digest(ROOT / dockerfile, python)
    return RequiredImage(
        reference, lambda: _build_own(reference, dockerfile, python, digest), (python,), inputs=digest, makes=makes
    )


def _digest(dockerfile: Path, python: str) -> str:
    """Of the Dockerfile and of everything that its COPY lines name."""
    text = dockerfile.read_text(encoding="utf-8")
    digest = hashlib.sha256(f"{python}\n{text}".encode())
    for line in text.splitlines():
        if line.startswith("COPY "):
            for pattern in line.split()[1:-1]:
                for path in sorted(ROOT.glob(pattern)):
                    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
                        if file.is_file() and "__pycache__" not in file.parts:
                            digest.update(f"{file.relative_to(ROOT)}\n".encode() + file.read_bytes())
    return digest.hexdigest()[:16]


def _present(image: RequiredImage) -> bool:
    try:
        told = json.loads(run(["docker", "image", "inspect", image.reference], timeout_s=30))
    except CommandFailed:
        return False
    labels = told[0]["Config"].get("Labels") or {}
    if not image.inputs or labels.get(INPUTS_LABEL) == image.inputs:
        return True
    if INPUTS_LABEL in labels or COMPOSE_LABEL in labels:
        return not image.can_be_built  # ours, of other sources
    print_warning(f"{image.reference} is on this host and was not built by ManyEyes: it is used as it is")
    return True


def _pull(reference: str) -> bool:
    try:
        with step(f"pulling {reference}") as current:
            current.may_fail = True
            run(
                ["docker", "pull", reference],
                on_line=lambda line: setattr(current, "note", line[:60]),
                timeout_s=PULL_S,
            )
            current.outcome = f"pulled {reference}"
    except CommandFailed as error:
        _refusals[reference] = error.last_line[:300]
        print_warning(f"{reference} cannot be pulled: {_why_not(error)}")
        return False
    except TimeoutError:
        _refusals[reference] = f"it took longer than {PULL_S / 3600:.0f} hours"
        print_warning(f"{reference} could not be pulled within {PULL_S / 3600:.0f} hours")
        return False
    return True


def _why_not(error: CommandFailed) -> str:
    """Docker's sentence ends with the reason: ... dial tcp: lookup registry.example: no such host."""
    return error.last_line.rsplit(": ", 1)[-1][:60]


def _with_bases(
    cluster: PlacedCluster, images: list[RequiredImage], registries: Registries, outcome: ImageReport
) -> list[RequiredImage]:
    """The images and what their builds stand on."""
    python = cluster.images.python
    known = {image.reference: image for image in images}
    wanted = {reference for image in images for reference in image.after}
    if python in wanted and not _present(RequiredImage(python)):
        if registries.give(python):
            outcome.pulled.append(python)
        else:
            _refuse_where_not_built(RequiredImage(python, lambda: None, makes=BUILT.python), registries, pull=True)
            known[python] = RequiredImage(python, lambda: _build_python(python), (BASES["bookworm"],))
            wanted.add(BASES["bookworm"])
    for suite, reference in BASES.items():
        if reference in wanted and reference not in known and not _present(RequiredImage(reference)):
            known[reference] = RequiredImage(reference, partial(_build_base, suite, reference))
    return list(known.values())


def _build(images: list[RequiredImage], outcome: ImageReport) -> None:
    """Builds each after the ones it stands on, two at a time."""
    with step(f"building {len(images)} images") as current, ThreadPoolExecutor(BUILD_JOBS) as threads:
        try:
            _build_in_order(images, outcome, current, threads)
        except BaseException:
            end_all()  # else leaving the threads waits for builds that nobody wants any more
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
            "Check that the package mirrors are reached; behind TLS inspection set CA_CERTIFICATES in .env.",
            details="\n".join(error.output.splitlines()[-30:]),
        ) from error


def _short(reference: str) -> str:
    return reference.rsplit("/", 1)[-1]


def _secret() -> list[str]:
    bundle = ca_certificates()
    return ["--secret", f"id=ca-certificates,src={bundle}"] if bundle else []


def _build_own(reference: str, dockerfile: str, python: str, digest: str) -> None:
    arguments = ["--build-arg", f"PYTHON_IMAGE={python}", "--label", f"{INPUTS_LABEL}={digest}"]
    run(["docker", "build", "-t", reference, "-f", dockerfile, *arguments, *_secret(), "."])


def _debian(reference: str, target: str, makes: str) -> RequiredImage:
    def build() -> None:
        base = ["--build-arg", f"BASE={BASES['sid']}"]
        run(["docker", "build", "-t", reference, "--target", target, *base, "docker/debian"])

    return RequiredImage(reference, build, (BASES["sid"],), makes=makes)


def _build_base(suite: str, reference: str) -> None:
    if not shutil.which("mmdebstrap"):
        raise CliError(
            f"{reference} can be neither pulled nor built: mmdebstrap is missing (apt-get install mmdebstrap)."
        )
    run(["docker/debian/base.sh", suite, reference])


def _build_python(reference: str) -> None:
    own = Path("/usr/local/share/ca-certificates")
    trusted = ["--build-context", f"local-ca={own}"] if own.is_dir() else []
    run(["docker", "build", "-t", reference, "--build-arg", f"BASE={BASES['bookworm']}", *trusted, "docker/python"])


def _build_vllm_cpu(reference: str, python: str) -> None:
    wheels = ROOT / "build" / "wheels"
    wheels.mkdir(parents=True, exist_ok=True)
    if not list(wheels.glob("torch-*.whl")):
        # The host's own pip settings may know a CPU build of torch; elsewhere the Dockerfile asks PyTorch's index.
        with contextlib.suppress(CommandFailed, TimeoutError):
            pip = [sys.executable, "-m", "pip"]
            run([*pip, "download", "-q", "--no-deps", "-d", str(wheels), TORCH_WHEEL], timeout_s=600)
    context = ["--build-context", f"wheels={wheels}"]
    run(["docker", "build", "-t", reference, "--build-arg", f"BASE={python}", *context, *_secret(), "docker/vllm-cpu"])


def _build_vllm_cuda(reference: str, python: str) -> None:
    run(["docker", "build", "-t", reference, "--build-arg", f"BASE={python}", *_secret(), "docker/vllm-cuda"])
