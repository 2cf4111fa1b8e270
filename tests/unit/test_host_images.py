"""Which image is pulled, which is built, and which is refused: with a stand-in for Docker's engine."""

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from docker.errors import APIError, ImageNotFound

from manyeyes.cli import docker_api, images, required_images, upgrade
from manyeyes.cli.compose import Compose
from manyeyes.cli.images import provide, registry_of
from manyeyes.cli.terminal import CliError
from manyeyes.cli.upgrade import with_image
from manyeyes.config.checkout import ROOT
from manyeyes.config.gateway import Images
from manyeyes.config.loader import ConfigError, load, parse
from manyeyes.config.placement import Inventory, place_engines
from tests.placed import placed

ENGINE = {"cuda": "gpus: [0]", "cpu": "flavour: cpu", "emulated": "flavour: emulated"}
NOT_FOUND = "manifest for {image} not found: manifest unknown: manifest unknown"
DENIED = "pull access denied for {image}, repository does not exist or may require 'docker login'"
TOO_MANY = "toomanyrequests: You have reached your unauthenticated pull rate limit"
NO_WAY = 'Get "https://registry-1.docker.io/v2/": dial tcp: lookup registry-1.docker.io: no such host'
SCRIPT = """#!/bin/sh
[ "$1" = build ] && shift && while [ "$1" != -t ]; do shift; done && echo "$2" >> "${0%/*}/built"
"""


class Docker:
    """What is on this host, what registries say, and what was done: the SDK's client, and a program `docker` that notes what it builds."""

    def __init__(self, folder: Path) -> None:
        self.built = folder / "built"
        self.local: dict[str, dict[str, str]] = {name: {} for name in required_images.BASES.values()}
        self.refused: list[tuple[str, str]] = []
        self.pulled: list[str] = []
        self.digests: dict[str, list[str]] = {}
        self.registry_digest = "sha256:" + "a" * 64
        self.api = self.images = self

    def close(self) -> None:
        pass

    def refuses(self, *rules: tuple[str, str]) -> None:
        self.refused = list(rules)

    def has(self, image: str, **labels: str) -> None:
        self.local[image] = labels

    def get(self, image: str) -> SimpleNamespace:
        if image not in self.local:
            raise ImageNotFound(f"No such image: {image}")
        digests = [f"any@{digest}" for digest in self.digests.get(image, [])]
        return SimpleNamespace(labels=self.local[image], attrs={"RepoDigests": digests}, tag=self.tagged(image))

    def tagged(self, image: str) -> Callable[[str, str | None], None]:
        def tag(repository: str, name: str | None) -> None:
            self.has(f"{repository}:{name}")
            self.digests[f"{repository}:{name}"] = [image.partition("@")[2]]

        return tag

    def pull(self, image: str, stream: bool, decode: bool) -> Iterator[dict[str, object]]:
        self.pulled.append(image)
        for pattern, said in self.refused:
            if re.search(pattern, image):
                if said is NOT_FOUND:  # told in the answer's status, the others in its stream
                    raise APIError("404 Client Error", explanation=said.format(image=image))
                yield {"error": said.format(image=image)}
                break
        else:
            self.has(image)
            self.digests[image] = [image.partition("@")[2] or self.registry_digest]
        yield {"status": "Downloading", "id": "layer", "progressDetail": {"current": 1e6, "total": 2e6}}

    def has_built(self) -> list[str]:
        return self.built.read_text().split() if self.built.exists() else []


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Docker:
    program = tmp_path / "docker"
    program.write_text(SCRIPT)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    host = Docker(tmp_path)
    monkeypatch.setattr("docker.client.DockerClient.from_env", lambda **_: host)
    return host


def text(flavour: str = "emulated", more: str = "monitoring: {enabled: false}\n") -> str:
    return f"pools: [{{name: a, model: m}}]\nengines: [{{name: e, pool: a, {ENGINE[flavour]}}}]\n{more}"


