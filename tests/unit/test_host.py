"""What `make` does on the host. GPUs: test_host_gpus.py."""

import socket
from pathlib import Path

import pytest

from manyeyes.cli import docker_api, docker_install, doctor, env_file, gpu_discovery, host_info, required_images
from manyeyes.cli.host_info import Docker
from manyeyes.cli.terminal import CliError
from manyeyes.config.loader import parse
from manyeyes.config.placement import HostGpu, Inventory
from tests.placed import placed

ROOT = Path(__file__).resolve().parents[2]
AUTO = "pools: [{name: a, model: org/A, flavours: [cuda, cpu, emulated], if_weights_unavailable: t}, {name: t, model: tiny, flavours: [cpu]}]\n"
WORKS = Docker(client="28.5.2", server="28.5.2", compose="2.40.3", root_dir="/", nvidia=True)
OFFLINE = {"HF_ENDPOINT": "http://127.0.0.1:9"}


def test_without_gpus_the_flavour_is_cpu_and_models_that_cannot_be_had_are_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(host_info, "gpus", lambda: ())
    found = gpu_discovery.discover(parse(AUTO), WORKS, "", "p", OFFLINE)
    assert (found.flavour, found.missing_models) == ("cpu", ("org/A",))


@pytest.mark.parametrize(
    ("config", "flavour", "gpus", "docker", "said"),
    [
        (AUTO, "gpu", (), WORKS, "FLAVOUR: expected cuda, cpu or emulated, got 'gpu'"),
        (AUTO, "cuda", (), WORKS, "flavour cuda requires an NVIDIA GPU, but nvidia-smi shows none"),
        (AUTO, "", (HostGpu(index=0),), Docker(), "install nvidia-container-toolkit"),
        (
            "pools: [{name: a, model: m}]\nengines: [{name: e, pool: a, gpus: [0]}]",
            "cpu",
            (),
            WORKS,
            "lists its engines",
        ),
    ],
)
def test_a_flavour_that_cannot_be_is_refused_with_what_to_do(
    config: str, flavour: str, gpus: tuple[HostGpu, ...], docker: Docker, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host_info, "gpus", lambda: gpus)
    with pytest.raises(CliError, match=said):
        gpu_discovery.discover(parse(config), docker, flavour, "p", OFFLINE)


@pytest.mark.parametrize(
    ("found", "count"),
    [(WORKS, 0), (Docker(server="24.0.7", compose="2.40.3"), 1), (Docker(server="28.1", compose="2.23.0"), 1)],
)
def test_too_old_parts_of_docker_are_told(found: Docker, count: int) -> None:
    assert len(docker_install.too_old(found)) == count


def failing(config: str, docker: Docker = WORKS, found: Inventory | None = None) -> dict[str, str]:
    checks = doctor.run_checks(parse(config), docker, found or Inventory(flavour="emulated"), is_running=False)
    return {check.name: check.remedy for check in checks if check.remedy}


def test_a_port_in_use_is_told_with_the_setting_that_moves_it() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        problems = failing(AUTO + f"gateway: {{host: 127.0.0.1, port: {port}}}\nmonitoring: {{enabled: false}}")
    assert "gateway.port" in problems[f"port {port}"]


def test_too_little_memory_and_disk_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_info, "memory_gb", lambda: 0.5)
    monkeypatch.setattr(host_info, "disk_gb", lambda path: 0.5)
    problems = failing(AUTO + "gateway: {port: 1}\nmonitoring: {enabled: false}")
    assert {"free memory", "free disk in /"} <= set(problems)


