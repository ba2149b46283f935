"""The batch API behind an engine: whom jobs ask."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ...errors import ConfigError
from . import flavour

if TYPE_CHECKING:
    from ...params import InferenceConfig
    from ...request import Request
    from ..base import Engine
    from .door import Door
    from .flavour import Flavour
    from .parts import Part
    from .status import PartStatus


class Gate:
    """The batch API of an engine's provider, as jobs see it.

    Args:
        engine: whose parameters and codec serve the rows.
        door: the way to the provider's endpoint.

    Raises:
        ConfigError: the provider has no batch API.
    """

    def __init__(self, engine: Engine, door: Door) -> None:
        row = door.endpoint.provider
        if row.batch is None:
            raise ConfigError(
                f"{row.title} has no batch API that asyncinfer speaks: use engine.generate_many, or "
                "asyncinfer.batch.run_file for files",
                path="engine",
                provider=row.name,
            )
        self.engine = engine
        self.flavour: Flavour = flavour(row.batch)
        self.door = door
        self.provider = row.name
        parts = urlsplit(door.endpoint.urls.base)
        self.base_url = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"

    async def look(self, part: Part) -> PartStatus:
        """How far a provider job is."""
        return await self.flavour.look(self.door, part)

    async def cancel(self, part: Part) -> None:
        """Ask a provider job to stop."""
        await self.flavour.cancel(self.door, part)

    def template(self, config: InferenceConfig | None) -> Request:
        """What all rows of a job have in common."""
        return replace(self.engine.plan(None, config, None, None, None).template, stream=False)

    def written(self, template: Request) -> str | None:
        """What makes an engine and a template like this one, as YAML without secrets."""
        from ...params import InferenceConfig, InferenceEngineType

        try:
            kind: InferenceEngineType | None = InferenceEngineType(self.engine.name)
        except ValueError:
            kind = None
        given: dict[str, Any] = {"model": template.model, "generation": template.generation, "engine": kind}
        if template.remote is not None:
            given["remote_params"] = template.remote
        return InferenceConfig(**{name: value for name, value in given.items() if value is not None}).to_str()


def gate_of(engine: Any) -> Gate:
    """``engine.batch``. Raises `ConfigError` for an engine that has none."""
    found = getattr(engine, "batch", None)
    if not isinstance(found, Gate):
        name = getattr(engine, "name", type(engine).__name__)
        raise ConfigError(
            f"{name} has no batch API: use engine.generate_many, or asyncinfer.batch.run_file for files", path="engine"
        )
    return found
