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
VLLM_CPU_DOCKERFILE, VLLM_CUDA_DOCKERFILE = "docker/vllm-cpu/Dockerfile", "docker/vllm-cuda/Dockerfile"
BUILT = Images()
"""The images that can be built, with the versions that this project pins. Another name or tag means another version."""
SOURCES = {
    BUILT.vllm_cpu: "PyPI's package vllm-cpu, which is not a package of the vLLM project",
    BUILT.vllm_cuda: "PyPI's package vllm of the vLLM project",
    **dict.fromkeys(
        (BUILT.nginx, BUILT.prometheus, BUILT.alertmanager, BUILT.node_exporter, BUILT.nginx_exporter, BUILT.python),
        "Debian's packages",
    ),
}
"""{image: whose software it contains if it was built on this host}. Images of this repository are not listed."""


@dataclass(frozen=True)
class RequiredImage:
    """One image, and how it is provided."""

    reference: str
    build: Callable[[], None] | None = None
    """Builds the image on this host. None: it can only be pulled."""
    base_images: tuple[str, ...] = ()
    """Base images of the build."""
    inputs: str = ""
    """For images of this repository: a digest of the sources. The image is built again if the digest changes."""
    optional: bool = False
    """The cluster can start without the image."""
    buildable_reference: str = ""
    """The only reference that the build can make; empty: any reference."""
    needs_explicit_request: bool = False
    """Only `make images` builds the image; `make up` does not."""

    @property
    def can_be_built(self) -> bool:
        return self.build is not None and (
            not self.buildable_reference
            or _short_reference(self.reference) == _short_reference(self.buildable_reference)
        )


def required_images(cluster: PlacedCluster) -> list[RequiredImage]:
    """Returns all images of a placed cluster; images of this repository are first."""
    images = cluster.images
    flavours = {engine.flavour for engine in cluster.started_engines}
    required = [
        _repository_image(images.controller, "docker/controller/Dockerfile", images.python, BUILT.controller),
        _repository_image(images.webui, "docker/webui/Dockerfile", images.python, BUILT.webui),
        _debian_image(images.nginx, "nginx", BUILT.nginx),
    ]
    if cluster.starts_adapter:
        required.append(
            _repository_image(images.adapter, "docker/openai-adapter/Dockerfile", images.python, BUILT.adapter)
        )
    if "emulated" in flavours:
        required.append(_repository_image(images.emulator, "docker/emulator/Dockerfile", images.python, BUILT.emulator))
    if "cpu" in flavours:
        required.append(_vllm_cpu_image(images.vllm_cpu, images.python))
    if "cuda" in flavours:
        required.append(
            RequiredImage(
                images.vllm_cuda,
                lambda: _build_vllm_cuda(images.vllm_cuda, images.python),
                (images.python,),
                buildable_reference=BUILT.vllm_cuda,
                needs_explicit_request=True,
            )
        )
    if cluster.monitoring.enabled:
        required.append(_debian_image(images.prometheus, "prometheus", BUILT.prometheus))
        required.append(_debian_image(images.alertmanager, "alertmanager", BUILT.alertmanager))
        required.append(_debian_image(images.node_exporter, "node-exporter", BUILT.node_exporter))
        required.append(_debian_image(images.nginx_exporter, "nginx-exporter", BUILT.nginx_exporter))
        if cluster.watches_gpus:
            required.append(RequiredImage(images.dcgm_exporter, optional=True))
        required.append(RequiredImage(images.grafana, optional=True))
    if cluster.logs.loki.enabled:
        required += [RequiredImage(images.loki, optional=True), RequiredImage(images.alloy, optional=True)]
    if cluster.tracing.starts_jaeger:
        required.append(RequiredImage(images.jaeger, optional=True))
    return required


def ca_certificates() -> Path | None:
    """Returns the CA bundle for builds behind TLS inspection: CA_CERTIFICATES, else the host's if it has local CAs."""
    if configured := os.environ.get("CA_CERTIFICATES"):
        if not Path(configured).is_file():
            raise CliError(
                f"CA_CERTIFICATES: expected a PEM file, got {configured}. Set another file, or remove the variable."
            )
        return Path(configured)
    bundle = Path("/etc/ssl/certs/ca-certificates.crt")
    local_folder = Path("/usr/local/share/ca-certificates")
    return bundle if bundle.is_file() and local_folder.is_dir() and any(local_folder.rglob("*.crt")) else None


