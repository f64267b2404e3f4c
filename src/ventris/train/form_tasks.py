"""Generated JSON schemas with the target's own documents, so that drafters learn form as well as prose.

Answers to questions hold no JSON, and a drafter that never saw any guesses a tenth of it. The documents are
what the target writes under the guide of the schema: what a drafter will be asked to guess.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from ventris.engine.errors import BadInput
from ventris.guide import JsonSchema
from ventris.models.cache_folder import written_whole

if TYPE_CHECKING:
    from ventris.model import Model
    from ventris.train.settings import FormSettings
    from ventris.train.texts import Progress

Schema = dict[str, Any]

WORDINGS = (
    "Write a JSON object that is valid under this schema:\n{schema}",
    "{schema}\n\nGive me one example document for the schema above, as JSON and nothing else.",
    "Fill in the following JSON schema with plausible values.\n{schema}",
    "Here is the schema of {topic}: {schema} Answer with JSON that fits it.",
)

TEXT, LONG_TEXT, NUMBER, COUNT, FLAG = "text", "long text", "number", "count", "flag"
DATE, TIME, EMAIL, LINK, IDENTIFIER, LIST = "date", "time", "email", "link", "identifier", "list"

Field = str | tuple[str, ...]
"""A kind of value, or the values of an enumeration."""

TOPICS: dict[str, dict[str, Field]] = {
    "an order": {
        "order_id": IDENTIFIER,
        "customer": TEXT,
        "items": LIST,
        "quantity": COUNT,
        "unit_price": NUMBER,
        "currency": ("EUR", "USD", "GBP", "JPY"),
        "shipped": FLAG,
        "ordered_at": TIME,
        "delivery_address": TEXT,
        "note": LONG_TEXT,
    },
    "a person": {
        "firstName": TEXT,
        "lastName": TEXT,
        "age": COUNT,
        "email": EMAIL,
        "birthday": DATE,
        "hobbies": LIST,
        "married": FLAG,
        "homepage": LINK,
        "biography": LONG_TEXT,
        "employment": ("employed", "self-employed", "student", "retired"),
    },
    "a service to deploy": {
        "apiVersion": ("v1", "v2", "v2beta1"),
        "kind": ("Service", "Deployment", "Job"),
        "name": IDENTIFIER,
        "replicas": COUNT,
        "image": TEXT,
        "ports": LIST,
        "labels": LIST,
        "restartPolicy": ("Always", "OnFailure", "Never"),
        "readOnly": FLAG,
        "timeoutSeconds": COUNT,
    },
    "an event in an application": {
        "event": ("click", "view", "scroll", "submit"),
        "userId": IDENTIFIER,
        "sessionId": IDENTIFIER,
        "timestamp": TIME,
        "pageUrl": LINK,
        "referrer": LINK,
        "durationMs": COUNT,
        "isMobile": FLAG,
        "tags": LIST,
        "properties": TEXT,
    },
    "a book": {
        "title": TEXT,
        "authors": LIST,
        "isbn": IDENTIFIER,
        "pages": COUNT,
        "language": ("en", "de", "fr", "es"),
        "summary": LONG_TEXT,
        "published": DATE,
        "available": FLAG,
        "rating": NUMBER,
        "publisher": TEXT,
    },
    "the arguments of a function": {
        "query": TEXT,
        "location": TEXT,
        "unit": ("celsius", "fahrenheit"),
        "limit": COUNT,
        "sort_by": ("relevance", "price", "distance"),
        "include_closed": FLAG,
        "start_date": DATE,
        "end_date": DATE,
        "radius_km": NUMBER,
        "categories": LIST,
    },
    "a recipe": {
        "name": TEXT,
        "cuisine": TEXT,
        "ingredients": LIST,
        "steps": LIST,
        "servings": COUNT,
        "prep_minutes": COUNT,
        "difficulty": ("easy", "medium", "hard"),
        "vegetarian": FLAG,
        "calories": NUMBER,
        "description": LONG_TEXT,
    },
    "a report of a fault": {
        "id": COUNT,
        "title": TEXT,
        "description": LONG_TEXT,
        "severity": ("low", "medium", "high", "critical"),
        "status": ("open", "in progress", "closed"),
        "reporter": EMAIL,
        "labels": LIST,
        "createdAt": TIME,
        "reproducible": FLAG,
        "affectedVersion": TEXT,
    },
    "the settings of a program": {
        "$schema": LINK,
        "debug": FLAG,
        "logLevel": ("error", "warn", "info", "debug"),
        "port": COUNT,
        "host": TEXT,
        "plugins": LIST,
        "exclude": LIST,
        "maxRetries": COUNT,
        "ratio": NUMBER,
        "outputDir": TEXT,
    },
}

IDENTIFIERS = ("^[a-z0-9-]{4,12}$", "^[A-Z]{3}[0-9]{4}$")
LONGEST_LIST = 4
NESTED = 0.25
"""Share of schemas with an object, or a list of objects, of another topic inside."""


@dataclass(frozen=True, slots=True)
class FormTask:
    """A schema and the question that asks for a document of it."""

    prompt: str
    schema: Schema


def form_tasks(count: int, seed: int = 0) -> Iterator[FormTask]:
    """So many different tasks."""
    random = Random(f"forms {seed}")
    seen: set[str] = set()
    while len(seen) < count:
        topic = random.choice(list(TOPICS))
        schema = _schema(topic, random, nested=random.random() < NESTED)
        indent = random.choice((None, None, 2))
        prompt = random.choice(WORDINGS).format(topic=topic, schema=json.dumps(schema, indent=indent))
        if prompt not in seen:
            seen.add(prompt)
            yield FormTask(prompt, schema)


def _schema(topic: str, random: Random, nested: bool) -> Schema:
    fields = TOPICS[topic]
    names = random.sample(list(fields), random.randint(2, 6))
    described = random.random() < 0.4
    properties = {name: _value(fields[name], random) for name in names}
    if described:
        for name, value in properties.items():
            value["description"] = f"The {name} of {topic}"
    if nested:
        other = random.choice([each for each in TOPICS if each != topic])
        inner = _schema(other, random, nested=False)
        name = other.split()[-1]
        many = {"type": "array", "items": inner, "minItems": 1, "maxItems": 2}
        properties[name] = random.choice((inner, many))
    schema: Schema = {"type": "object", "properties": properties}
    if random.random() < 0.3:
        schema = {"title": topic.split()[-1].capitalize(), **schema}
    required = list(properties) if random.random() < 0.7 else random.sample(list(properties), 2)
    schema["required"] = required
    if random.random() < 0.8:
        schema["additionalProperties"] = False
    return schema


def _value(field: Field, random: Random) -> Schema:
    if not isinstance(field, str):
        return {"type": "string", "enum": list(field)}
    return KINDS[field](random)


def _bounded(kind: str, random: Random) -> Schema:
    bounds = {} if random.random() < 0.6 else {"minimum": 0, "maximum": random.choice((10, 100, 1000))}
    return {"type": kind, **bounds}


def _list(random: Random) -> Schema:
    most = random.randint(1, LONGEST_LIST)
    return {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": most}


KINDS: dict[str, Callable[[Random], Schema]] = {
    TEXT: lambda random: {"type": "string"} if random.random() < 0.7 else {"type": "string", "maxLength": 40},
    LONG_TEXT: lambda random: {"type": "string", "maxLength": random.choice((80, 160))},
    NUMBER: lambda random: _bounded("number", random),
    COUNT: lambda random: _bounded("integer", random),
    FLAG: lambda random: {"type": "boolean"},
    DATE: lambda random: {"type": "string", "format": "date"},
    TIME: lambda random: {"type": "string", "format": "date-time"},
    EMAIL: lambda random: {"type": "string", "format": "email"},
    LINK: lambda random: {"type": "string", "format": "uri", "maxLength": 60},
    IDENTIFIER: lambda random: {"type": "string", "pattern": random.choice(IDENTIFIERS)},
    LIST: _list,
}


def write_documents(
    model: Model, tasks: Sequence[FormTask], settings: FormSettings, progress: Progress | None = None
) -> int:
    """Let the model write a document for each task under its guide, and write JSONL of those it finished.

    Returns:
        How many there are.

    Raises:
        BadInput: if none was finished.
    """
    engine = model.engine(max_batch=settings.answer_batch)
    task_of: dict[int, int] = {}
    written: dict[int, str] = {}
    try:
        for index, task in enumerate(tasks):
            request = model.request(
                [{"role": "user", "content": task.prompt}],
                guides=[JsonSchema(task.schema)],
                max_new_tokens=settings.max_new_tokens,
                temperature=settings.temperatures[index % len(settings.temperatures)],
                seed=settings.seed + index,
            )
            task_of[id(engine.add(request))] = index
        ended = (event.completion for event in engine.run() if event.finished)
        for done, completion in enumerate(ended, start=1):
            if progress is not None:
                progress("writing documents", done, len(tasks))
            if completion.finish_reason == "stop" and completion.valid:
                written[task_of[id(completion)]] = completion.text
    finally:
        engine.close()
    if not written:
        raise BadInput(
            f"no document was finished within {settings.max_new_tokens} tokens; raise max_new_tokens or count"
        )
    lines = [json.dumps({"prompt": tasks[i].prompt, "answer": text}) for i, text in sorted(written.items())]
    with written_whole(Path(settings.out).expanduser()) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return len(lines)
