"""Configurations that tests start clusters of."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

ADMIN_KEY = "an-admin-key-for-these-tests"


def document(
    pools: Mapping[str, Iterable[str]], settings: Mapping[str, dict[str, Any]] | None = None, **sections: Any
) -> dict[str, Any]:
    """Pools with the names of their engines; `settings` of pools by name. Pool `big` has the model org/Big-VL."""
    return {
        "pools": [
            {"name": pool, "model": f"org/{pool.title()}-VL", **(settings or {}).get(pool, {})} for pool in pools
        ],
        "engines": [{"name": name, "pool": pool} for pool, names in pools.items() for name in names],
        **sections,
    }


def with_admin_key(folder: Path) -> Path:
    """The folder, with a key in its secrets."""
    (folder / "secrets").mkdir(exist_ok=True)
    (folder / "secrets/admin.key").write_text(f"{ADMIN_KEY}\n")
    return folder
