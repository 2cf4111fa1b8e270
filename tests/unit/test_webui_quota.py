"""How much space a visitor, an address and all together have for uploads."""

import itertools
from pathlib import Path

import pytest

from webui.auth.upload_quota import MB, QuotaExceeded, UploadQuota, payers_of, used_bytes

numbers = itertools.count()


@pytest.fixture
def quota() -> UploadQuota:
    return UploadQuota(visitor_bytes=3 * MB, total_bytes=10 * MB)


def store(quota: UploadQuota, folder: Path, owner: str, address: str = "10.0.0.1", size: int = MB) -> int:
    """Stores a file as an upload does. Returns 200, or the status of the refusal."""
    with quota.paying(payers_of(owner, address, owner == "programs")):
        try:
            with quota.reserving(size, folder):
                made = folder / str(next(numbers))
                made.mkdir()
                (made / "cat.png").write_bytes(bytes(size - 40_000))
                quota.charge(made)
        except QuotaExceeded as error:
            return error.status
    return 200


def test_a_visitor_who_fills_the_quota_is_refused_and_others_are_not(quota: UploadQuota, tmp_path: Path) -> None:
    assert [store(quota, tmp_path, "mallory") for _ in range(5)] == [200, 200, 200, 413, 413]
    assert store(quota, tmp_path, "alice") == 200


def test_an_address_with_many_cookies_leaves_half_of_the_space_to_others(quota: UploadQuota, tmp_path: Path) -> None:
    assert [store(quota, tmp_path, f"mallory-{number}") for number in range(6)] == [200] * 5 + [429]
    network = [store(quota, tmp_path, f"bob-{number}", f"fd00::{number}") for number in range(6)]
    assert network == [200] * 5 + [429], "an IPv6 network of one host is one address"
    assert store(quota, tmp_path, "carol", "10.0.0.9") == 507


def test_programs_without_a_cookie_do_not_fill_each_others_space(quota: UploadQuota, tmp_path: Path) -> None:
    assert [store(quota, tmp_path, "programs") for _ in range(4)] == [200] * 3 + [413]
    assert store(quota, tmp_path, "programs", "10.0.0.2") == 200


def test_space_is_reserved_before_the_first_byte_and_given_back(quota: UploadQuota, tmp_path: Path) -> None:
    with quota.paying(payers_of("alice", "10.0.0.1", False)):
        with quota.reserving(2 * MB, tmp_path), pytest.raises(QuotaExceeded), quota.reserving(2 * MB, tmp_path):
            pass
        with quota.reserving(3 * MB, tmp_path):
            pass


def test_deleted_files_free_their_space_and_made_ones_take_it(quota: UploadQuota, tmp_path: Path) -> None:
    assert store(quota, tmp_path, "alice") == 200
    [folder] = used_bytes(tmp_path)
    (folder / "cat-made.png").write_bytes(bytes(2 * MB))
    assert store(quota, tmp_path, "alice") == 413
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()
    assert store(quota, tmp_path, "alice") == 200


def test_a_million_empty_files_are_not_free(tmp_path: Path) -> None:
    quota = UploadQuota(visitor_bytes=MB, total_bytes=10 * MB)
    stored = [store(quota, tmp_path, "mallory", size=40_000) for _ in range(60)]
    assert 413 in stored
