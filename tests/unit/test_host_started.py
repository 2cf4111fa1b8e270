"""What each engine's container was started with is known, and what to do when a restart is interrupted twice."""

from pathlib import Path
from typing import cast

import pytest
import yaml

from manyeyes.cli import started_services, up
from manyeyes.cli.compose import Compose
from manyeyes.cli.engine_containers import restart_times
from manyeyes.cli.engine_restart import EngineStatus, LeftOutOfRotation, RestartFailed, RestartTimes, restart
from manyeyes.cli.rolling_restart import describe_left_out, render_engines
from manyeyes.cli.terminal import CliError
from manyeyes.config.loader import parse
from manyeyes.config.placement import DEFAULT_INVENTORY, place_engines
from manyeyes.render.compose_engines import engines_yaml
from manyeyes.render.rendered_file import write_files
from manyeyes.render.renderer import render
from tests.placed import placed


def rendered(folder: Path, **commands: str) -> None:
    services = {name: {"command": [command]} for name, command in commands.items()}
    (folder / "engines.yaml").write_text(yaml.safe_dump({"services": services}))


def test_an_engine_is_noted_as_it_is_rendered_when_it_is_started(tmp_path: Path) -> None:
    rendered(tmp_path, a="one", b="one")
    assert started_services.services(tmp_path) == {}
    started_services.record(tmp_path, ["a", "b"])
    rendered(tmp_path, a="two", b="two", c="two")
    started_services.record(tmp_path, ["b", "c", "unknown"])
    assert {name: one["command"] for name, one in started_services.services(tmp_path).items()} == {
        "a": ["one"],
        "b": ["two"],
        "c": ["two"],
    }
    started_services.keep_only(tmp_path, ["a", "gone"])
    assert list(started_services.services(tmp_path)) == ["a"]


def engine_of(pool: str, **changes: object) -> dict[str, object]:
    text = f"pools: [{{name: {pool}, model: Qwen/Qwen3-VL-4B-Instruct}}]\nengines: [{{name: e, pool: {pool}, flavour: emulated}}]\n"
    document = yaml.safe_load(text)
    document["pools"][0] |= changes
    cluster = place_engines(parse(yaml.safe_dump(document)), DEFAULT_INVENTORY)
    return dict(yaml.safe_load(engines_yaml(cluster))["services"]["e"])


def test_another_name_of_the_pool_is_told_from_any_other_change() -> None:
    assert engine_of("a") != engine_of("b")
    assert started_services.differ_in_names_only(engine_of("a"), engine_of("b"))
    assert started_services.differ_in_names_only(engine_of("a"), engine_of("b", aliases=["c", "d"]))
    assert not started_services.differ_in_names_only(engine_of("a"), engine_of("b", max_model_len=4096))


class Running:
    """As far as it is asked which of its engines are restarted."""

    rendered = "."


def test_an_engine_that_is_alone_in_its_pool_is_not_restarted_for_a_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engines = "[{name: one, pool: lone, flavour: emulated}, {name: two, pool: pair, flavour: emulated}, {name: three, pool: pair, flavour: emulated}]"
    pools = "[{name: lone, model: m}, {name: pair, model: n}]"
    cluster = place_engines(parse(f"pools: {pools}\nengines: {engines}\n"), DEFAULT_INVENTORY)
    monkeypatch.setattr(up, "ROOT", tmp_path)
    before = {name: {"command": ["--served-model-name", "old", "--port=1"]} for name in ("one", "two", "three")}
    after = {name: {"command": ["--served-model-name", "new", "m", "--port=1"]} for name in ("one", "two", "three")}
    (tmp_path / "engines.yaml").write_text(yaml.safe_dump({"services": before}))
    started_services.record(tmp_path, before)
    (tmp_path / "engines.yaml").write_text(yaml.safe_dump({"services": after}))
    changed = ["one", "two", "three"]
    assert up._split_changed(cluster, cast("Compose", Running()), changed) == (["two", "three"], ["one"])
    after["one"]["command"].append("--seed=1")
    (tmp_path / "engines.yaml").write_text(yaml.safe_dump({"services": after}))
    assert up._split_changed(cluster, cast("Compose", Running()), changed) == (changed, [])


