from pathlib import Path

from loadtest.run import ProgressLine, publish_textfile


def test_the_generators_limit_is_told_while_a_run_lasts(tmp_path: Path) -> None:
    file, seen = tmp_path / "loadtest.prom", list[ProgressLine]()
    with publish_textfile(seen.append, file) as watch:
        watch({"cpu": 0.3})
        assert "\nmanyeyes_loadtest_limit 0\n" in file.read_text()
        watch({"cpu": 0.9})
        assert "\nmanyeyes_loadtest_limit 1\n" in file.read_text()
        assert "\nmanyeyes_loadtest_generator_cpu_share 0.900\n" in file.read_text()
    assert not list(tmp_path.iterdir())
    assert len(seen) == 2


def test_where_there_is_no_folder_for_it_the_run_goes_on(tmp_path: Path) -> None:
    with publish_textfile(lambda line: None, tmp_path / "not there" / "loadtest.prom") as watch:
        watch({"cpu": 0.9})
