from collections.abc import Iterator

import pytest

from tests.integration.scan.server import Modules, modules


@pytest.fixture(scope="module")
def njs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Modules]:
    with modules(tmp_path_factory.mktemp("modules")) as running:
        yield running
