"""The fastest usual Python: FastAPI on uvloop and httptools, aiohttp to the model, asyncpg to the database."""
from uuid import UUID

import aiohttp
import asyncpg
from fastapi import FastAPI, HTTPException
from pydantic import BaseModel

from common import DATABASE, HEADERS, MODEL, UPDATE, labels, question

app = FastAPI()


class Ticket(BaseModel):
    id: UUID
    description: str


@app.on_event("startup")
async def connect():
    app.state.pool = await asyncpg.create_pool(DATABASE, min_size=2, max_size=20)
    app.state.model = aiohttp.ClientSession(headers=HEADERS, connector=aiohttp.TCPConnector(limit=1024))


@app.post("/process-ticket")
async def process(ticket: Ticket):
    async with app.state.model.post(MODEL, json=question(ticket.description)) as answer:
        answer.raise_for_status()
        category, sentiment = labels(await answer.json())
    done = await app.state.pool.execute(UPDATE.format("$1", "$2", "$3"), category, sentiment, ticket.id)
    if done == "UPDATE 0":
        raise HTTPException(404, "no such ticket")
    return {"id": str(ticket.id), "category": category, "sentiment": sentiment, "processed": True}