def asking_for(key: str, image: str, flavour: str = "emulated") -> str:
    return text(flavour, f"images: {{{key}: '{image}'}}\n")


@pytest.mark.parametrize("pull", [True, False])
@pytest.mark.parametrize("why", [NOT_FOUND, DENIED, NO_WAY, TOO_MANY])
@pytest.mark.parametrize(
    ("key", "image", "flavour"),
    [
        ("nginx", "nginx:9.99", "emulated"),
        ("nginx", "nginx:1.30.6", "emulated"),
        ("nginx", "nginx", "emulated"),
        ("nginx", "example.com/nginx:1.30", "emulated"),
        ("vllm_cpu", "vllm/vllm-openai-cpu:v9.9.9", "cpu"),
        ("vllm_cpu", "nonsense", "cpu"),
        ("vllm_cuda", "vllm/vllm-openai:v0.33.0", "cuda"),
        ("prometheus", "prom/prometheus:v2.0.0", "emulated"),
        ("alertmanager", "prom/alertmanager:latest", "emulated"),
        ("node_exporter", "prom/node-exporter:v9", "emulated"),
        ("nginx_exporter", "nginx/nginx-prometheus-exporter:9", "emulated"),
        ("python", "python:3.13-slim", "emulated"),
        ("emulator", "manyeyes/emulator:9.9.9", "emulated"),
        ("controller", "example.com/controller:1", "emulated"),
        ("webui", "manyeyes/webui:latest", "emulated"),
    ],
)
def test_another_version_than_the_build_makes_is_refused_and_nothing_is_built(
    docker: Docker, key: str, image: str, flavour: str, why: str, pull: bool
) -> None:
    docker.refuses(("", why))
    if flavour != "cuda":
        docker.has(Images().vllm_cuda)
    with pytest.raises(CliError) as caught:
        provide(placed(asking_for(key, image, flavour)), pull=pull)
    said = str(caught.value)
    assert said.startswith(f"Image {image}: ")
    assert f"It cannot be built here: this project builds only {getattr(Images(), key)}." in said
    if pull:
        assert why.format(image=image) in said
    assert docker.has_built() == []


def test_the_pinned_versions_are_built_where_no_registry_is_in_reach(docker: Docker) -> None:
    docker.refuses(("", NO_WAY))
    outcome = provide(placed(text("cpu", "")))
    pinned = Images()
    for image in (pinned.nginx, pinned.vllm_cpu, pinned.prometheus, pinned.python, pinned.controller):
        assert image in outcome.built
    assert outcome.missing == [pinned.grafana]


def test_docker_hubs_own_name_for_a_pinned_image_is_the_same_image(docker: Docker) -> None:
    docker.refuses(("", NO_WAY))
    outcome = provide(placed(asking_for("nginx", "docker.io/library/nginx:1.30")))
    assert "docker.io/library/nginx:1.30" in outcome.built


def test_a_pull_tells_how_much_has_come_and_a_refusal_is_dockers_own_sentence(docker: Docker) -> None:
    told: list[str] = []
    docker_api.pull_image("nginx:1.30", told.append)
    assert told == ["1 of 2 MB"]
    with pytest.raises(CliError, match=r"^Docker: No such image: none:1$"), docker_api.docker_client() as client:
        client.images.get("none:1")


def test_an_image_that_can_be_pulled_is_pulled_whatever_its_tag(docker: Docker) -> None:
    outcome = provide(placed(asking_for("nginx", "nginx:9.99")))
    assert "nginx:9.99" in outcome.pulled
    assert "nginx:9.99" not in docker.has_built()


def test_the_image_for_gpus_is_built_only_when_that_is_asked_for(docker: Docker) -> None:
    docker.refuses(("vllm-openai", TOO_MANY))
    with pytest.raises(CliError, match="toomanyrequests") as caught:
        provide(placed(text("cuda")))
    assert "`make images` builds it here" in str(caught.value)
    assert docker.has_built() == []
    assert Images().vllm_cuda in provide(placed(text("cuda")), pull=False).built


