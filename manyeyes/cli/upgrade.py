"""`manyeyes upgrade IMAGE` changes the image of the engines; `manyeyes pin-images` pins third-party images by digest.

An upgrade changes the configuration and restarts engines one after the other. If the first engine does not come up, the
configuration is reverted and that engine is restarted with the previous image. pin-images queries registries and pulls
nothing.
"""

import json
from pathlib import Path

import yaml

from manyeyes.atomic_write import atomic_write
from manyeyes.cli import gateway_client, images
from manyeyes.cli.compose import Compose
from manyeyes.cli.engine_containers import EngineContainers
from manyeyes.cli.engine_restart import DRAINING
from manyeyes.cli.invocation import next_command
from manyeyes.cli.process import CommandFailed, run
from manyeyes.cli.rolling_restart import restart_one_by_one, running_cluster
from manyeyes.cli.terminal import CliError, print_line, print_ok, print_warning, step
from manyeyes.config.cluster import Cluster
from manyeyes.config.gateway import Images
from manyeyes.config.loader import load, parse
from manyeyes.config.placement import PlacedCluster

IMAGE_OF = {"cuda": "vllm_cuda", "cpu": "vllm_cpu", "emulated": "emulator"}


def upgrade(config: Path, image: str) -> None:
    """Restarts all engines with `image`.

    Raises CliError, without a change of the configuration, if the image is not available or the first engine does not
    come up.
    """
    if not image:
        raise CliError("no image was given. Name it, for example: vllm/vllm-openai:v0.33.0")
    load(config)  # the upgrade changes this file, so a problem in it is reported first
    cluster, compose = running_cluster(config)
    flavours = sorted({engine.flavour for engine in cluster.started_engines})
    if len(flavours) != 1:
        raise CliError(
            f"the engines have the flavours {' and '.join(flavours) or 'none'}, but an upgrade needs exactly one. "
            f"Change `images:` in {config}, then run `make up`."
        )
    key = IMAGE_OF[flavours[0]]
    old_text, old_image = config.read_text(encoding="utf-8"), getattr(cluster.images, key)
    if old_image == image:
        raise CliError(f"images.{key} is already {image}. `make restart-rolling` restarts its engines.")
    text = with_image(old_text, config, key, image)
    names = _without_drained(cluster, compose)
    print_line(f"ManyEyes, {config}: {len(names)} engine{'s' if len(names) > 1 else ''}, one after the other")
    print_line(f"  from {old_image}\n  to   {image}")
    images.provide(cluster.model_copy(update={"images": parse(text, config).images}), config=config)
    _write(config, text)
    try:
        cluster, compose = running_cluster(config)
        restart_one_by_one(cluster, compose, names[:1])
    except BaseException:
        _write(config, old_text)
        print_warning(f"{config} was reverted to {old_image}")
        cluster, compose = running_cluster(config)
        if changed := compose.would_recreate(names[:1]):
            restart_one_by_one(cluster, compose, changed)
        raise
    restart_one_by_one(cluster, compose, names[1:])
    gateway_client.print_pending_changes(compose, cluster)
    print_ok(f"{config} has {key}: {image}. To revert: {next_command('upgrade', old_image, config=config)}")


def _without_drained(cluster: PlacedCluster, compose: Compose) -> list[str]:
    """Returns the engines that are not drained. A drained engine gets the image by `make up` or a later restart."""
    statuses = EngineContainers(cluster, compose).query_engines()
    names = [
        engine.name
        for engine in cluster.started_engines
        if engine.name in statuses and statuses[engine.name].state != DRAINING
    ]
    if not names:
        raise CliError("no running engine can test the image. Run `make up` first.")
    return names


def with_image(text: str, config: Path, key: str, image: str) -> str:
    """Returns the text of cluster.yaml with a new images.KEY; all other text, with comments, is unchanged. Raises
    CliError."""
    document = yaml.compose(text, Loader=yaml.SafeLoader)
    assert isinstance(document, yaml.MappingNode)
    section = next((value for name, value in document.value if name.value == "images"), None)
    if section is None:
        changed = f"{text.rstrip(chr(10))}\n\nimages:\n  {key}: {image}\n"
    elif isinstance(section, yaml.MappingNode):
        place = next((value for name, value in section.value if name.value == key), None)
        if place is not None:
            changed = text[: place.start_mark.index] + image + text[place.end_mark.index :]
        else:
            index, indent = section.start_mark.index, " " * section.start_mark.column
            setting = f"{key}: {image}"
            changed = (
                f"{text[: index + 1]}{setting}, {text[index + 1 :]}"
                if section.flow_style
                else f"{text[:index]}{setting}\n{indent}{text[index:]}"
            )
    else:
        raise CliError(f"{config}: `images:` is not a section. Set images.{key}: {image} yourself.")
    old_cluster = parse(text, config)
    images = old_cluster.images.model_copy(update={key: image.strip('"')})
    if parse(changed, config) != old_cluster.model_copy(update={"images": images}):
        raise CliError(f"{config} could not be changed. Set images.{key}: {image} yourself, then run `make up`.")
    return changed


def _write(config: Path, text: str) -> None:
    atomic_write(config, text)
    load(config)


OWN_PREFIX = "manyeyes/"
"""Prefix of images of this repository. They have no digest until they are pushed to a registry."""
REGISTRY_TIMEOUT_S = 60.0


def pin_images(config: Path) -> None:
    """Writes digests to `images:` in the configuration. Raises CliError if no registry returns a digest."""
    cluster = load(config)
    references = third_party_images(cluster)
    digests: dict[str, str] = {}
    with step("querying registries") as current:
        for key, reference in references.items():
            current.note = reference
            if digest := digest_of(reference):
                digests[key] = f"{tag_of(reference)}@{digest}"
        current.outcome = f"{len(digests)} of {len(references)} images have a digest"
    if not digests:
        raise CliError(
            f"no registry is reachable (docker buildx imagetools). {config} is unchanged, and images are used by tag."
        )
    text = config.read_text(encoding="utf-8")
    for key, pinned in digests.items():
        if pinned == references[key]:
            print_ok(f"{key}: {pinned}, unchanged")
            continue
        text = with_image(text, config, key, f'"{pinned}"')
        print_ok(f"{key}: {pinned}")
    atomic_write(config, text)
    for key in references.keys() - digests.keys():
        print_warning(f"{key}: no registry returned a digest for {references[key]}, so it is unchanged")


def third_party_images(cluster: Cluster) -> dict[str, str]:
    """Returns {setting: reference} of third-party images."""
    references = {key: str(getattr(cluster.images, key)) for key in Images.model_fields}
    return {key: reference for key, reference in references.items() if not reference.startswith(OWN_PREFIX)}


def tag_of(reference: str) -> str:
    """Returns the reference without its digest."""
    return reference.partition("@")[0]


def digest_of(reference: str) -> str:
    """Returns the current digest of the tag, for all platforms; empty if no registry returns it."""
    command = ["docker", "buildx", "imagetools", "inspect", "--format", "{{json .Manifest}}", tag_of(reference)]
    try:
        digest = str(json.loads(run(command, timeout_s=REGISTRY_TIMEOUT_S))["digest"])
    except (CommandFailed, TimeoutError, ValueError, KeyError, TypeError):
        return ""
    return digest if digest.startswith("sha256:") else ""
