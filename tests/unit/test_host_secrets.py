"""The secrets folder: what `make doctor` says of it, the certificate that `make up` makes, and what `make up` prints."""

import shutil
import ssl
import subprocess
from pathlib import Path

import pytest

from manyeyes.cli import doctor, host_info, readiness, secrets
from manyeyes.cli.host_info import Docker
from manyeyes.cli.invocation import DEFAULT_CONFIG
from manyeyes.cli.terminal import CliError
from manyeyes.config import checkout
from manyeyes.config.credentials import ApiKey, ApiKeys
from manyeyes.config.loader import parse
from manyeyes.config.placement import Inventory, place_engines
from tests.placed import placed

WORKS = Docker(client="28.5.2", server="28.5.2", compose="2.40.3", root_dir="/")
ENGINES = "engines: [{name: e, pool: a, flavour: emulated}]\n"
REMOTE = """
pools:
  - {name: a, model: org/A, fallback: r}
  - {name: r, model: m, remote: {url: "https://api.example.com/v1", key_file: r.key, ca_file: r.crt}}
"""
TLS = "pools: [{name: a, model: org/A}]\ngateway: {tls: {}}\n"
EMULATED = Inventory(flavour="emulated")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "kept"
    path.mkdir(mode=0o750)
    monkeypatch.setenv("SECRETS_DIR", str(path))
    monkeypatch.setattr(host_info, "host_name", lambda: "eyes")
    monkeypatch.setattr(host_info, "addresses", lambda: ["10.1.2.3", "fd00::1"])
    return path


def told(text: str) -> dict[str, tuple[str, str]]:
    checks = doctor.run_checks(placed(text + ENGINES), WORKS, EMULATED, is_running=True)
    wanted = [check for check in checks if check.name == "certificate" or "." in check.name]
    return {check.name: (check.found, check.remedy) for check in wanted}


def put(path: Path, mode: int = 0o640) -> Path:
    path.write_text("x")
    path.chmod(mode)
    return path


def test_the_admin_key_is_made_by_make_up_and_told_when_it_is_closed(folder: Path) -> None:
    def admin_key() -> tuple[str, str]:
        checks = doctor.run_checks(placed(TLS + ENGINES), WORKS, EMULATED, is_running=True)
        return next((check.found, check.remedy) for check in checks if check.name == "admin key")

    assert admin_key() == ("`make up` creates it", "")
    file = put(folder / "admin.key", 0o600)
    found, remedy = admin_key()
    assert found == "not readable by the gateway"
    subprocess.run(remedy, shell=True, check=True)
    assert admin_key() == ("present", "")
    assert file.stat().st_mode & 0o007 == 0


def test_keys_of_endpoints_are_told_like_those_of_pools(folder: Path) -> None:
    endpoint = (
        "{url: 'https://h/', template: '{\"p\": \"{USER_PROMPT}\"}', answer: $.a, headers: {A: '{SECRET:e.key}'}}"
    )
    text = (
        "pools: [{name: a, model: m, media: {images_per_prompt: 0, videos_per_prompt: 0}}]\n"
        f"engines: [{{name: e, pool: a, address: 'adapter:9100', endpoint: {endpoint}}}]\n"
    )
    assert secrets.list_pool_secrets(place_engines(parse(text), EMULATED)) == {"engines[e].endpoint (e.key)": "e.key"}


def test_files_of_those_who_are_told_of_alerts_are_looked_for_too() -> None:
    alerting = "{webhooks: [{url: 'http://h/'}, {url_file: pager.url}], emails: [{to: a@b, sender: c@d, server: 'e:25', password_file: mail}]}"
    text = "pools: [{name: a, model: m}]\nmonitoring: {alerting: " + alerting + "}\n" + ENGINES
    assert secrets.list_alerting_secrets(place_engines(parse(text), EMULATED)) == {
        "monitoring.alerting.webhooks[2].url_file": "pager.url",
        "monitoring.alerting.emails[1].password_file": "mail",
    }


def make(text: str = TLS) -> None:
    secrets.ensure_certificate(place_engines(parse(text + ENGINES), EMULATED))


