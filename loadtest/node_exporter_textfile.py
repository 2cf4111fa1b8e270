"""What a running load test says of its generator, for Prometheus: a file that node-exporter reads. Gone when the run is over."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from loadtest.host_info import ROOT
from loadtest.run import LIMIT_CPU, Watch

FILE = ROOT / "monitoring/textfile/loadtest.prom"
TEXT = """\
# HELP manyeyes_loadtest_generator_cpu_share Share of a core that the busiest process of the load generator takes.
# TYPE manyeyes_loadtest_generator_cpu_share gauge
manyeyes_loadtest_generator_cpu_share {cpu:.3f}
# HELP manyeyes_loadtest_limit 1 while that is so much that the run measures its generator.
# TYPE manyeyes_loadtest_limit gauge
manyeyes_loadtest_limit {limit:d}
"""


@contextlib.contextmanager
def told(watch: Watch, file: Path = FILE) -> Iterator[Watch]:
    """`watch`, with each line also told to Prometheus. Never a reason to fail: elsewhere there is no such folder."""

    def both(line: dict[str, Any]) -> None:
        watch(line)
        with contextlib.suppress(OSError):
            fresh = file.with_suffix(".new")
            fresh.write_text(TEXT.format(cpu=line["cpu"], limit=line["cpu"] > LIMIT_CPU), encoding="utf-8")
            fresh.chmod(0o644)  # node-exporter is another user
            fresh.replace(file)

    try:
        yield both
    finally:
        with contextlib.suppress(OSError):
            file.unlink(missing_ok=True)
