"""serve.py MODULE PORT WORKERS: uvicorn in so many processes, each with a socket of its own on the port.
With `uvicorn --workers` they share one, and one of them gets nearly all connections."""
import os
import signal
import socket
import sys

import uvicorn

module, port, workers = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])


def serve():
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    listener.bind(("127.0.0.1", port))
    config = uvicorn.Config(module + ":app", log_level="warning", access_log=False, loop="uvloop", http="httptools", backlog=2048)
    uvicorn.Server(config).run(sockets=[listener])


sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
if workers == 1:
    serve()
    sys.exit()
children = []
for _ in range(workers):
    child = os.fork()
    if child == 0:
        serve()
        os._exit(0)
    children.append(child)
for ending in (signal.SIGTERM, signal.SIGINT):
    signal.signal(ending, lambda number, _: [os.kill(child, number) for child in children])
for child in children:
    os.waitpid(child, 0)