def test_files_of_remote_pools_that_are_missing_are_told_with_their_place(folder: Path) -> None:
    put(folder / "r.crt")
    found = told(REMOTE)
    assert found["pools[r].remote.key_file"] == ("missing", f"Put the file there: {folder}/r.key")
    assert found["pools[r].remote.ca_file"] == ("present", "")


def test_a_file_closed_to_the_gateway_is_told_with_the_command_that_opens_it(folder: Path) -> None:
    put(folder / "r.crt")
    key = put(folder / "r.key", 0o600)
    found, remedy = told(REMOTE)["pools[r].remote.key_file"]
    assert found == "not readable by the gateway"
    subprocess.run(remedy, shell=True, check=True)
    assert told(REMOTE)["pools[r].remote.key_file"] == ("present", "")
    assert key.stat().st_mode & 0o007 == 0


def test_a_closed_folder_is_told(folder: Path) -> None:
    put(folder / "r.key")
    folder.chmod(0o700)
    assert told(REMOTE)["pools[r].remote.key_file"] == ("in an unreadable folder", f"chmod g+x {folder}")


def test_a_link_out_of_the_folder_is_told_because_containers_cannot_follow_it(folder: Path, tmp_path: Path) -> None:
    (folder / "r.key").symlink_to(put(tmp_path / "elsewhere", 0o644))
    assert told(REMOTE)["pools[r].remote.key_file"][0] == "a link out of the folder"


def test_without_tls_and_remote_pools_the_folder_is_not_looked_at(folder: Path) -> None:
    folder.rmdir()
    assert told("pools: [{name: a, model: org/A}]\n") == {}


def test_with_tls_a_self_signed_pair_is_made_that_only_the_folders_group_can_read(folder: Path) -> None:
    assert told(TLS) == {"certificate": ("`make up` creates it", "")}
    make()
    crt, key = folder / "tls.crt", folder / "tls.key"
    assert (crt.stat().st_mode & 0o777, key.stat().st_mode & 0o777) == (0o644, 0o640)
    assert sorted(path.name for path in folder.iterdir()) == ["tls.crt", "tls.key"]
    assert secrets.is_self_signed(crt)
    assert not secrets.has_expired(crt)
    said = subprocess.run(["openssl", "x509", "-noout", "-text", "-in", crt], capture_output=True, text=True).stdout
    for name in ("DNS:localhost", "DNS:eyes", "IP Address:127.0.0.1", "IP Address:10.1.2.3", "CA:FALSE"):
        assert name in said
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(crt, key)
    assert told(TLS) == {"gateway.tls.certificate": ("present", ""), "gateway.tls.key": ("present", "")}


@pytest.mark.parametrize("there", [("tls.crt",), ("tls.key",), ("tls.crt", "tls.key")])
def test_a_file_that_is_there_is_never_overwritten_and_a_half_is_told(folder: Path, there: tuple[str, ...]) -> None:
    for name in there:
        put(folder / name)
    make()
    assert sorted(path.name for path in folder.iterdir()) == sorted(there)
    assert {path.read_text() for path in folder.iterdir()} == {"x"}
    assert sum(found == "missing" for found, _ in told(TLS).values()) == 2 - len(there)


