"""Container images: used when present, else pulled, else built here under the same tag."""

import contextlib
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from config.cluster import Cluster
from host.command import ROOT, CommandFailed, end_all, run
from host.terminal import Step, attention, ok, step
from host.trouble import Trouble

BUILD_JOBS = 2
INPUTS_LABEL = "manyeyes.inputs"
BASES = {"bookworm": "debian:bookworm-slim", "sid": "debian:sid-slim"}
TORCH_WHEEL = "torch==2.13.0+cpu"


@dataclass(frozen=True)
class Image:
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


@dataclass
class Outcome:
    """What was done, by image reference."""

    present: list[str] = field(default_factory=list)
    pulled: list[str] = field(default_factory=list)
    built: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)


def ca_certificates() -> Path | None:
    """The CA bundle for builds behind TLS inspection: CA_CERTIFICATES, else the host's when it has CAs of its own."""
    if chosen := os.environ.get("CA_CERTIFICATES"):
        if not Path(chosen).is_file():
            raise Trouble(f"CA_CERTIFICATES is {chosen}, which is not a file. Give a PEM bundle, or leave it out.")
        return Path(chosen)
    bundle = Path("/etc/ssl/certs/ca-certificates.crt")
    own = Path("/usr/local/share/ca-certificates")
    return bundle if bundle.is_file() and own.is_dir() and any(own.rglob("*.crt")) else None


def needed(cluster: Cluster) -> list[Image]:
    """Every image that a laid-out cluster names, those for building first."""
    images = cluster.images
    flavours = {engine.flavour for engine in cluster.started_engines}
    wanted = [
        _own(images.controller, "controller/Dockerfile", images.python),
        _own(images.webui, "webui/Dockerfile", images.python),
        _debian(images.nginx, "nginx"),
    ]
    if cluster.starts_adapter:
        wanted.append(_own(images.adapter, "adapter/Dockerfile", images.python))
    if "emulated" in flavours:
        wanted.append(_own(images.emulator, "engine/emulator/Dockerfile", images.python))
    if "cpu" in flavours:
        wanted.append(Image(images.vllm_cpu, lambda: _build_vllm_cpu(images.vllm_cpu, images.python), (images.python,)))
    if "cuda" in flavours:
        wanted.append(
            Image(images.vllm_cuda, lambda: _build_vllm_cuda(images.vllm_cuda, images.python), (images.python,))
        )
    if cluster.monitoring.enabled:
        wanted.append(_debian(images.prometheus, "prometheus"))
        wanted.append(_debian(images.alertmanager, "alertmanager"))
        wanted.append(_debian(images.node_exporter, "node-exporter"))
        wanted.append(_debian(images.nginx_exporter, "nginx-exporter"))
        if cluster.watches_gpus:
            wanted.append(Image(images.dcgm_exporter, optional=True))
        wanted.append(Image(images.grafana, optional=True))
    if cluster.logs.loki.enabled:
        wanted += [Image(images.loki, optional=True), Image(images.alloy, optional=True)]
    if cluster.tracing.starts_jaeger:
        wanted.append(Image(images.jaeger, optional=True))
    return wanted


def provide(cluster: Cluster, pull: bool = True) -> Outcome:
    """Makes every needed image present. `pull=False` builds what is missing. Raises Trouble."""
    outcome = Outcome()
    missing = []
    for image in needed(cluster):
        if _present(image):
            outcome.present.append(image.reference)
        else:
            missing.append(image)
    if outcome.present:
        ok(f"{len(outcome.present)} images present")
    to_build = [image for image in missing if image.inputs]
    registry = pull
    for image in (image for image in missing if not image.inputs):
        if registry and _pull(image.reference):
            outcome.pulled.append(image.reference)
            continue
        if "@" in image.reference and not image.optional:
            raise Trouble(
                f"{image.reference} is pinned by its digest and cannot be pulled; what is built here has another one. "
                "Leave @sha256:... away in `images:` to have it built."
            )
        registry = False  # one refusal is enough: the next would wait for the same time-out
        if image.build:
            to_build.append(image)
        else:
            outcome.missing.append(image.reference)
    if to_build:
        _build(_with_bases(cluster, to_build, registry, outcome), outcome)
    for reference in outcome.missing:
        attention(f"the cluster starts without {reference}: it can only be pulled")
    return outcome


