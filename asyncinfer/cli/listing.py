"""``engines`` and ``models``: what can run here, and what a provider offers."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import anyio

import asyncinfer

from .. import AsyncInferError, InferenceEngineType
from .exits import DONE
from .setup import describe, make_engine

if TYPE_CHECKING:
    from .. import InferenceConfig

_IN_PROCESS = {
    "LlamaCppInferenceEngine": (("xllamacpp", "llama_cpp"), "llamacpp"),
    "VLLMInferenceEngine": (("vllm",), "vllm"),
    "NativeTextInferenceEngine": (("torch", "transformers"), "native"),
}
"""Class of each engine that computes in this process -> the modules it needs (any of the first; all), and our extra."""
_ANY_OF_THEM = {"LlamaCppInferenceEngine"}
_BEFORE_THE_WIRE = {
    "BedrockInferenceEngine": (("aiobotocore",), "bedrock", "AWS credentials"),
    "GoogleVertexInferenceEngine": (("google", "google.auth"), "google", "Google's default credentials"),
}
"""Class of each remote engine that needs a package of its vendor -> its modules (a parent first), our extra, and what
it signs with where there is no key."""
_WHERE = {"BedrockInferenceEngine": "https://bedrock-runtime.{region}.amazonaws.com"}
"""Addresses that no row has, because the vendor's package makes them."""


@dataclass(slots=True)
class EngineRow:
    """One line of the table."""

    name: str
    title: str
    where: str
    ready: bool
    state: str


def engine_rows() -> list[EngineRow]:
    """Every engine of this version, and whether it could run now."""
    rows = []
    for class_name in sorted(name for name in asyncinfer.__all__ if name.endswith("InferenceEngine")):
        engine = getattr(asyncinfer, class_name)
        rows.append(_in_process(class_name) if class_name in _IN_PROCESS else _remote(class_name, engine))
    return sorted(rows, key=lambda row: (row.where != "in process", row.name))


def _name(class_name: str) -> str:
    """The engine's name for --engine: the class's, without its ending."""
    try:
        return InferenceEngineType(class_name.removesuffix("InferenceEngine").removesuffix("Text")).name
    except ValueError:
        return class_name.removesuffix("InferenceEngine").upper()


def _in_process(class_name: str) -> EngineRow:
    modules, extra = _IN_PROCESS[class_name]
    found = [module for module in modules if find_spec(module) is not None]
    ready = bool(found) if class_name in _ANY_OF_THEM else len(found) == len(modules)
    state = f"installed ({', '.join(found)})" if ready else f"pip install 'asyncinfer[{extra}]'"
    return EngineRow(_name(class_name), class_name, "in process", ready, state)


def _remote(class_name: str, engine: Any) -> EngineRow:
    row = engine.provider()
    where = row.base_url or _WHERE.get(class_name, "your server (api_url)")
    modules, extra, signs = _BEFORE_THE_WIRE.get(class_name, ((), "", ""))
    if not all(find_spec(module) for module in modules):
        return EngineRow(_name(class_name), class_name, where, False, f"pip install 'asyncinfer[{extra}]'")
    if not row.key_env:
        return EngineRow(_name(class_name), class_name, where, True, signs or "no key needed")
    present = next((name for name in row.key_env if os.environ.get(name)), None)
    if present is not None:
        return EngineRow(_name(class_name), class_name, where, True, f"{present} is set")
    if not row.key_required:
        state = f"{signs}, or {row.key_env[0]}" if signs else f"key optional ({row.key_env[0]})"
        return EngineRow(_name(class_name), class_name, where, True, state)
    return EngineRow(_name(class_name), class_name, where, False, f"set {row.key_env[0]}")


def show_engines() -> int:
    """Print the table: for a terminal with lines and colours, else tab-separated."""
    rows = engine_rows()
    if not sys.stdout.isatty():
        for row in rows:
            print("\t".join((row.name, "ready" if row.ready else "not ready", row.state, row.where, row.title)))
        return DONE
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("engine", "", "state", "where", "class"):
        table.add_column(heading, overflow="fold")
    for row in rows:
        mark = "[green]ready[/]" if row.ready else "[yellow]not ready[/]"
        table.add_row(row.name, mark, row.state, row.where, row.title)
    Console().print(table)
    print('\nTry one:              asyncinfer infer -m openai:gpt-4o-mini "Hello"')
    print("Ids of its models:    asyncinfer models --engine openai")
    return DONE


def show_models(config: InferenceConfig) -> int:
    """Print the ids of an engine's models, one a line."""
    engine = make_engine(config)

    async def ask() -> list[str]:
        async with _closing(engine):
            return await engine.list_models()

    try:
        names = anyio.run(ask)
    except NotImplementedError as error:
        raise AsyncInferError(f"{describe(engine)} cannot list its models: {error}") from error
    for name in names:
        print(name)
    return DONE


class _closing:  # noqa: N801 -- reads like contextlib's
    """Close without opening: a list of models needs no loaded one."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine

    async def __aenter__(self) -> None:
        return None

    async def __aexit__(self, *_: object) -> None:
        await self._engine.aclose()