def _short_reference(reference: str) -> str:
    """docker.io/library/nginx:1.30 -> nginx:1.30."""
    return reference.removeprefix("docker.io/").removeprefix("library/")


def _repository_image(reference: str, dockerfile: str, python: str, buildable_reference: str) -> RequiredImage:
    digest = sources_digest(ROOT / dockerfile, python)
    return RequiredImage(
        reference,
        lambda: _build_own(reference, dockerfile, python, digest),
        (python,),
        inputs=digest,
        buildable_reference=buildable_reference,
    )


def _vllm_cpu_image(reference: str, python: str) -> RequiredImage:
    """The image that is built from PyPI's vllm-cpu has its own name, and no registry has it."""
    digest = sources_digest(ROOT / VLLM_CPU_DOCKERFILE, python)
    return RequiredImage(
        reference,
        lambda: _build_vllm_cpu(reference, python, digest),
        (python,),
        inputs=digest if reference == BUILT.vllm_cpu else "",
        buildable_reference=BUILT.vllm_cpu,
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


def _debian_image(reference: str, target: str, buildable_reference: str) -> RequiredImage:
    def build() -> None:
        base = ["--build-arg", f"BASE={BASES['sid']}"]
        run(["docker", "build", "-t", reference, "--target", target, *base, "docker/debian"])

    return RequiredImage(reference, build, (BASES["sid"],), buildable_reference=buildable_reference)


def _ca_secret_options() -> list[str]:
    bundle = ca_certificates()
    return ["--secret", f"id=ca-certificates,src={bundle}"] if bundle else []


def _build_own(reference: str, dockerfile: str, python: str, digest: str) -> None:
    arguments = ["--build-arg", f"PYTHON_IMAGE={python}", "--label", f"{INPUTS_LABEL}={digest}"]
    run(["docker", "build", "-t", reference, "-f", dockerfile, *arguments, *_ca_secret_options(), "."])


def build_base(suite: str, reference: str) -> None:
    if not shutil.which("mmdebstrap"):
        raise CliError(
            f"{reference} could not be pulled, and cannot be built: mmdebstrap is missing (apt-get install mmdebstrap)."
        )
    run(["docker/debian/base.sh", suite, reference])


def build_python(reference: str) -> None:
    local_folder = Path("/usr/local/share/ca-certificates")
    context = ["--build-context", f"local-ca={local_folder}"] if local_folder.is_dir() else []
    run(["docker", "build", "-t", reference, "--build-arg", f"BASE={BASES['bookworm']}", *context, "docker/python"])


def _build_vllm_cpu(reference: str, python: str, digest: str) -> None:
    wheels = ROOT / "build" / "wheels"
    wheels.mkdir(parents=True, exist_ok=True)
    if not list(wheels.glob("torch-*.whl")):
        # The host's pip settings may have an index with CPU builds of torch; else the Dockerfile uses PyTorch's index.
        with contextlib.suppress(CommandFailed, TimeoutError):
            pip = [sys.executable, "-m", "pip"]
            run([*pip, "download", "-q", "--no-deps", "-d", str(wheels), TORCH_WHEEL], timeout_s=600)
    context = ["--build-context", f"wheels={wheels}", "--label", f"{INPUTS_LABEL}={digest}"]
    _build_vllm(reference, VLLM_CPU_DOCKERFILE, python, *context)


def _build_vllm_cuda(reference: str, python: str) -> None:
    _build_vllm(reference, VLLM_CUDA_DOCKERFILE, python)


def _build_vllm(reference: str, dockerfile: str, python: str, *options: str) -> None:
    arguments = ["--build-arg", f"BASE={python}", *options, *_ca_secret_options()]
    run(["docker", "build", "-t", reference, "-f", dockerfile, *arguments, "."])
