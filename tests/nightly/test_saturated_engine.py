"""A saturated engine for the promised ten minutes, with the settings that ship. `manyeyes bench controller` prints its figures."""

from pathlib import Path

from tests.integration.test_saturated import Saturation, stays_in_rotation

TEN_MINUTES = Saturation(lasts_s=600, health_ms=2000, slowest_health_s=10)


def test_an_engine_saturated_for_ten_minutes_is_never_taken_out(tmp_path: Path) -> None:
    print(stays_in_rotation(tmp_path, TEN_MINUTES))
