"""Checks of what goes wrong: errors are typed, name what is at fault, and touch nobody else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .. import (
    AsyncInferError,
    Completion,
    ContextLengthError,
    Failure,
    GenerationParams,
    GuidedDecodingParams,
    UnsupportedParameterError,
)
from .verdict import ConformanceError, NotApplicable, claim, show

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from .subject import Subject

_RARE: dict[str, Any] = {
    "num_beams": 3,
    "stop_token_ids": [1],
    "min_new_tokens": 2,
    "min_p": 0.5,
    "logit_bias": {5: -1.0},
    "top_k": 3,
    "n": 2,
    "seed": 1,
    "frequency_penalty": 0.5,
    "reasoning_effort": "low",
    "stop_strings": ["never"],
}
"""Parameters that some engine lacks, each with a value that is not its default."""


async def unsupported_parameters_are_refused_by_name(subject: Subject) -> str:
    """With ``strict_params`` a parameter that the engine does not claim is an error that names it."""
    lacking = [name for name in _RARE if not subject.supports(name)]
    if not lacking:
        raise NotApplicable("the engine claims every parameter")
    name = lacking[0]
    generation = subject.params(**{name: _RARE[name]}, strict_params=True)
    error = await _raised(lambda: subject.generate(subject.expect.prompts[0], generation))
    if error is None:
        raise ConformanceError(f"{name} is not claimed, and with strict_params it was let through")
    claim(isinstance(error, UnsupportedParameterError), f"{name} with strict_params raised {error!r}")
    claim(name in str(error), f"the error does not name {name}: {error}")
    return name


async def a_broken_shape_is_a_typed_error(subject: Subject) -> None:
    """A regular expression that is none is refused with a typed error, and the next answer comes."""
    subject.needs_guided("regex")
    generation = subject.params()

    async def ask() -> Completion:
        broken = GenerationParams(guided_decoding=GuidedDecodingParams(regex="(["))
        return await subject.generate(
            subject.expect.prompts[0], subject.params(generation, guided_decoding=broken.guided_decoding)
        )

    error = await _raised(ask)
    claim(error is not None, "the regular expression '([' was accepted")
    claim(isinstance(error, AsyncInferError), f"the regular expression '([' raised {error!r}, no error of asyncinfer")
    await _still_serves(subject)


async def a_prompt_that_is_too_long_is_a_typed_error(subject: Subject) -> None:
    """`ContextLengthError` through every call; in ``generate_many`` it is that row's alone."""
    prompt = subject.expect.too_long
    if prompt is None:
        raise NotApplicable("no prompt is given that does not fit the context")
    error = await _raised(lambda: subject.generate(prompt))
    claim(isinstance(error, ContextLengthError), f"a prompt that is too long raised {error!r}, not ContextLengthError")
    error = await _raised(lambda: subject.read(prompt))
    claim(isinstance(error, ContextLengthError), f"streaming one raised {error!r}, not ContextLengthError")
    few = list(subject.expect.prompts[:2])
    results = await subject.engine.generate_many([few[0], prompt, few[-1]], generation=subject.params())
    good, bad, other = results
    claim(isinstance(bad, Failure), f"row 1 is too long, and gave {show(bad)}")
    claim(bad.index == 1, f"the failure of row 1 has the index {bad.index}")
    for question, result in ((few[0], good), (few[-1], other)):
        if isinstance(result, Failure):
            raise ConformanceError(f"beside a row that is too long, another one failed: {result.error!r}")
        if subject.expect.deterministic:
            known = await subject.known(question)
            claim(result.text == known.text, f"beside a bad row: {show(result.text)}, not {show(known.text)}")
    await _still_serves(subject)


async def _raised(ask: Callable[[], Awaitable[Any]]) -> Exception | None:
    try:
        await ask()
    except Exception as error:  # noqa: BLE001 -- the finding
        return error
    return None


async def _still_serves(subject: Subject) -> None:
    completion = await subject.generate(subject.expect.prompts[0])
    if subject.expect.deterministic:
        known = await subject.known(subject.expect.prompts[0])
        claim(completion.text == known.text, f"after the error: {show(completion.text)}, not {show(known.text)}")
