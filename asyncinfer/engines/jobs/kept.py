"""What a job's JSON says of how it was asked."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from ...errors import ConfigError
from ...wire.shapes import ClassSchema

if TYPE_CHECKING:
    from ...params import InferenceConfig
    from ...request import Request
    from ..base import Engine

FORMAT = "asyncinfer.batch/1"


def parsed_of(text: str) -> dict[str, Any]:
    """The JSON of a job. Raises `ConfigError` for anything else."""
    try:
        value = json.loads(text)
    except ValueError as error:
        raise ConfigError(f"not a batch job: {error}", path="job") from error
    if not isinstance(value, dict) or value.get("format") != FORMAT:
        raise ConfigError(f"not a batch job: expected a JSON object of format {FORMAT}", path="job")
    return cast("dict[str, Any]", value)


def config_of(text: Any) -> InferenceConfig | None:
    """The configuration that is kept as YAML; None where none is. Raises `ConfigError`."""
    from ...params import InferenceConfig

    return InferenceConfig.from_str(text) if isinstance(text, str) else None


def asked_of(text: Any) -> dict[str, Any]:
    """What decides the answers."""
    config = config_of(text)
    if config is None:
        return {}
    return {name: getattr(config, name).model_dump(exclude_unset=True) for name in ("model", "generation")}


def class_of(template: Request) -> str | None:
    """Name of the class whose schema answers follow; None for a plain schema, or none."""
    guided = template.generation.guided_decoding
    return guided.json.__name__ if guided is not None and isinstance(guided.json, type) else None


def of_class(template: Request, name: str | None) -> Request:
    """A template whose schema is that of the named class, or of none: some formats take more from a class's."""
    guided = template.generation.guided_decoding
    schema = None if guided is None else guided.json_schema()
    if guided is None or schema is None or name == class_of(template):
        return template
    guided = guided.model_copy(update={"json": schema if name is None else ClassSchema(schema, name)})
    return replace(template, generation=template.generation.model_copy(update={"guided_decoding": guided}))


def engine_of(text: Any) -> Engine:
    """An engine like the one that submitted the job. Raises `ConfigError`."""
    from ..opening import open_engine

    config = config_of(text)
    if config is None or config.engine is None:
        raise ConfigError(
            "this job does not say which engine made it: pass one to from_json(text, engine)", path="engine"
        )
    return open_engine(config)
