"""The gateway's description in OpenAPI, for clients that are generated and for tests that are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import embedctl
from embedctl.gateway.calls import DEADLINE_HEADER, FINGERPRINT_HEADER, PARTIAL_HEADER
from embedctl.gateway.embedding import BACKEND_HEADER, TRUNCATED_HEADER
from embedctl.gateway.names import ModelNames
from embedctl.gateway.openai_api import MOST_DIMENSIONS
from embedctl.metrics import BACKENDS
from embedctl.settings import GatewaySettings

Schema = dict[str, Any]

_TEXT: Final[Schema] = {"type": "string"}
_TOKEN_IDS: Final[Schema] = {
    "type": "array",
    "minItems": 1,
    "items": {"type": "integer", "minimum": 0},
    "description": "Ids of this model's own tokenizer; those of another model mean nothing to it.",
}
_NUMBERS: Final[Schema] = {"type": "array", "items": {"type": "number"}}
_REFUSALS: Final = {
    400: "The request is malformed, or a text cannot be embedded; the message names it.",
    401: "No valid API key was given.",
    403: "The Host or Origin header is not allowed.",
    404: "There is no such model or path.",
    405: "The path does not know this method.",
    408: "The body did not arrive in time.",
    409: "The vectors would not have the demanded fingerprint.",
    413: "The body is too large.",
    415: "The body is compressed.",
    429: "Too many requests or connections; Retry-After says when to try again.",
    502: "The backend answered something that cannot be right.",
    503: "The backend cannot answer now.",
    504: "The deadline passed.",
}
_EMBEDDING_REFUSALS: Final = tuple(_REFUSALS)
_READING_REFUSALS: Final = (400, 401, 403, 404, 405, 429)


def describe(names: ModelNames, settings: GatewaySettings, *, keyed: bool) -> dict[str, Any]:
    """The description of a gateway with these names and limits."""
    document: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {
            "title": "embedctl gateway",
            "version": embedctl.__version__,
            "description": "Embeddings from the active backend by OpenAI's and Ollama's APIs. "
            f"The model is called {', '.join(names.names)}.",
        },
        "paths": {**_openai_paths(names, settings), **_ollama_paths(names, settings), **_service_paths()},
        "components": {"schemas": _schemas()},
    }
    if keyed:
        document["components"]["securitySchemes"] = {
            "bearer": {"type": "http", "scheme": "bearer"},
            "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
        }
        document["security"] = [{"bearer": []}, {"header": []}]
        document["paths"]["/healthz"]["get"]["security"] = []
    return document


def _openai_paths(names: ModelNames, settings: GatewaySettings) -> dict[str, Any]:
    body = _object(
        {
            "model": _model(names),
            "input": {
                "anyOf": [
                    _TEXT,
                    {"type": "array", "minItems": 1, "maxItems": settings.max_texts, "items": _TEXT},
                    _TOKEN_IDS,
                    {"type": "array", "minItems": 1, "maxItems": settings.max_texts, "items": _TOKEN_IDS},
                ]
            },
            "encoding_format": {"enum": ["float", "base64", None]},
            "dimensions": {"type": ["integer", "null"], "minimum": 1, "maximum": MOST_DIMENSIONS},
            "user": {"description": "Ignored."},
        },
        required=["model", "input"],
    )
    partial = _header(PARTIAL_HEADER, {"enum": ["0", "1"]}, "1: a text that fails costs its own item only.")
    return {
        "/v1/embeddings": {
            "post": _operation(
                "Embed texts",
                "openai",
                "EmbeddingList",
                _EMBEDDING_REFUSALS,
                "OpenAIError",
                parameters=[*_embedding_headers(), partial],
                body=body,
                embeds=True,
            )
        },
        "/v1/models": {
            "get": _operation("List models", "openai", "ModelList", _READING_REFUSALS, "OpenAIError")
        },
        "/v1/models/{name}": {
            "get": _operation(
                "Look up a model",
                "openai",
                "Model",
                _READING_REFUSALS,
                "OpenAIError",
                parameters=[
                    {
                        "name": "name",
                        "in": "path",
                        "required": True,
                        "schema": _model(names),
                    }
                ],
            )
        },
    }


def _ollama_paths(names: ModelNames, settings: GatewaySettings) -> dict[str, Any]:
    ignored = {
        "keep_alive": {"type": ["string", "number", "null"], "description": "Ignored."},
        "options": {"type": ["object", "null"], "description": "Ignored."},
    }
    embed = _object(
        {
            "model": _model(names),
            "input": {"anyOf": [_TEXT, {"type": "array", "maxItems": settings.max_texts, "items": _TEXT}]},
            "truncate": {"type": ["boolean", "null"]},
            "dimensions": {"type": ["integer", "null"], "minimum": 0, "maximum": MOST_DIMENSIONS},
            **ignored,
        },
        required=["model"],
    )
    legacy = _object({"model": _model(names), "prompt": _TEXT, **ignored}, required=["model"])
    show = _object({"model": _model(names)}, required=["model"])

    def reading(title: str, schema: str) -> dict[str, Any]:
        return {"get": _operation(title, "ollama", schema, _READING_REFUSALS, "OllamaError")}

    def embedding(title: str, schema: str, body: Schema) -> dict[str, Any]:
        return {
            "post": _operation(
                title,
                "ollama",
                schema,
                _EMBEDDING_REFUSALS,
                "OllamaError",
                parameters=_embedding_headers(),
                body=body,
                embeds=True,
            )
        }

    return {
        "/api/embed": embedding("Embed texts", "OllamaEmbeddings", embed),
        "/api/embeddings": embedding("Embed one text (older API)", "OllamaEmbedding", legacy),
        "/api/show": {
            "post": _operation(
                "Describe a model",
                "ollama",
                "Any",
                (*_READING_REFUSALS, 408, 413, 415, 429, 503, 504),
                "OllamaError",
                parameters=[_deadline_header()],
                body=show,
            )
        },
        "/api/tags": reading("List models", "OllamaModels"),
        "/api/ps": reading("List loaded models", "OllamaModels"),
        "/api/version": reading("The version of the API", "Any"),
    }


def _service_paths() -> dict[str, Any]:
    def reading(title: str, schema: str = "Any", **more: Any) -> dict[str, Any]:
        return {"get": _operation(title, "service", schema, _READING_REFUSALS, "OpenAIError", **more)}

    backend = {"name": "backend", "in": "query", "schema": {"enum": list(BACKENDS)}}
    ready = reading("Whether a request would be answered now", "Readiness")
    ready["get"]["responses"]["503"] = _response("It would not; says why.", "Readiness")
    metrics = reading("Metrics for Prometheus")
    metrics["get"]["responses"]["200"] = {
        "description": "The text format.",
        "content": {"text/plain": {"schema": {"type": "string"}}},
    }
    return {
        "/healthz": reading("Whether the process lives"),
        "/readyz": ready,
        "/metrics": metrics,
        "/fingerprint": reading("What the vectors depend on", "Fingerprint", parameters=[backend]),
        "/openapi.json": reading("This description"),
    }


def _operation(
    title: str,
    tag: str,
    schema: str,
    refusals: Sequence[int],
    error: str,
    *,
    parameters: Sequence[Schema] = (),
    body: Schema | None = None,
    embeds: bool = False,
) -> dict[str, Any]:
    responses = {"200": _response("Done.", schema)}
    if embeds:
        responses["200"]["headers"] = {
            FINGERPRINT_HEADER: {"schema": {"type": "string"}, "description": "Of these vectors."},
            BACKEND_HEADER: {"schema": {"enum": list(BACKENDS)}},
            TRUNCATED_HEADER: {
                "schema": {"type": "string"},
                "description": "Indices of texts that were cut.",
            },
        }
    responses |= {str(status): _response(_REFUSALS[status], error) for status in refusals}
    operation: dict[str, Any] = {"summary": title, "tags": [tag], "responses": responses}
    if parameters:
        operation["parameters"] = list(parameters)
    if body is not None:
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": body}}}
    return operation


def _embedding_headers() -> list[Schema]:
    return [
        _header(
            FINGERPRINT_HEADER,
            {"type": "string", "pattern": "^[0-9a-f]{12}(, ?[0-9a-f]{12}){0,7}$"},
            "Refuse with 409 unless the vectors have this fingerprint, or one of these.",
        ),
        _deadline_header(),
    ]


def _deadline_header() -> Schema:
    return _header(
        DEADLINE_HEADER, {"type": "integer", "minimum": 1, "maximum": 10**12 - 1}, "Longest time to wait."
    )


def _header(name: str, schema: Schema, description: str) -> Schema:
    return {"name": name, "in": "header", "schema": schema, "description": description}


def _response(description: str, schema: str) -> dict[str, Any]:
    reference = {} if schema == "Any" else {"$ref": f"#/components/schemas/{schema}"}
    return {"description": description, "content": {"application/json": {"schema": reference}}}


def _model(names: ModelNames) -> Schema:
    return {"type": "string", "minLength": 1} if names.any_model else {"enum": [*names.names, *names.pinned]}


def _object(properties: Mapping[str, Schema], *, required: Sequence[str] = ()) -> Schema:
    return {"type": "object", "properties": dict(properties), "required": list(required)}


def _schemas() -> dict[str, Schema]:
    model = _object({"id": _TEXT, "object": {"const": "model"}}, required=["id", "object"])
    item = _object(
        {
            "object": {"const": "embedding"},
            "index": {"type": "integer"},
            "embedding": {
                "anyOf": [_NUMBERS, {"type": "string", "contentEncoding": "base64"}, {"type": "null"}]
            },
            "error": {"$ref": "#/components/schemas/OpenAIProblem"},
        },
        required=["object", "index", "embedding"],
    )
    tokens = {"type": "integer", "description": "By the texts' length where they are `estimated`."}
    problem = _object(
        {
            "message": _TEXT,
            "type": _TEXT,
            "param": {"type": ["string", "null"]},
            "code": _TEXT,
            "indices": {"type": "array", "items": {"type": "integer"}},
        },
        required=["message", "type", "param", "code"],
    )
    return {
        "Model": model,
        "ModelList": _object(
            {"object": {"const": "list"}, "data": {"type": "array", "items": model}},
            required=["object", "data"],
        ),
        "EmbeddingList": _object(
            {
                "object": {"const": "list"},
                "data": {"type": "array", "items": item},
                "model": _TEXT,
                "usage": _object(
                    {"prompt_tokens": tokens, "total_tokens": tokens, "estimated": {"type": "boolean"}},
                    required=["prompt_tokens", "total_tokens"],
                ),
            },
            required=["object", "data", "model", "usage"],
        ),
        "OpenAIProblem": problem,
        "OpenAIError": _object({"error": problem}, required=["error"]),
        "OllamaEmbeddings": _object(
            {
                "model": _TEXT,
                "embeddings": {"type": "array", "items": _NUMBERS},
                "total_duration": {"type": "integer"},
                "prompt_eval_count": {"type": "integer"},
            },
            required=["model", "embeddings"],
        ),
        "OllamaEmbedding": _object({"embedding": _NUMBERS}, required=["embedding"]),
        "OllamaModels": _object(
            {"models": {"type": "array", "items": {"type": "object"}}}, required=["models"]
        ),
        "OllamaError": _object({"error": _TEXT}, required=["error"]),
        "Readiness": _object(
            {
                "ready": {"type": "boolean"},
                "active": _TEXT,
                "reasons": {"type": "array", "items": _TEXT},
                "probe_ms": {"type": ["number", "null"]},
                "backends": {"type": "array", "items": {"type": "object"}},
            },
            required=["ready", "active", "reasons"],
        ),
        "Fingerprint": _object(
            {"digest": {"type": ["string", "null"]}, "backend": _TEXT, "active": {"type": "boolean"}},
            required=["digest", "backend", "active", "loaded"],
        ),
    }
