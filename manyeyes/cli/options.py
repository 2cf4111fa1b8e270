"""Options that several commands of `manyeyes` share."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from manyeyes.cli.invocation import enter_checkout


class Flavour(StrEnum):
    """What engines run on."""

    CUDA = "cuda"
    CPU = "cpu"
    EMULATED = "emulated"


Config = Annotated[
    Path,
    typer.Option("--config", metavar="FILE", help="Configuration file.", callback=enter_checkout),
]
FlavourOption = Annotated[
    Flavour | None, typer.Option("--flavour", help="What `engines: auto` runs on. Default: detected on this host.")
]
ControllerUrl = Annotated[
    str, typer.Option("--controller", metavar="URL", help="Controller to query. Default: on this host.")
]
PrometheusUrl = Annotated[
    str, typer.Option("--prometheus", metavar="URL", help="Prometheus to query. Default: on this host.")
]
