"""The original design: FastAPI, a synchronous endpoint in the thread pool, one call, one update. Generous in two things:
the database is reached directly and not over a REST gateway, and connections are kept."""
import socket
from uuid import UUID

import httpcore.backends.sync
import httpx
from fastapi import FastAPI, HTTPException
from psycopg_pool import ConnectionPool
from pydantic import BaseModel

from common import DATABASE, HEADERS, MODEL, UPDATE, labels, question

# Debian's httpcore leaves Nagle's algorithm on, which costs 40 ms a call; newer ones do not.
connect_tcp = httpcore.backends.sync.SyncBackend.connect_tcp


def connect_without_delay(*args, **kwargs):
    stream = connect_tcp(*args, **kwargs)
    stream.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return stream


httpcore.backends.sync.SyncBackend.connect_tcp = connect_without_delay

app = FastAPI()
pool = ConnectionPool(DATABASE, min_size=4, max_size=40, kwargs={"autocommit": True})
model = httpx.Client(headers=HEADERS, timeout=30, limits=httpx.Limits(max_connections=100, max_keepalive_connections=100))


class Ticket(BaseModel):
    id: UUID
    description: str


@app.post("/process-ticket")
def process(ticket: Ticket):
    answer = model.post(MODEL, json=question(ticket.description))
    answer.raise_for_status()
    category, sentiment = labels(answer.json())
    with pool.connection() as connection:
        done = connection.execute(UPDATE.format("%s", "%s", "%s"), (category, sentiment, ticket.id), prepare=True)
        if done.rowcount == 0:
            raise HTTPException(404, "no such ticket")
    return {"id": str(ticket.id), "category": category, "sentiment": sentiment, "processed": True}