def test_one_registrys_refusal_is_no_other_registrys(docker: Docker) -> None:
    docker.refuses(("^(?!example)", NO_WAY))
    outcome = provide(
        placed(
            text(
                "cpu", "images: {prometheus: 'example.com/p:1', vllm_cpu: 'example.com/vllm:2', nginx: 'nginx:1.30'}\n"
            )
        )
    )
    assert {"example.com/p:1", "example.com/vllm:2"} <= set(outcome.pulled)
    assert "nginx:1.30" in outcome.built


@pytest.mark.parametrize("why", [TOO_MANY, NO_WAY])
def test_a_registry_that_refuses_is_not_asked_for_the_next_image(docker: Docker, why: str) -> None:
    docker.refuses(("", why))
    provide(placed(text("emulated", "")))
    assert len([one for one in docker.pulled if registry_of(one) == "docker.io"]) == 1


def test_an_image_that_a_registry_does_not_have_says_nothing_of_its_others(docker: Docker) -> None:
    docker.refuses(("nginx:1.30", NOT_FOUND))
    outcome = provide(placed(text("emulated", "")))
    assert Images().prometheus in outcome.pulled
    assert "nginx:1.30" in outcome.built


def test_an_optional_image_never_keeps_a_needed_one_from_being_pulled(docker: Docker) -> None:
    docker.refuses(("dcgm|grafana", TOO_MANY))
    outcome = provide(placed(text("cuda", "")))
    assert set(outcome.missing) == {Images().dcgm_exporter, Images().grafana}
    assert Images().vllm_cuda in outcome.pulled
    assert Images().nginx in outcome.pulled


@pytest.mark.parametrize("key", ["webui", "controller", "emulator"])
def test_an_image_of_another_program_under_our_name_is_kept_and_told(
    docker: Docker, key: str, capsys: pytest.CaptureFixture[str]
) -> None:
    name = getattr(Images(), key)
    docker.has(name, maintainer="somebody")
    outcome = provide(placed(text()))
    assert name in outcome.present
    assert name not in docker.has_built()
    assert f"{name} is on this host and was not built by ManyEyes" in capsys.readouterr().out


@pytest.mark.parametrize("label", [{required_images.INPUTS_LABEL: "older"}, {images.COMPOSE_LABEL: "webui"}])
def test_our_own_image_of_older_sources_is_built_anew(docker: Docker, label: dict[str, str]) -> None:
    docker.has(Images().webui, **label)
    assert Images().webui in provide(placed(text())).built


