"""`python -m config check FILE...`: 0 when every file is right, 2 with every problem listed; `reference` and `schema` print."""

import sys
from pathlib import Path

from config.load import ConfigError, load
from config.reference import json_schema, markdown


def main(arguments: list[str]) -> int:
    match arguments:
        case ["check", *paths] if paths:
            return _check([Path(path) for path in paths])
        case ["reference"]:
            sys.stdout.write(markdown())
        case ["schema"]:
            sys.stdout.write(json_schema())
        case _:
            print("usage: python -m config check FILE... | reference | schema", file=sys.stderr)
            return 2
    return 0


def _check(paths: list[Path]) -> int:
    status = 0
    for path in paths:
        try:
            load(path)
        except ConfigError as error:
            print(error, file=sys.stderr)
            status = 2
        else:
            print(f"{path}: ok")
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
