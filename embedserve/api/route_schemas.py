"""What the OpenAPI document says of bodies and answers of the framework's routes. Data only.

Keys are paths and methods; what is not told here stays as the framework describes it.
"""

from embedserve.api.schema_parts import (
    FILE,
    FLAG,
    JSON,
    KEEP_ALIVE,
    LINES,
    MODEL,
    OBJECT,
    OPENAI_ERROR,
    PLAIN,
    STRINGS,
    TEI_ERROR,
    TEXT,
    TIME,
    WHOLE,
    ZIP,
    Schema,
    given,
    refused,
    sent,
    shape,
)
from embedserve.api.search_schemas import ANSWER_OF_MANY

_ABOUT = {
    "parent_model": TEXT,
    "format": TEXT,
    "family": TEXT,
    "families": STRINGS,
    "parameter_size": TEXT,
    "quantization_level": TEXT,
}
# Models that answer from an index have no lengths: nothing is embedded with them.
_DETAILS = shape({**_ABOUT, "context_length": WHOLE, "embedding_length": WHOLE}, list(_ABOUT))
_MODEL = {"name": TEXT, "model": TEXT, "size": WHOLE, "digest": TEXT, "details": _DETAILS}
_TAG = {**_MODEL, "modified_at": TIME, "capabilities": STRINGS, "embedserve": OBJECT}
_RUNNING = {**_MODEL, "expires_at": TIME, "size_vram": WHOLE, "context_length": WHOLE}
_SHOWN = {
    "license": TEXT,
    "parameters": TEXT,
    "details": _DETAILS,
    "model_info": OBJECT,
    "capabilities": STRINGS,
    "modified_at": TIME,
    "embedserve": OBJECT,
}
_DONE = {"model": TEXT, "created_at": TIME, "done": FLAG, "done_reason": TEXT}
_STEP = shape({"status": TEXT, "error": TEXT, "completed": WHOLE, "total": WHOLE}, [])
_OPENAI_MODEL = shape({"id": TEXT, "object": TEXT, "created": WHOLE, "owned_by": TEXT})
_NAMED = {"model": MODEL, "name": MODEL | {"description": "The older word for `model`."}}
_INFO = {
    "model_id": TEXT,
    "model_sha": {"type": ["string", "null"]},
    "model_dtype": TEXT,
    "model_type": OBJECT,
    "max_concurrent_requests": WHOLE,
    "max_input_length": WHOLE,
    "max_batch_tokens": WHOLE,
    "max_client_batch_size": WHOLE,
    "auto_truncate": FLAG,
    "tokenization_workers": WHOLE,
    "version": TEXT,
}


def _models(one: dict[str, Schema]) -> Schema:
    return {"type": "array", "items": shape(one)}


def _asked(fields: dict[str, Schema], required: list[str], answer: Schema, errors: str) -> Schema:
    return {
        "requestBody": sent(fields, required),
        "responses": {"200": answer, **refused(errors)},
    }


def _told(answer: Schema, errors: str = "", error: Schema | None = None) -> Schema:
    known = refused(errors, error) if error else refused(errors)
    return {"responses": {"200": answer, **known}}


def _stepwise(description: str) -> Schema:
    """Return an answer that is a stream of lines, or one object."""
    return {
        "description": description,
        "content": {LINES: {"schema": TEXT}, JSON: {"schema": _STEP}},
    }


_BYTES = {"type": "string", "format": "binary"}
_LAST_LINE = "What is being done; the last line is the result, or an error."
_LOADED = "The model was loaded, or let go."
_PULL_FIELDS = {
    **_NAMED,
    "stream": FLAG,
    "recipe": TEXT,
    "engine": TEXT,
    "pooling": TEXT,
    "max_tokens": WHOLE,
    "query_prompt": TEXT,
    "document_prompt": TEXT,
    "ignore_onnx": FLAG,
    "accept_loss": FLAG,
    "force": FLAG,
}
_PARAMETERS = {
    "type": "object",
    "properties": {
        "num_ctx": {"type": ["integer", "null"], "minimum": 64},
        "query_prompt": {"type": ["string", "null"]},
        "document_prompt": {"type": ["string", "null"]},
        "input_type": {"enum": ["", "query", "document", None]},
    },
}

_DOCUMENTS = shape(
    {
        "documents": {"type": "array", "items": OBJECT},
        "next_offset": {"type": ["integer", "null"]},
        "warnings": STRINGS,
    }
)
_DELETED = shape({"deleted": WHOLE, "warnings": STRINGS})
_SENT = shape({"job": OBJECT, "documents": {"type": "array", "items": OBJECT}})
_ACCEPTED = {
    "200": given("They were ingested.", _SENT),
    "202": given("They are stored, and the job is queued.", _SENT),
    **refused("400 404 409 413 500 503"),
}

