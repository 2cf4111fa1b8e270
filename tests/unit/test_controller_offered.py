"""The folder in which nginx is offered its files."""

from pathlib import Path

import pytest

from manyeyes.config.placement import PlacedCluster
from manyeyes.controller.config_sync.nginx_publisher import GenerationStatus, GenerationStore, NginxPublisher
from manyeyes.render.nginx.files import build_generation
from manyeyes.render.nginx.naming import CONTAINER_PATHS
from tests.placed import placed


def names(folder: Path) -> set[str]:
    return {path.name for path in (folder / "generations").iterdir()}


def test_a_generation_is_whole_before_it_is_current_and_others_are_swept_away(tmp_path: Path) -> None:
    offered = GenerationStore(tmp_path)
    assert (offered.current, offered.proven) == ("", "")
    offered.publish("one", {"a.conf": "1"})
    offered.mark_proven("one")
    offered.publish("two", {"a.conf": "2"})
    assert (offered.current, offered.proven) == ("two", "one")
    assert (tmp_path / "current/a.conf").read_text() == "2"
    assert (tmp_path / "proven/a.conf").read_text() == "1"
    (tmp_path / "generations/.three.new").mkdir()  # a kill left it
    offered.publish("four", {"a.conf": "4"})
    assert names(tmp_path) == {"one", "four"}


def test_a_disk_that_refuses_leaves_what_was_there(tmp_path: Path) -> None:
    offered = GenerationStore(tmp_path)
    offered.publish("one", {"a.conf": "1"})
    with pytest.raises(OSError, match="Not a directory"):
        offered.publish("two", {"a.conf": "2", "a.conf/b": "3"})
    assert offered.current == "one"
    assert names(tmp_path) == {"one"}


def test_its_files_are_readable_whatever_the_umask(tmp_path: Path) -> None:
    GenerationStore(tmp_path).publish("one", {"a.conf": "1"})
    generation = tmp_path / "generations/one"
    assert (generation.stat().st_mode & 0o777, (generation / "a.conf").stat().st_mode & 0o777) == (0o755, 0o644)


def test_a_generation_is_named_by_its_texts_and_tells_its_name_and_sums() -> None:
    name, files = build_generation({"a.conf": "1\n"})
    assert build_generation({"a.conf": "1\n"}) == (name, files)
    assert build_generation({"a.conf": "2\n"})[0] != name
    assert files["generation"] == f"{name}\n"
    assert f'"{name}"' in files["generation.conf"]
    assert [line.split()[1] for line in files["generation.sha256"].splitlines()] == [
        "a.conf",
        "generation",
        "generation.conf",
    ]


# --- what the controller makes of nginx's word ---------------------------------------------------------------------------


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def files(tmp_path: Path, told: list[str]) -> NginxPublisher:
    return NginxPublisher(GenerationStore(tmp_path), CONTAINER_PATHS, "http://gateway:8088", told.append)


def cluster(name: str, deadline_s: float = 60) -> PlacedCluster:
    return placed(
        f"pools: [{{name: {name}, model: m}}]\nengines: [{{name: e, pool: {name}, flavour: emulated}}]\n"
        f"controller: {{reload_timeout_s: {deadline_s}}}"
    )


def test_what_nginx_runs_on_is_proven_and_what_it_refuses_is_told_once(files: NginxPublisher, told: list[str]) -> None:
    files.apply(cluster("a"))
    first = files.offered.current
    files.record_status(GenerationStatus(first))
    files.prove()
    assert (files.is_current, files.offered.proven) == (True, first)
    files.apply(cluster("b"))
    second = files.offered.current
    for _ in range(3):
        files.record_status(GenerationStatus(first, refused=second, reason="[emerg] no such file"))
    assert not files.is_current
    assert files.offered.proven == first
    assert told == [
        "the gateway runs the active configuration",
        "the gateway does not run its newest configuration: "
        "nginx refused it and continues with the previous configuration: [emerg] no such file",
    ]
    files.record_status(GenerationStatus(second))
    files.prove()
    assert told[-1] == "the gateway runs the active configuration again"
    assert (files.problem, files.offered.proven) == ("", second)


def test_a_gateway_that_stays_behind_is_told_and_one_that_is_away_is_not(
    files: NginxPublisher, told: list[str]
) -> None:
    files.apply(cluster("a", deadline_s=0.001))
    files.record_status(GenerationStatus())
    files.record_status(GenerationStatus())
    assert told == []
    files.record_status(GenerationStatus("another"))
    files.record_status(GenerationStatus("another"))
    assert [sentence for sentence in told if "did not load it within" in sentence] == told
    assert len(told) == 1


def test_the_same_cluster_is_no_new_generation(files: NginxPublisher, told: list[str]) -> None:
    files.apply(cluster("a"))
    files.record_status(GenerationStatus(files.offered.current))
    files.apply(cluster("a"))
    assert files.is_current


def test_a_full_disk_is_told_and_tried_again(files: NginxPublisher, told: list[str], tmp_path: Path) -> None:
    files.apply(cluster("a"))
    before = files.offered.current
    (tmp_path / "generations").rename(tmp_path / "elsewhere")
    (tmp_path / "generations").write_text("in the way")
    files.apply(cluster("b"))
    assert "could not be written" in told[-1]
    assert files.offered.current == before
    (tmp_path / "generations").unlink()
    (tmp_path / "elsewhere").rename(tmp_path / "generations")
    files.write_again()
    assert files.offered.current != before
