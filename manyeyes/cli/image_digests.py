"""Records the digest of each image at its first pull, in image-digests.yaml next to the configuration, and checks it.

A tag may name another image tomorrow. `manyeyes pin-images` writes digests into the configuration instead.
"""

from pathlib import Path

import yaml
from docker.models.images import Image

from manyeyes.atomic_write import atomic_write
from manyeyes.cli.docker_api import docker_client
from manyeyes.cli.terminal import CliError
from manyeyes.config import documents
from manyeyes.config.documents import DocumentError

NAME = "image-digests.yaml"
HEAD = "# Digests of pulled images, written by `make up`. Remove a line to accept what its tag names now.\n"


class ImageDigests:
    """{reference without a digest: digest}. Without a configuration file nothing is recorded."""

    def __init__(self, config: Path | None) -> None:
        self.file = config.parent / NAME if config else None
        self.digests = _read(self.file) if self.file and self.file.exists() else {}

    def pinned(self, reference: str) -> str:
        """Returns the reference with its recorded digest; unchanged if there is none."""
        digest = self.digests.get(reference)
        return f"{reference}@{digest}" if digest else reference

    def accept_pulled(self, reference: str) -> None:
        """Names an image that was pulled by its digest, and records the digest of one that was pulled by its tag."""
        if "@" in reference:
            return
        with docker_client() as client:
            if reference in self.digests:
                repository, _, tag = reference.rpartition(":")
                client.images.get(self.pinned(reference)).tag(repository or tag, tag if repository else None)
            elif digests := _digests_of(client.images.get(reference)):
                self.digests[reference] = digests[0]
                self._write()

    def check(self, reference: str, image: Image) -> None:
        """Raises CliError if the local image has another digest than its first pull."""
        found, expected = _digests_of(image), self.digests.get(reference)
        if expected and found and expected not in found:
            raise CliError(
                f"Image {reference}: expected the digest of its first pull, {expected}, got {found[0]}. "
                f"To accept the new image, remove its line in {self.file}; else run `docker rmi {reference}`."
            )

    def forget(self, reference: str) -> None:
        """For an image that was built on this host."""
        if self.digests.pop(reference, None):
            self._write()

    def _write(self) -> None:
        if self.file:
            atomic_write(self.file, HEAD + yaml.safe_dump(self.digests), mode=0o644)


def _read(file: Path) -> dict[str, str]:
    """Raises CliError: a damaged file must not switch the check off."""
    try:
        document = documents.read(file) or {}
        if all(isinstance(digest, str) and digest.startswith("sha256:") for digest in document.values()):
            return {str(reference): digest for reference, digest in document.items()}
    except (DocumentError, OSError, AttributeError):
        pass
    raise CliError(f"{file}: expected lines of IMAGE: sha256:DIGEST. Correct it, or delete it to record digests again.")


def _digests_of(image: Image) -> list[str]:
    return [digest.partition("@")[2] for digest in image.attrs.get("RepoDigests") or ()]
