"""`manyeyes pin-images`: every image that others publish, by its digest, so that what runs is what was tried. Asks registries; pulls nothing."""

import json
from pathlib import Path

from manyeyes.atomic_write import atomic_write
from manyeyes.cli.errors import CliError
from manyeyes.cli.process import CommandFailed, run
from manyeyes.cli.terminal import print_ok, print_warning, step
from manyeyes.cli.upgrade import with_image
from manyeyes.config.cluster import Cluster
from manyeyes.config.gateway import Images
from manyeyes.config.loader import load

OWN = "manyeyes/"
"""Built here: they have no digest until they are pushed somewhere."""
ASK_S = 60.0


def pin_images(config: Path) -> None:
    """Writes `images:` of the configuration, and nothing else in it. Raises Trouble when no registry tells a digest."""
    cluster = load(config)
    wanted = third_party_images(cluster)
    found: dict[str, str] = {}
    with step("asking registries") as current:
        for key, reference in wanted.items():
            current.note = reference
            if digest := digest_of(reference):
                found[key] = f"{tag_of(reference)}@{digest}"
        current.outcome = f"{len(found)} of {len(wanted)} images have a digest"
    if not found:
        raise CliError(
            f"no registry could be asked (docker buildx imagetools). {config} is as it was: images are taken by their tags"
        )
    text = config.read_text(encoding="utf-8")
    for key, pinned in found.items():
        if pinned == wanted[key]:
            print_ok(f"{key}: {pinned}, as before")
            continue
        text = with_image(text, config, key, f'"{pinned}"')
        print_ok(f"{key}: {pinned}")
    atomic_write(config, text)
    for key in wanted.keys() - found.keys():
        print_warning(f"{key}: {wanted[key]} could not be asked about, and stays as it was")


def third_party_images(cluster: Cluster) -> dict[str, str]:
    """{setting: reference} of images that are published by others."""
    references = {key: str(getattr(cluster.images, key)) for key in Images.model_fields}
    return {key: reference for key, reference in references.items() if not reference.startswith(OWN)}


def tag_of(reference: str) -> str:
    """Without the digest: what is asked for anew."""
    return reference.partition("@")[0]


def digest_of(reference: str) -> str:
    """What the tag stands for at this moment, for all platforms; empty where no registry tells."""
    ask = ["docker", "buildx", "imagetools", "inspect", "--format", "{{json .Manifest}}", tag_of(reference)]
    try:
        digest = str(json.loads(run(ask, timeout_s=ASK_S))["digest"])
    except (CommandFailed, TimeoutError, ValueError, KeyError, TypeError):
        return ""
    return digest if digest.startswith("sha256:") else ""
