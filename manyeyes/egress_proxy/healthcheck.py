"""`python -m manyeyes.egress_proxy.healthcheck`: exits with 0 if the proxy accepts connections."""

import os
import socket

if __name__ == "__main__":
    with socket.create_connection(("127.0.0.1", int(os.environ.get("MEDIA_PORT", "3128"))), timeout=3):
        pass
