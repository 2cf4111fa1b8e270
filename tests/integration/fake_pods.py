"""Many pods in one process: the same port at as many loopback addresses, each with what the gateway and the controller ask an engine.

`python -m tests.integration.fake_pods PORT SECONDS` takes a line for each change: `start ADDRESS`, `stop ADDRESS`. Stopping one ends its listener
and every connection at once, as the end of a container does, and prints `stopped ADDRESS CUT`: how many requests that cut off.
"""

import asyncio
import json
import sys

ANSWER = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 0,
    "model": "m",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Yes."}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
}


class Pod:
    """One address."""

    def __init__(self, address: str, port: int, answers_in_s: float) -> None:
        self.address, self.port, self.answers_in_s = address, port, answers_in_s
        self.inside = 0
        self.answered = 0
        self.connections: set[asyncio.StreamWriter] = set()
        self.server: asyncio.Server | None = None

    async def start(self) -> None:
        self.server = await asyncio.start_server(self._serve, self.address, self.port)

    async def stop(self) -> int:
        """How many requests it had inside."""
        assert self.server
        self.server.close()
        for connection in list(self.connections):
            connection.transport.abort()
        return self.inside

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections.add(writer)
        try:
            while request := await reader.readline():
                length = 0
                while (line := await reader.readline()).strip():
                    name, _, value = line.decode().partition(":")
                    if name.lower() == "content-length":
                        length = int(value)
                body = await reader.readexactly(length)
                writer.write(await self._reply(request.split()[1].decode(), body))
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self.connections.discard(writer)
            writer.close()

    async def _reply(self, path: str, body: bytes) -> bytes:
        if path == "/load":
            return _http(json.dumps({"server_load": self.inside}))
        if path == "/metrics":
            return _http(
                f"vllm:num_requests_running {self.inside}\nvllm:generation_tokens_total {self.answered}\n", "text/plain"
            )
        if path != "/v1/chat/completions":
            return _http("{}")
        self.inside += 1
        try:
            # Longer where the question asks for it, so that a test can fill an engine.
            await asyncio.sleep(json.loads(body).get("max_tokens", 0) / 1000 or self.answers_in_s)
        finally:
            self.inside -= 1
        self.answered += 1
        return _http(json.dumps(ANSWER))


def _http(text: str, kind: str = "application/json") -> bytes:
    body = text.encode()
    return f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


async def main(port: int, answers_in_s: float) -> None:
    pods: dict[str, Pod] = {}
    loop = asyncio.get_running_loop()
    commands = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    while line := (await commands.readline()).decode().split():
        do, address = line
        if do == "start":
            pods[address] = Pod(address, port, answers_in_s)
            await pods[address].start()
            print(f"started {address} 0", flush=True)
        else:
            print(f"stopped {address} {await pods.pop(address).stop()}", flush=True)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), float(sys.argv[2])))