def _own(reference: str, dockerfile: str, python: str) -> Image:
    digest = _digest(ROOT / dockerfile, python)
    return Image(reference, lambda: _build_own(reference, dockerfile, python, digest), (python,), inputs=digest)


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


def _present(image: Image) -> bool:
    try:
        told = json.loads(run(["docker", "image", "inspect", image.reference], timeout_s=30))
    except CommandFailed:
        return False
    labels = told[0]["Config"].get("Labels") or {}
    return not image.inputs or labels.get(INPUTS_LABEL) == image.inputs


def _pull(reference: str) -> bool:
    try:
        with step(f"pulling {reference}") as current:
            current.may_fail = True
            run(["docker", "pull", reference], on_line=lambda line: setattr(current, "note", line[:60]), timeout_s=3600)
            current.outcome = f"pulled {reference}"
    except CommandFailed as error:
        attention(f"{reference} cannot be pulled: {_why_not(error)}")
        return False
    except TimeoutError:
        attention(f"{reference} could not be pulled within an hour")
        return False
    return True


def _why_not(error: CommandFailed) -> str:
    """Docker's sentence ends with the reason: ... dial tcp: lookup registry.example: no such host."""
    return error.last_line.rsplit(": ", 1)[-1][:60]


def _with_bases(cluster: Cluster, images: list[Image], registry: bool, outcome: Outcome) -> list[Image]:
    """The images and what their builds stand on."""
    python = cluster.images.python
    known = {image.reference: image for image in images}
    wanted = {reference for image in images for reference in image.after}
    if python in wanted and not _present(Image(python)):
        if registry and _pull(python):
            outcome.pulled.append(python)
        else:
            known[python] = Image(python, lambda: _build_python(python), (BASES["bookworm"],))
            wanted.add(BASES["bookworm"])
    for suite, reference in BASES.items():
        if reference in wanted and reference not in known and not _present(Image(reference)):
            known[reference] = Image(reference, partial(_build_base, suite, reference))
    return list(known.values())


def _build(images: list[Image], outcome: Outcome) -> None:
    """Builds each after the ones it stands on, two at a time."""
    with step(f"building {len(images)} images") as current, ThreadPoolExecutor(BUILD_JOBS) as threads:
        try:
            _build_in_order(images, outcome, current, threads)
        except BaseException:
            end_all()  # else leaving the threads waits for builds that nobody wants any more
            raise
        current.outcome = f"built {', '.join(_short(image.reference) for image in images)}"


def _build_in_order(images: list[Image], outcome: Outcome, current: Step, threads: ThreadPoolExecutor) -> None:
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
        raise Trouble(
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


def _debian(reference: str, target: str) -> Image:
    def build() -> None:
        base = ["--build-arg", f"BASE={BASES['sid']}"]
        run(["docker", "build", "-t", reference, "--target", target, *base, "images/debian"])

    return Image(reference, build, (BASES["sid"],))


def _build_base(suite: str, reference: str) -> None:
    if not shutil.which("mmdebstrap"):
        raise Trouble(
            f"{reference} can be neither pulled nor built: mmdebstrap is missing (apt-get install mmdebstrap)."
        )
    run(["images/debian/base.sh", suite, reference])


def _build_python(reference: str) -> None:
    own = Path("/usr/local/share/ca-certificates")
    trusted = ["--build-context", f"local-ca={own}"] if own.is_dir() else []
    run(["docker", "build", "-t", reference, "--build-arg", f"BASE={BASES['bookworm']}", *trusted, "images/python"])


def _build_vllm_cpu(reference: str, python: str) -> None:
    wheels = ROOT / "build" / "wheels"
    wheels.mkdir(parents=True, exist_ok=True)
    if not list(wheels.glob("torch-*.whl")):
        # The host's own pip settings may know a CPU build of torch; elsewhere the Dockerfile asks PyTorch's index.
        with contextlib.suppress(CommandFailed, TimeoutError):
            pip = [sys.executable, "-m", "pip"]
            run([*pip, "download", "-q", "--no-deps", "-d", str(wheels), TORCH_WHEEL], timeout_s=600)
    context = ["--build-context", f"wheels={wheels}"]
    run(["docker", "build", "-t", reference, "--build-arg", f"BASE={python}", *context, *_secret(), "engine/cpu"])


def _build_vllm_cuda(reference: str, python: str) -> None:
    run(["docker", "build", "-t", reference, "--build-arg", f"BASE={python}", *_secret(), "engine/cuda"])
