"""Strict checks of objects that are no Kubernetes of its own.

KEDA's and the Prometheus operator's: models made from their CustomResourceDefinitions (cloudcoil). They pass over fields that they do
not know, so what they read is written again and compared. The Gateway API's: the fields used here, by its specification
(gateway-api.sigs.k8s.io/reference/spec), because no package for Python has its definitions.
"""

from typing import Annotated, Any, Literal

from cloudcoil.models.keda.v1alpha1 import ScaledObject
from cloudcoil.models.prometheus_operator.v1 import PodMonitor, PrometheusRule, ServiceMonitor
from pydantic import BaseModel, ConfigDict, Field

CLOUDCOIL = {one.__name__: one for one in (ScaledObject, PodMonitor, PrometheusRule, ServiceMonitor)}
Duration = Annotated[str, Field(pattern=r"^([0-9]{1,5}(h|m|s|ms)){1,4}$")]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Metadata(Strict):
    name: str
    namespace: str
    labels: dict[str, str]


class Parent(Strict):
    name: str
    namespace: str


class Path(Strict):
    type: Literal["Exact", "PathPrefix", "RegularExpression"]
    value: str = Field(max_length=1024)


class Match(Strict):
    path: Path


class Backend(Strict):
    name: str
    port: int = Field(ge=1, le=65535)


class Timeouts(Strict):
    request: Duration
    backendRequest: Duration


class Rule(Strict):
    matches: list[Match] = Field(max_length=64)
    backendRefs: list[Backend] = Field(max_length=16)
    timeouts: Timeouts


class Spec(Strict):
    parentRefs: list[Parent] = Field(max_length=32)
    hostnames: list[str] = Field(default=[], max_length=16)
    rules: list[Rule] = Field(max_length=16)


class HTTPRoute(Strict):
    apiVersion: Literal["gateway.networking.k8s.io/v1"]
    kind: Literal["HTTPRoute"]
    metadata: Metadata
    spec: Spec


def check(one: dict[str, Any]) -> None:
    """Raises where a field is unknown, missing or of another type."""
    if one["kind"] == "HTTPRoute":
        HTTPRoute.model_validate(one)
        return
    model = CLOUDCOIL[one["kind"]].model_validate(one)
    again = model.model_dump(mode="json", by_alias=True, exclude_unset=True)
    assert again == one, f"unknown fields: {_lost(one, again)}"


def knows(one: dict[str, Any]) -> bool:
    return one["kind"] == "HTTPRoute" or one["kind"] in CLOUDCOIL


def _lost(wanted: Any, found: Any, place: str = "") -> list[str]:
    if isinstance(wanted, dict) and isinstance(found, dict):
        return [lost for key in wanted for lost in _lost(wanted[key], found.get(key), f"{place}.{key}")]
    if isinstance(wanted, list) and isinstance(found, list) and len(wanted) == len(found):
        return [
            lost for n, (a, b) in enumerate(zip(wanted, found, strict=True)) for lost in _lost(a, b, f"{place}[{n}]")
        ]
    return [] if wanted == found else [place]
