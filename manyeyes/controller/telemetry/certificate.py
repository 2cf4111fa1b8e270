"""When the gateway's certificate ends, for an alert in time.

Python's ssl reads certificates of others and not one's own file; a library for one date would be the largest the controller has. So the
one field is read here: RFC 5280, section 4.1, in DER.
"""

import contextlib
import ssl
from datetime import UTC, datetime
from pathlib import Path

from manyeyes.config.cluster import Cluster
from manyeyes.controller.telemetry.metrics import CERTIFICATE_EXPIRES

SEQUENCE, UTC_TIME, EXPLICIT_VERSION = 0x30, 0x17, 0xA0
FIELDS_BEFORE_VALIDITY = 3
"""Serial number, signature algorithm, issuer."""


class Unreadable(ValueError):
    """Not a certificate in PEM."""


def tell(cluster: Cluster, secrets: Path) -> None:
    """The metric as of now; none without TLS, or while the file cannot be read."""
    CERTIFICATE_EXPIRES.clear()
    if cluster.gateway.tls:
        name = cluster.gateway.tls.certificate
        with contextlib.suppress(OSError, ValueError, OverflowError):
            at = ends((secrets / name).read_text()).timestamp()
            CERTIFICATE_EXPIRES.labels(name).set(at)


def ends(pem: str) -> datetime:
    """Until when the first certificate in `pem` is valid. Raises Unreadable."""
    begin, end = (pem.find(f"-----{word} CERTIFICATE-----") for word in ("BEGIN", "END"))
    try:
        if begin < 0 or end < 0:
            raise Unreadable("no certificate")
        der = ssl.PEM_cert_to_DER_cert(pem[begin:end] + "-----END CERTIFICATE-----\n")
        _, certificate, _ = _element(der)
        _, signed, _ = _element(certificate)
        tag, _, after = _element(signed)
        rest = after if tag == EXPLICIT_VERSION else signed
        for _ in range(FIELDS_BEFORE_VALIDITY):
            _, _, rest = _element(rest)
        _, validity, _ = _element(rest)
        _, _, not_after = _element(validity)
        tag, text, _ = _element(not_after)
        form = "%y%m%d%H%M%SZ" if tag == UTC_TIME else "%Y%m%d%H%M%SZ"
        return datetime.strptime(text.decode(), form).replace(tzinfo=UTC)
    except (ValueError, IndexError) as error:
        raise Unreadable(f"no certificate in PEM: {error}") from error


def _element(data: bytes) -> tuple[int, bytes, bytes]:
    """Tag, content, and what comes after the first element."""
    tag, length, start = data[0], data[1], 2
    if length & 0x80:
        size = length & 0x7F
        length, start = int.from_bytes(data[2 : 2 + size], "big"), 2 + size
    return tag, data[start : start + length], data[start + length :]
