"""Names that the gateway uses beside those in cluster.yaml: they let a pool get another name while its engines serve."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Naming:
    """Empty where no pool was renamed."""

    upstreams: Mapping[str, str] = field(default_factory=dict)
    """Pool -> its name in nginx's upstreams and in DNS, where that is another one. It stays when the pool gets another name, so that
    nginx keeps the pool's members, its conversations and its counts."""
    asked: Mapping[str, str] = field(default_factory=dict)
    """Pool -> the `model` that its engines are asked by, where they do not accept all of the pool's names."""
    former: Mapping[str, str] = field(default_factory=dict)
    """A name that a pool had before -> the pool, for as long as it is answered."""
    until_s: float | None = None
    """When this changes by itself, in seconds since 1970; None where it does not."""

    def upstream(self, pool: str) -> str:
        return self.upstreams.get(pool, pool)


AS_WRITTEN = Naming()
