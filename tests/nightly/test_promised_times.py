"""The faults of tests/integration, each held to the time that docs/benchmarks/faults.md promises (conftest.py)."""

from tests.integration.test_controller_faults import (
    test_a_full_disk_costs_the_memory_and_not_the_service,
    test_an_engine_that_died_while_it_was_away_is_out_within_2_s_of_its_start,
)
from tests.integration.test_engine_faults import (
    test_500s_behind_a_healthy_face_take_it_out_within_5_s_and_back_when_they_end,
    test_all_stopped_at_once_stay_because_silence_proves_nothing_and_all_killed_are_out,
    test_dead_inside_it_is_out_within_3_s,
    test_hung_behind_a_healthy_face_it_is_asked_about_a_picture_and_out,
    test_killed_it_is_out_within_2_s_and_back_within_3_s_of_its_warm_up,
    test_refusing_connections_it_is_out_within_2_s_and_back_within_3_s,
    test_starting_slowly_it_is_starting_and_in_within_3_s_of_listening,
    test_stopped_in_its_tracks_it_is_out_within_10_s_and_back_when_it_goes_on,
)
from tests.integration.test_faults_under_load import (
    cluster,
    test_a_pool_that_goes_down_is_answered_by_its_fallback_within_a_second_and_comes_back,
    test_an_engine_that_hangs_is_taken_out_and_loses_only_streams_that_had_begun,
)

__all__ = [
    "cluster",
    "test_500s_behind_a_healthy_face_take_it_out_within_5_s_and_back_when_they_end",
    "test_a_full_disk_costs_the_memory_and_not_the_service",
    "test_a_pool_that_goes_down_is_answered_by_its_fallback_within_a_second_and_comes_back",
    "test_all_stopped_at_once_stay_because_silence_proves_nothing_and_all_killed_are_out",
    "test_an_engine_that_died_while_it_was_away_is_out_within_2_s_of_its_start",
    "test_an_engine_that_hangs_is_taken_out_and_loses_only_streams_that_had_begun",
    "test_dead_inside_it_is_out_within_3_s",
    "test_hung_behind_a_healthy_face_it_is_asked_about_a_picture_and_out",
    "test_killed_it_is_out_within_2_s_and_back_within_3_s_of_its_warm_up",
    "test_refusing_connections_it_is_out_within_2_s_and_back_within_3_s",
    "test_starting_slowly_it_is_starting_and_in_within_3_s_of_listening",
    "test_stopped_in_its_tracks_it_is_out_within_10_s_and_back_when_it_goes_on",
]