def test_an_engine_is_stopped_only_after_nginx_and_the_controller_looked_again() -> None:
    cluster = placed(
        "pools: [{name: a, model: m}]\nengines: [{name: e, pool: a, flavour: emulated}]\n"
        "controller: {dns_ttl_s: 3, probe_interval_s: 4}\nshutdown: {finish_s: 7}\n"
    )
    assert restart_times(cluster) == RestartTimes(
        leave_s=3 + 2 + 4, finish_s=7, stop_s=cluster.shutdown.grace_s + 30, start_s=120
    )


class Interrupted:
    """The first look after the engine was held is interrupted, and so is letting it in again."""

    def __init__(self) -> None:
        self.is_drained = False

    def query_engines(self) -> dict[str, EngineStatus]:
        if self.is_drained:
            raise KeyboardInterrupt
        return {"a": EngineStatus("p", "up", 0), "b": EngineStatus("p", "up", 0)}

    def drain(self, name: str) -> None:
        self.is_drained = True

    def resume(self, name: str) -> None:
        raise KeyboardInterrupt

    def stop(self, name: str) -> None:
        raise AssertionError("not reached")

    start = stop

    def find_start_failure(self, name: str) -> str:
        return ""


def test_an_engine_that_could_not_be_put_back_is_named() -> None:
    with pytest.raises(LeftOutOfRotation) as caught:
        restart(["a"], RestartTimes(1, 1, 1, 1), Interrupted())
    assert (caught.value.name, caught.value.may_be_stopped) == ("a", False)


class Refused(Interrupted):
    """The controller refuses to take the engine out and to let it in."""

    def __init__(self, state: str, answer: str = "There is no engine 'a'.") -> None:
        self.state, self.answer = state, answer

    def query_engines(self) -> dict[str, EngineStatus]:
        return {"a": EngineStatus("p", self.state, 0), "b": EngineStatus("p", "up", 0)}

    def drain(self, name: str) -> None:
        raise CliError(self.answer)

    resume = drain


def test_what_ended_a_restart_is_told_and_nobody_is_said_to_have_interrupted_it() -> None:
    with pytest.raises(CliError, match="There is no engine 'a'"):
        restart(["a"], RestartTimes(1, 1, 1, 1), Refused("up"))
    with pytest.raises(LeftOutOfRotation) as caught:
        restart(["a"], RestartTimes(1, 1, 1, 1), Refused("draining", "The disk is full."))
    said = describe_left_out(caught.value, "`manyeyes resume a` puts it back")
    assert said.startswith("a could not be restarted: The disk is full. ")
    assert said.endswith("a may be out of rotation: `manyeyes resume a` puts it back")
    assert "interrupted" not in said
    with pytest.raises(LeftOutOfRotation) as caught:
        restart(["a"], RestartTimes(1, 1, 1, 1), Interrupted())
    assert describe_left_out(caught.value, "r") == "interrupted; a may be out of rotation: r"


def test_an_engine_that_fails_and_cannot_be_let_in_says_both() -> None:
    class Falls(Refused):
        def drain(self, name: str) -> None:
            self.state = "warming"

        def resume(self, name: str) -> None:
            raise CliError("The controller is away.")

        def stop(self, name: str) -> None:
            pass

        start = stop

        def find_start_failure(self, name: str) -> str:
            return "it exits repeatedly"

    with pytest.raises(
        RestartFailed, match=r"it exits repeatedly; it could not be put back into rotation: The controller is away$"
    ):
        restart(["a"], RestartTimes(0, 0, 0, 0), Falls("up"))


def test_a_rolling_restart_renders_engines_and_leaves_what_waits_for_make_up(tmp_path: Path) -> None:
    pools = "pools: [{name: a, model: m}]\n"
    write_files(render(placed(pools), DEFAULT_INVENTORY, Path("c.yaml"), Path("r")), tmp_path)
    started_services.record(tmp_path, started_services.rendered_services(tmp_path))
    before = {path.name: path.read_text() for path in tmp_path.rglob("*") if path.is_file()}
    changed = f"{pools}images: {{vllm_cuda: v/v:2, nginx: nginx:9}}\ngateway: {{port: 9999}}\n"
    render_engines(place_engines(parse(changed), DEFAULT_INVENTORY), tmp_path, changed)
    after = {path.name: path.read_text() for path in tmp_path.rglob("*") if path.is_file()}
    assert {name for name in after if after[name] != before.get(name)} == {
        "engines.yaml",
        "compose.env",
        "configuration.yaml",
    }
    assert "image: v/v:2" in after["engines.yaml"]
    assert set(after["compose.env"].splitlines()) - set(before["compose.env"].splitlines()) == {"VLLM_CUDA_IMAGE=v/v:2"}