def test_without_openssl_and_a_certificate_doctor_says_so(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert told(TLS) == {"certificate": ("none", f"Install openssl, or put a certificate and key into {folder}")}


def test_an_expired_certificate_is_told(folder: Path) -> None:
    make()
    crt = folder / "tls.crt"
    subprocess.run(
        ["openssl", "x509", "-in", crt, "-signkey", folder / "tls.key", "-days", "-1", "-out", crt],
        check=True,
        capture_output=True,
    )
    assert told(TLS)["gateway.tls.certificate"][0] == "expired"


def signed_by_somebody(folder: Path, name: str) -> None:
    """A certificate as an operator brings it: for a public name, vouched for by somebody else."""
    run = ["openssl", "req", "-nodes", "-newkey", "rsa:2048", "-keyout", "tls.key"]
    commands = [
        [*run, "-x509", "-subj", "/CN=authority", "-out", "ca.crt"],
        [*run, "-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name}", "-out", "request"],
        ["openssl", "req", "-x509", "-in", "request", "-copy_extensions", "copy", "-CA", "ca.crt", "-CAkey", "ca.key", "-key", "tls.key", "-out", "tls.crt"],
    ]  # fmt: skip
    commands[0][commands[0].index("tls.key")] = "ca.key"
    for command in commands:
        subprocess.run(command, cwd=folder, check=True, capture_output=True)


def said(text: str, keys: ApiKeys, capsys: pytest.CaptureFixture[str]) -> str:
    readiness.print_next_steps(place_engines(parse(text + ENGINES), EMULATED), keys, DEFAULT_CONFIG, grafana=False)
    return capsys.readouterr().out


def test_the_first_lines_name_the_keys_and_how_to_send_one(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain = "pools: [{name: a, model: org/A}]\n"
    assert "any key is accepted" in said(plain, ApiKeys(), capsys)
    refused = said(plain + "gateway: {host: 192.168.1.5}\n", ApiKeys(), capsys)
    assert "a key is required, but there is none" in refused
    keys = ApiKeys(keys=tuple(ApiKey(name=f"k{n}", sha256=f"{n:064x}") for n in range(7)))
    text = said(plain, keys, capsys)
    assert "keys: k0, k1, k2, k3, k4 and 2 more" in text
    assert "Authorization: Bearer YOUR-KEY" in text
    text = said(plain + "gateway: {anonymous: true}\n", keys, capsys)
    assert "requests without a key are served too" in text
    assert "Bearer" not in text


def test_with_a_self_signed_certificate_curl_is_told_to_trust_it(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make()
    text = said(TLS, ApiKeys(), capsys)
    assert f"curl --cacert {folder}/tls.crt https://localhost:8080/v1/chat/completions" in text
    assert "http://localhost:8080" not in text


def test_with_the_operators_certificate_the_address_is_the_name_it_is_for(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    signed_by_somebody(folder, "eyes.example.com")
    text = said(TLS, ApiKeys(), capsys)
    assert "curl https://eyes.example.com:8080/v1/chat/completions" in text


def test_what_remote_pools_are_is_told_and_the_first_question_is_not_theirs(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = """
pools:
  - {name: r, model: m, remote: {url: "https://api.example.com/v1"}}
  - {name: a, model: org/A}
"""
    shown = said(text, ApiKeys(), capsys)
    assert "r   (m, at api.example.com)" in shown
    assert '"model": "a"' in shown


def test_the_group_that_the_gateway_is_given_is_the_folders(folder: Path) -> None:
    assert checkout.secrets_group() == folder.stat().st_gid
    shutil.rmtree(folder)
    assert checkout.secrets_group() == secrets.GATEWAY_USER


def test_it_is_random_closed_to_others_and_not_printed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keys = set()
    for _ in range(3):
        (folder / "admin.key").unlink(missing_ok=True)
        secrets.ensure_admin_key(DEFAULT_CONFIG)
        keys.add(secrets.read_admin_key())
    assert len(keys) == 3
    assert all(len(key) >= 40 for key in keys)
    assert (folder / "admin.key").stat().st_mode & 0o777 == 0o640
    said = capsys.readouterr().out
    assert "manyeyes admin-key" in said
    assert not any(key in said for key in keys)


def test_one_that_is_there_stays(folder: Path) -> None:
    (folder / "admin.key").write_text("chosen-by-the-operator\n")
    secrets.ensure_admin_key(DEFAULT_CONFIG)
    assert secrets.read_admin_key() == "chosen-by-the-operator"


def test_a_folder_that_takes_nothing_is_told_and_stops_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "file").write_text("")
    monkeypatch.setenv("SECRETS_DIR", str(folder / "file"))
    secrets.ensure_admin_key(DEFAULT_CONFIG)
    assert "admin.key could not be created" in capsys.readouterr().out


def test_without_one_the_command_says_who_makes_it(folder: Path) -> None:
    with pytest.raises(CliError) as trouble:
        secrets.read_admin_key()
    assert "`make up` creates it" in trouble.value.problems[0]
