"""Which answers are to be made, and how: prompts and their samplings as rows of `Engine.generate_many`."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any, NamedTuple

from .. import Failure, GenerationParams
from .outputs import RequestOutput, request_output

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .. import Completion, Prompt
    from .progress import Bar
    from .sampling import Sampling


class Row(NamedTuple):
    """One call: for the prompt at ``at``, the ``sample``-th of those that its answers take."""

    at: int
    sample: int


def in_batches(
    prompts: Sequence[Prompt], samplings: Sequence[Sampling], *, several: bool
) -> list[tuple[GenerationParams, list[Row]]]:
    """The rows, those with the same parameters together.

    Args:
        prompts: what is completed.
        samplings: how, one for each prompt; prompts may share one.
        several: whether the engine gives ``n`` answers to one call; else each answer is a row of its own.
    """
    batches: defaultdict[tuple[int, int], list[Row]] = defaultdict(list)
    known: dict[int, Sampling] = {}
    for at, (_, sampling) in enumerate(zip(prompts, samplings, strict=True)):
        known[id(sampling)] = sampling
        for sample in range(1 if several else sampling.n):
            shift = sample if sampling.generation.seed is not None else 0
            batches[id(sampling), shift].append(Row(at, sample))
    return [(_parameters(known[which], shift, several=several), rows) for (which, shift), rows in batches.items()]


def _parameters(sampling: Sampling, shift: int, *, several: bool) -> GenerationParams:
    """The parameters of rows: answers to one prompt that are made one by one differ in their seed."""
    changed: dict[str, Any] = {"n": sampling.n if several else 1}
    if shift and sampling.generation.seed is not None:
        changed["seed"] = sampling.generation.seed + shift
    given = {name: getattr(sampling.generation, name) for name in sampling.generation.model_fields_set}
    if changed == {"n": given.get("n", 1)}:
        return sampling.generation
    return GenerationParams(**{**given, **changed})


class Gathered:
    """What has come of the rows so far, by prompt.

    Attributes:
        failures: the first failure of each prompt that has one.
    """

    def __init__(
        self,
        prompts: Sequence[Prompt],
        samplings: Sequence[Sampling],
        batches: Sequence[tuple[GenerationParams, list[Row]]],
        bar: Bar,
    ) -> None:
        self.failures: dict[int, Failure] = {}
        self._prompts = prompts
        self._samplings = samplings
        self._bar = bar
        self._made: list[dict[int, Completion]] = [{} for _ in prompts]
        self._left = [0] * len(prompts)
        for _, rows in batches:
            for row in rows:
                self._left[row.at] += 1

    async def follow(self, run: Any, rows: Sequence[Row]) -> None:
        """Take in the results of one ``generate_many``."""
        async with run as results:
            async for result in results:
                self._note(rows[result.index], result)

    def _note(self, row: Row, result: Completion | Failure) -> None:
        if isinstance(result, Failure):
            self.failures.setdefault(row.at, Failure(row.at, result.conversation, result.error))
        else:
            self._made[row.at][row.sample] = result
            self._bar.tokens(result.usage.input_tokens, result.usage.output_tokens)
        self._left[row.at] -= 1
        if not self._left[row.at]:
            self._bar.advance()

    def results(self) -> list[RequestOutput | Failure]:
        """An output or a failure for each prompt, in order."""
        return [self._result(at) for at in range(len(self._prompts))]

    def _result(self, at: int) -> RequestOutput | Failure:
        failure = self.failures.get(at)
        if failure is not None:
            return failure
        made = [self._made[at][sample] for sample in sorted(self._made[at])]
        return request_output(at, self._prompts[at], made, with_stop=self._samplings[at].with_stop)