@pytest.mark.parametrize(
    ("images", "weights", "needed"),
    [(False, False, "55.7"), (True, False, "15.7"), (False, True, "41.0"), (True, True, "1.0")],
)
def test_only_what_is_not_there_yet_needs_space(
    images: bool, weights: bool, needed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An image of 40 GiB, 9.85 and 4.87 GiB of weights, and 1 GiB for the rest."""
    monkeypatch.setattr(docker_api, "has_image", lambda image: images)
    monkeypatch.setattr(gpu_discovery, "are_in_volume", lambda *named: weights)
    monkeypatch.setattr(host_info, "disk_gb", lambda path: 0.5)
    found = Inventory(gpus=(HostGpu(index=0), HostGpu(index=1)))
    shipped = (ROOT / "config/cluster.yaml").read_text()
    checks = doctor.run_checks(parse(shipped), WORKS, found, is_running=False)
    disk = next(check for check in checks if check.name == "free disk in /")
    assert (disk.needed, disk.found) == (f"{needed} GiB", "0.5 GiB")
    assert ("not here yet" in disk.remedy) is not (images and weights)


def test_a_folder_for_weights_is_checked_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(docker_api, "has_image", lambda image: True)
    monkeypatch.setattr(host_info, "disk_gb", lambda path: 5.0)
    text = (ROOT / "config/cluster.yaml").read_text() + "models: {volume: /data/models}\n"
    problems = failing(text, found=Inventory(gpus=(HostGpu(index=0),)))
    assert "models.volume" in problems["free disk in /data/models"]
    assert "free disk in /" not in problems


def test_a_local_model_that_is_not_there_is_told(tmp_path: Path) -> None:
    text = f"pools: [{{name: a, model: {tmp_path}/none}}]\nengines: [{{name: e, pool: a, flavour: cpu}}]"
    assert "config.json" in failing(text, found=Inventory(flavour="cpu"))["model of a"]


def test_all_failed_checks_are_told_together() -> None:
    checks = [
        doctor.Check("a", "1", "0", "Do this."),
        doctor.Check("b", "1", "1"),
        doctor.Check("c", "2", "0", "Do that."),
    ]
    with pytest.raises(CliError) as caught:
        doctor.fail_on_blockers(checks)
    assert caught.value.problems == ("a: needed 1, found 0. Do this.", "c: needed 2, found 0. Do that.")


def test_make_up_keeps_its_lines_in_env_and_leaves_the_users_alone(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_text("HF_TOKEN='secret'\n")
    env_file.write_block({"A": "1"}, path)
    env_file.write_block({"A": "2", "B": "3"}, path)
    assert env_file.read(path) == {"HF_TOKEN": "secret", "A": "2", "B": "3"}
    env_file.write_block({}, path)
    assert path.read_text() == "HF_TOKEN='secret'\n"


def test_an_env_file_with_nothing_else_in_it_goes_with_the_cluster(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    env_file.write_block({"A": "1"}, path)
    env_file.write_block({}, path)
    assert not path.exists()


def test_every_image_of_every_flavour_but_grafana_and_nvidias_exporter_can_be_built_here() -> None:
    for flavour in ("cuda", "cpu", "emulated"):
        gpus = "gpus: [0]" if flavour == "cuda" else f"flavour: {flavour}"
        cluster = placed(f"pools: [{{name: a, model: tiny}}]\nengines: [{{name: e, pool: a, {gpus}}}]")
        wanted = required_images.required_images(cluster)
        of_gpus = [cluster.images.dcgm_exporter] if flavour == "cuda" else []
        assert [image.reference for image in wanted if image.build is None] == [*of_gpus, cluster.images.grafana]
        assert len({image.reference for image in wanted}) == len(wanted)


def test_our_images_are_built_anew_when_a_source_they_copy_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(required_images, "ROOT", tmp_path)
    (tmp_path / "part").mkdir()
    (tmp_path / "part/code.py").write_text("1")
    dockerfile = tmp_path / "part/Dockerfile"
    dockerfile.write_text("FROM x\nCOPY part/*.py part/\n")
    before = required_images.sources_digest(dockerfile, "python:1")
    assert required_images.sources_digest(dockerfile, "python:1") == before
    assert required_images.sources_digest(dockerfile, "python:2") != before
    (tmp_path / "part/code.py").write_text("2")
    assert required_images.sources_digest(dockerfile, "python:1") != before


def test_ca_certificates_that_are_no_file_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CA_CERTIFICATES", "/nowhere.pem")
    with pytest.raises(CliError, match=r"CA_CERTIFICATES: expected a PEM file, got /nowhere\.pem"):
        required_images.ca_certificates()
