import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from manyeyes.controller.telemetry.metrics import certificate_expiry, record_certificate
from tests.placed import placed

PLAIN = "pools: [{name: big, model: m}]"


def made(folder: Path, *more: str) -> bytes:
    files = ["-keyout", str(folder / "key"), "-out", str(folder / "tls.crt")]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=x"]
    subprocess.run([*command, *files, *more], check=True, capture_output=True)
    return (folder / "tls.crt").read_bytes()


@pytest.mark.parametrize("days", [2, 20_000])  # from 2050 on the date is written in another form
def test_the_end_of_a_certificate_is_read(tmp_path: Path, days: int) -> None:
    ends = certificate_expiry(made(tmp_path, "-days", str(days)))
    assert abs(ends - datetime.now(UTC) - timedelta(days=days)) < timedelta(hours=1)


def test_the_first_certificate_of_a_chain_counts(tmp_path: Path) -> None:
    first = made(tmp_path, "-days", "2")
    assert certificate_expiry(first + made(tmp_path, "-days", "300")) == certificate_expiry(first)


@pytest.mark.parametrize("wrong", ["", "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n", "tls"])
def test_what_is_no_certificate_is_said_to_be_none(wrong: str) -> None:
    with pytest.raises(ValueError, match=r"(?s)."):
        certificate_expiry(wrong.encode())


def test_it_is_told_only_while_there_is_one(tmp_path: Path) -> None:
    def told() -> float | None:
        return REGISTRY.get_sample_value("manyeyes_certificate_expires_timestamp_seconds", {"file": "tls.crt"})

    made(tmp_path)
    record_certificate(placed(PLAIN + "\ngateway: {tls: {}}"), tmp_path)
    assert told() == certificate_expiry((tmp_path / "tls.crt").read_bytes()).timestamp()
    record_certificate(placed(PLAIN + "\ngateway: {tls: {}}"), tmp_path / "elsewhere")
    assert told() is None
    record_certificate(placed(PLAIN), tmp_path)
    assert told() is None
