"""The seam between the engine and a binding of llama.cpp, and the choice between the two."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Protocol

from ...errors import ConfigError, MissingDependencyError
from ..local.engine import Worker

if TYPE_CHECKING:
    from ..local.ask import Ask
    from ..worker import Feed
    from .settings import Settings

BINDINGS = {"llama-cpp-python": "llama_cpp", "xllamacpp": "xllamacpp"}
"""Names for ``model_kwargs["binding"]``, in order of preference, with the modules they stand for.

Who went through compiling llama-cpp-python (for a GPU, for their CPU) wants it used; xllamacpp installs in seconds.
"""


class Binding(Worker, Protocol):
    """A loaded model that answers many requests at once."""

    def submit(self, ask: Ask, feed: Feed) -> None:
        """Begin an answer; returns at once, any thread. Raises `EngineClosedError`."""
        ...


def choose(wanted: str | None) -> str:
    """The binding to use: the one asked for, else the first that is installed.

    Raises:
        ConfigError: there is no binding of that name.
        MissingDependencyError: it, or every one of them, is not installed.
    """
    if wanted is not None and wanted not in BINDINGS:
        raise ConfigError(
            f"model_kwargs.binding is {wanted!r}; there are {' and '.join(map(repr, BINDINGS))}",
            path="model.model_kwargs.binding",
        )
    for name in (wanted,) if wanted else BINDINGS:
        if find_spec(BINDINGS[name]) is not None:
            return name
    extra = "llama-cpp-python" if wanted == "llama-cpp-python" else "llamacpp"
    raise MissingDependencyError(
        f"the llama.cpp engine needs {wanted or 'a binding of llama.cpp'}, which is not installed: "
        f"pip install 'asyncinfer[{extra}]'"
    )


def installed(wanted: str | None) -> str | None:
    """As `choose`, but None where it raises."""
    try:
        return choose(wanted)
    except (ConfigError, MissingDependencyError):
        return None


def make(settings: Settings) -> Binding:
    """The binding for these settings, not yet loaded. Raises as `choose`."""
    if choose(settings.binding) == "xllamacpp":
        from .server import ServerBinding

        return ServerBinding(settings)
    from .batch import BatchBinding

    return BatchBinding(settings)