@pytest.mark.parametrize("image", ["nonsense", "vllm/vllm-openai-cpu:v9.9.9", "vllm/vllm-openai-cpu:v0.33.0"])
def test_an_upgrade_to_an_image_that_cannot_be_had_touches_neither_engines_nor_configuration(
    docker: Docker, tmp_path: Path, image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    docker.refuses(("", NOT_FOUND))
    config = tmp_path / "cluster.yaml"
    config.write_text(text("cpu"))
    touched: list[object] = []
    monkeypatch.setattr(
        upgrade, "running_cluster", lambda path: (place_engines(load(path), Inventory()), Compose("manyeyes"))
    )
    monkeypatch.setattr(upgrade, "_without_drained", lambda cluster, compose: ["e"])
    monkeypatch.setattr(upgrade, "restart_one_by_one", lambda *arguments: touched.append(arguments))
    with pytest.raises(CliError, match=f"Image {image}: could not be pulled"):
        upgrade.upgrade(config, image)
    assert config.read_text() == text("cpu")
    assert (touched, docker.has_built()) == ([], [])


def test_the_image_for_gpus_that_is_built_here_wants_no_compiler_of_kernels() -> None:
    lines = (ROOT / "docker/vllm-cuda/Dockerfile").read_text().splitlines()
    assert "ENV VLLM_USE_FLASHINFER_SAMPLER=0 VLLM_USE_DEEP_GEMM=0" in lines


def test_an_image_is_pinned_at_its_first_pull_and_pulled_by_that_digest_from_then_on(
    docker: Docker, tmp_path: Path
) -> None:
    config, nginx, first = tmp_path / "cluster.yaml", Images().nginx, docker.registry_digest
    assert nginx in provide(placed(text()), config=config).pulled
    recorded = yaml.safe_load((tmp_path / "image-digests.yaml").read_text())
    assert recorded[nginx] == first
    assert not [name for name in recorded if name.startswith("manyeyes/")]
    docker.registry_digest = "sha256:" + "b" * 64  # the tag names another image now
    del docker.local[nginx]
    docker.pulled.clear()
    assert nginx in provide(placed(text()), config=config).pulled
    assert docker.pulled == [f"{nginx}@{first}"]
    assert docker.digests[nginx] == [first]
    assert nginx in provide(placed(text()), config=config).present


def test_an_image_that_is_another_than_at_its_first_pull_is_refused(docker: Docker, tmp_path: Path) -> None:
    config, nginx = tmp_path / "cluster.yaml", Images().nginx
    provide(placed(text()), config=config)
    docker.digests[nginx] = ["sha256:" + "b" * 64]
    with pytest.raises(CliError, match=f"Image {nginx}: expected the digest of its first pull") as caught:
        provide(placed(text()), config=config)
    assert "remove its line in" in str(caught.value)
    assert docker.has_built() == [] or nginx not in docker.has_built()


def test_an_image_that_is_built_here_has_no_digest_to_hold_it_to(docker: Docker, tmp_path: Path) -> None:
    config, nginx = tmp_path / "cluster.yaml", Images().nginx
    provide(placed(text()), config=config)
    del docker.local[nginx]
    docker.refuses(("", NO_WAY))
    assert nginx in provide(placed(text()), config=config).built
    assert nginx not in yaml.safe_load((tmp_path / "image-digests.yaml").read_text() or "{}")


@pytest.mark.parametrize("damage", ["- a\n", "nginx:1.30: yes\n", "nginx: [sha256:x]\n", "{", "\x00"])
def test_a_damaged_file_of_digests_does_not_switch_the_check_off(docker: Docker, tmp_path: Path, damage: str) -> None:
    (tmp_path / "image-digests.yaml").write_text(damage)
    with pytest.raises(CliError, match=r"image-digests\.yaml: expected lines of IMAGE"):
        provide(placed(text()), config=tmp_path / "cluster.yaml")


POOLS = "# mine\npools:\n  - {name: a, model: m}  # the one\n"


@pytest.mark.parametrize(
    ("images", "expected"),
    [
        ("", "\nimages:\n  vllm_cuda: v/v:2\n"),
        ("images:\n  vllm_cuda: v/v:1  # pinned\n  nginx: nginx:1.30\n", "images:\n  vllm_cuda: v/v:2  # pinned\n  nginx: nginx:1.30\n"),
        ("images:\n  nginx: nginx:1.30\n", "images:\n  vllm_cuda: v/v:2\n  nginx: nginx:1.30\n"),
        ("images: {nginx: nginx:1.30}\n", "images: {vllm_cuda: v/v:2, nginx: nginx:1.30}\n"),
        ('images: {"vllm_cuda": "v/v:1"}\n', 'images: {"vllm_cuda": v/v:2}\n'),
    ],
)  # fmt: skip
def test_only_the_image_changes(images: str, expected: str) -> None:
    text = with_image(POOLS + images, Path("c.yaml"), "vllm_cuda", "v/v:2")
    assert text == POOLS + expected
    assert parse(text).images.vllm_cuda == "v/v:2"


def test_an_image_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"images\.vllm_cuda"):
        with_image(POOLS, Path("c.yaml"), "vllm_cuda", "not an image")
