"""Self-signed certificates for tests."""

import subprocess
from pathlib import Path


def certificate(folder: Path, name: str = "127.0.0.1") -> tuple[Path, Path]:
    """(certificate, key) for an address, both in PEM."""
    crt, key = folder / "tls.crt", folder / "tls.key"
    kind = "IP" if name[0].isdigit() else "DNS"
    subject = ["-subj", f"/CN={name}", "-addext", f"subjectAltName={kind}:{name}"]
    command: list[str | Path] = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "2",
        "-keyout",
        key,
        "-out",
        crt,
        *subject,
    ]
    subprocess.run(command, check=True, capture_output=True)
    return crt, key
