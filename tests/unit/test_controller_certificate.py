import subprocess
from pathlib import Path

from prometheus_client import REGISTRY

from manyeyes.controller.metrics import certificate_expiry, record_certificate
from tests.placed import placed

PLAIN = "pools: [{name: big, model: m}]"


def made(folder: Path, *more: str) -> bytes:
    files = ["-keyout", str(folder / "key"), "-out", str(folder / "tls.crt")]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=x"]
    subprocess.run([*command, *files, *more], check=True, capture_output=True)
    return (folder / "tls.crt").read_bytes()


def test_the_first_certificate_of_a_chain_counts(tmp_path: Path) -> None:
    first = made(tmp_path)
    assert certificate_expiry(first + made(tmp_path, "-days", "300")) == certificate_expiry(first)


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
    (tmp_path / "tls.crt").write_text("tls")
    record_certificate(placed(PLAIN + "\ngateway: {tls: {}}"), tmp_path)
    assert told() is None
