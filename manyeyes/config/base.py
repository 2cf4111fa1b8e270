"""The base of every section of cluster.yaml: frozen, and an unknown key is an error."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints


class Section(BaseModel):
    """Values never change after they are read; a new file makes a new Cluster."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9]{0,38}[a-z0-9])?$")]
"""A DNS label of at most 40 characters: names become host names, metric labels and nginx upstreams."""

ModelAlias = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/:@-]{0,127}$")]
"""What a client may write in `model`."""

ServedModel = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9@][A-Za-z0-9._/:@+-]{0,199}$")]
"""A Hugging Face id, or a model's name at an endpoint elsewhere: clients may write it in `model`."""

LONGEST_S = 31_536_000
"""A year: nginx refuses times without end."""

ImageReference = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-zA-Z0-9._/:@-]+$")]
"""A container image with its tag or digest."""

Port = Annotated[int, Field(ge=1, le=65535)]
