"""What the Python contestants share: the question to the model and how its answer is read."""
import json
import os

DATABASE = os.environ["DATABASE_URL"]
MODEL = os.environ["MODEL"] + "/chat/completions"
HEADERS = {"Authorization": "Bearer none"}
UPDATE = "update tickets set category = {0}, sentiment = {1}, processed = true where id = {2}"
CATEGORIES = {"Técnico", "Facturación", "Comercial"}
SENTIMENTS = {"Positivo", "Neutral", "Negativo"}
PROMPT = """Clasifica el ticket de soporte. Responde solo con un objeto JSON con dos claves: "category" (Técnico, Facturación o Comercial)
y "sentiment" (Positivo, Neutral o Negativo), sin texto alrededor.

Ticket:
"""


def question(description):
    return {
        "model": "stub",
        "temperature": 0,
        "max_tokens": 64,
        "response_format": {"type": "json_object"},
        "messages": [{"role": "user", "content": PROMPT + description}],
    }


def labels(completion):
    answer = json.loads(completion["choices"][0]["message"]["content"])
    category, sentiment = answer["category"], answer["sentiment"]
    if category not in CATEGORIES or sentiment not in SENTIMENTS:
        raise ValueError("the model answered no label")
    return category, sentiment
