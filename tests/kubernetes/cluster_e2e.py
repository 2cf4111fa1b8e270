"""`tests/run kubernetes`: the long form of tests/integration/test_kubernetes_membership.py, by address and by SRV. Prints what came of it.

Fifty pods in one process, DNS as CoreDNS answers it, the real nginx on the rendered files, users who ask without pause.
"""

import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from manyeyes.devcluster.eventually import eventually
from tests.integration.fake_namespace import Namespace, namespace
from tests.integration.membership import users
from tests.integration.test_kubernetes_membership import FEW, announced_s, document, engines_seen, named
from tests.nightly.test_fifty_pods import FIFTY

MORE = FIFTY[len(FEW) :]

ROUNDS, USERS, REPEATS = 5, 24, 3


def scale(running: Namespace) -> None:
    running.create(*FEW)
    running.ready("big", *FEW)
    eventually(lambda: engines_seen(running) == named(FEW), 30, 0.2, "the three answer")
    began = time.monotonic()
    taken: list[float] = []
    with users(running, "big", count=USERS) as seen:
        for _ in range(ROUNDS):
            running.create(*MORE)
            before, at = Counter(seen), time.monotonic()
            running.ready("big", *FIFTY)
            eventually(lambda before=before: len(Counter(seen) - before) >= 50, 60, 0.1, "all fifty answer")  # type: ignore[misc]
            taken.append(time.monotonic() - at)
            time.sleep(5)
            running.ready("big", *FEW)
            time.sleep(announced_s(running))
            running.end(*MORE)
            time.sleep(3)
    statuses: Counter[object] = Counter()
    for (status, _), count in seen.items():
        statuses[status] += count
    print(
        f"{ROUNDS} times 3 -> 50 -> 3, {USERS} users, {time.monotonic() - began:.0f} s: {sum(statuses.values())} requests, "
        f"by status {dict(statuses)}; all fifty answered {min(taken):.1f} to {max(taken):.1f} s after they were ready; "
        f"requests cut off by a pod's end: {sum(running.cut.values())}; DNS: {dict(sorted(running.dns.asked.items()))}",
        flush=True,
    )


def counts(running: Namespace) -> int:
    """Of four requests after a third pod came, how many it got; the two others have four each."""
    first, second, third = "127.0.3.1", "127.0.3.2", "127.0.3.3"
    with ThreadPoolExecutor(12) as asking:
        running.create(first, second, third)
        running.ready("big", first, second)
        eventually(lambda: engines_seen(running) == named([first, second]), 30, 0.2, "two answer")
        long = [asking.submit(running.ask, "big", max_tokens=9_000) for _ in range(8)]
        time.sleep(0.5)
        running.ready("big", first, second, third)
        time.sleep(4)
        quick = list(asking.map(lambda _: running.ask("big", max_tokens=500), range(4)))
        for request in long:
            request.result()
    return sum(reply.headers["X-ManyEyes-Engine"] == third.replace(".", "-") for reply in quick)


def main() -> None:
    for by_srv in (False, True):
        how = "by SRV" if by_srv else "by address"
        with (
            tempfile.TemporaryDirectory() as folder,
            namespace(Path(folder), document(), by_srv, quiet=True) as running,
        ):
            print(f"{how}: ", end="")
            scale(running)
        found = []
        for _ in range(REPEATS):
            with (
                tempfile.TemporaryDirectory() as folder,
                namespace(Path(folder), document(), by_srv, quiet=True) as running,
            ):
                found.append(counts(running))
        print(f"{how}: of four requests the third pod got {', '.join(map(str, found))} ({REPEATS} runs)", flush=True)


if __name__ == "__main__":
    main()