ROUTE_SCHEMAS: dict[str, dict[str, Schema]] = {
    "/": {"get": _told(given("`Ollama is running`", TEXT, PLAIN))},
    "/api/version": {
        "get": _told(given("Versions.", shape({"version": TEXT, "embedserve": TEXT})))
    },
    "/api/tags": {
        "get": _told(given("The models.", shape({"models": _models(_TAG), "embedserve": OBJECT})))
    },
    "/api/ps": {"get": _told(given("Models in memory.", shape({"models": _models(_RUNNING)})))},
    "/api/show": {
        "post": _asked(_NAMED, [], given("The model.", shape(_SHOWN)), "400 404 413 500")
    },
    "/api/delete": {
        "delete": _asked(_NAMED, [], given("It is gone.", None), "400 404 409 413 500")
    },
    "/api/copy": {
        "post": _asked(
            {"source": MODEL, "destination": MODEL},
            ["source", "destination"],
            given("There is a copy.", None),
            "400 404 409 413 500",
        )
    },
    "/api/create": {
        "post": _asked(
            {**_NAMED, "from": MODEL, "parameters": _PARAMETERS, "stream": FLAG},
            ["from"],
            _stepwise("What was done; the last line is `success`."),
            "400 404 409 413 500",
        )
    },
    "/api/pull": {
        "post": _asked(
            _PULL_FIELDS,
            [],
            _stepwise("What is being done; the last line is `success` or an error."),
            "400 404 413 500 503",
        )
    },
    "/api/generate": {
        "post": _asked(
            {"model": MODEL, "prompt": TEXT | {"maxLength": 0}, "keep_alive": KEEP_ALIVE},
            ["model"],
            given(_LOADED, shape({**_DONE, "response": TEXT})),
            "400 404 413 500 503",
        )
    },
    "/v1/models": {
        "get": _told(
            given(
                "Installed models.",
                shape({"object": TEXT, "data": {"type": "array", "items": _OPENAI_MODEL}}),
            ),
            error=OPENAI_ERROR,
        )
    },
    "/v1/models/{name}": {
        "get": _told(given("The model.", _OPENAI_MODEL), "400 404 500", OPENAI_ERROR)
    },
    "/info": {"get": _told(given("The default model.", shape(_INFO)), "404 424", TEI_ERROR)},
    "/metrics": {"get": _told(given("Counters and gauges.", TEXT, PLAIN))},
    "/health": {"get": _told(given("It lives.", shape({"status": TEXT})))},
    "/ready": {
        "get": {
            "responses": {
                **_told(given("Every part works.", shape({"status": TEXT, "parts": OBJECT})))[
                    "responses"
                ],
                "503": given("A part does not.", shape({"status": TEXT, "parts": OBJECT})),
            }
        }
    },
    "/d/{document}": {"get": _told(given("A page with the text.", TEXT, "text/html"), "400 404")},
    "/d/{document}/original": {"get": _told(given("The file.", _BYTES, FILE), "404 409 413")},
    "/indexes": {
        "get": _told(
            given(
                "The indexes.",
                shape({"indexes": {"type": "array", "items": OBJECT}, "problems": OBJECT}),
            )
        )
    },
    "/indexes/{name}": {
        "get": _told(given("The index.", OBJECT), "404 503"),
        "put": {
            "responses": {
                "200": given("Its definition was replaced.", OBJECT),
                "201": given("It was created.", OBJECT),
                **refused("400 404 409 413 500 503"),
            }
        },
        "delete": _told(given("It is gone.", shape({"deleted": TEXT})), "404 409"),
    },
    "/indexes/{name}/ingest": {
        "post": {
            "responses": {
                "200": given("What a job would have to do.", OBJECT),
                "202": given("The job.", OBJECT),
                **refused("400 404 409 413 503"),
            }
        }
    },
    "/indexes/{name}/documents": {
        "get": _told(given("The documents.", _DOCUMENTS), "400 404 409"),
        "post": {"responses": _ACCEPTED},
    },
    "/indexes/{name}/documents/delete": {
        "post": _told(given("They are gone.", _DELETED), "400 404 409 413")
    },
    "/indexes/{name}/documents/{path}": {
        "get": _told(given("The document.", OBJECT), "400 404 409"),
        "put": {"responses": _ACCEPTED},
        "delete": _told(given("It is gone.", _DELETED), "400 404 409"),
    },
    "/query": {"post": _told(given("The hits of all.", ANSWER_OF_MANY), "400 404 409 413 500 503")},
    "/indexes/{name}/export": {
        "get": _told(given("The archive.", _BYTES, ZIP), "404 409"),
    },
    "/indexes/import": {
        "post": {
            "responses": {
                "201": given("The index was added.", OBJECT),
                **refused("400 404 409 413 500"),
            }
        }
    },
    "/indexes/{name}/check": {
        "post": _told(given(_LAST_LINE, TEXT, LINES), "400 404 413"),
    },
    "/indexes/{name}/rebuild": {"post": _told(given(_LAST_LINE, TEXT, LINES), "404")},
    "/vacuum": {"post": _told(given(_LAST_LINE, TEXT, LINES))},
    "/jobs": {
        "get": _told(given("The jobs.", shape({"jobs": {"type": "array", "items": OBJECT}})), "400")
    },
    "/jobs/{job_id}": {"get": _told(given("The job.", OBJECT), "400 404")},
    "/jobs/{job_id}/events": {"get": _told(given("Its states.", TEXT, "text/event-stream"), "404")},
    "/jobs/{job_id}/retry": {
        "post": {"responses": {"202": given("The job.", OBJECT), **refused("404 409")}}
    },
    "/jobs/{job_id}/cancel": {"post": _told(given("The job.", OBJECT), "404 409")},
}
