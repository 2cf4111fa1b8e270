"""Files of the secrets folder that a registration names: there, readable, and what they are named for."""

import ssl
from pathlib import Path

from manyeyes.config.cluster import Cluster
from manyeyes.controller.config_sync.effective_config import EffectiveConfig
from manyeyes.controller.registry.errors import Refusal
from manyeyes.controller.registry.middleware import ADMIN_KEY_FILE as ADMIN_KEY


class SecretFiles:
    """The folder, as the gateway and the adapter see it too."""

    def __init__(self, folder: Path, in_force: EffectiveConfig) -> None:
        self.folder = folder
        self.in_force = in_force

    def check(self, name: str, param: str, authority: bool = False) -> None:
        """Raises Refusal unless the file can be used; `authority`: as certificates to trust, which nginx reads when it starts."""
        if name in (ADMIN_KEY, *_of_the_gateway(self.in_force.cluster)):
            raise Refusal(
                403, "secret_not_allowed", f"secrets/{name} is the cluster's own; it is sent to nobody.", param
            )
        path = self.folder / name
        try:
            text = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            raise _wrong(name, "is not there. Put it there first", param) from None
        except (OSError, UnicodeDecodeError) as error:
            raise _wrong(
                name, f"cannot be read ({type(error).__name__}); `make doctor` says how to open it", param
            ) from error
        if authority:
            try:
                ssl.create_default_context(cadata=text)
            except (ssl.SSLError, ValueError) as error:
                raise _wrong(name, "holds no certificates in PEM", param) from error
        elif not text.strip() or len(text.strip().splitlines()) != 1 or not text.strip().isascii():
            raise _wrong(name, "wants one line, the key and nothing else", param)


def _of_the_gateway(cluster: Cluster) -> tuple[str, ...]:
    tls = cluster.gateway.tls
    return (tls.key,) if tls else ()


def _wrong(name: str, why: str, param: str) -> Refusal:
    return Refusal(422, "secret_file_unusable", f"secrets/{name} {why}.", param)
