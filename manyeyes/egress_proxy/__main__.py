"""`python -m manyeyes.egress_proxy`: egress proxy that lets engines fetch images by URL. Runs until SIGTERM."""

import asyncio
import json
import os
import signal

from manyeyes.egress_proxy.proxy import serve_proxy
from manyeyes.observability import structlog_setup


async def run() -> None:
    domains = json.loads(os.environ["MEDIA_DOMAINS"])
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    async with serve_proxy("0.0.0.0", int(os.environ.get("MEDIA_PORT", "3128")), domains):
        await ended.wait()


if __name__ == "__main__":
    structlog_setup.configure_structlog("media")
    asyncio.run(run())
