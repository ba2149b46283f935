"""Engines that break exactly one promise each, and the check that must find it.

Each is `Honest` with one hook replaced; its docstring says what goes wrong.
"""

from __future__ import annotations

import threading
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import anyio
import anyio.lowlevel

from asyncinfer import (
    AsyncInferError,
    Completion,
    EngineClosedError,
    EngineError,
    Event,
    Finish,
    FinishReason,
    Message,
    Request,
    Role,
    Start,
    TextDelta,
    ToolCallDelta,
    Usage,
    UsageUpdate,
)

from .honest import Honest, say, tokens_of

FLAWS: list[tuple[str, type[Honest], dict[str, Any]]] = []
"""``(name of the check, engine, expectations that differ)``."""


def breaks(check: str, **expectations: Any):
    def note(engine: type[Honest]) -> type[Honest]:
        FLAWS.append((check, engine, expectations))
        return engine

    return note


async def whole(events: AsyncGenerator[Event]) -> list[Event]:
    async with aclosing(events):
        return [event async for event in events]


# -- the order and the sum of events -----------------------------------------------------------------------------------


@breaks("text_is_the_fold_of_events")
class NoStart(Honest):
    async def produce(self, request: Request) -> AsyncGenerator[Event]:
        async with aclosing(super().produce(request)) as events:
            async for event in events:
                if type(event) is not Start:
                    yield event


@breaks("text_is_the_fold_of_events")
class TalksAfterItsEnd(Honest):
    async def produce(self, request: Request) -> AsyncGenerator[Event]:
        async with aclosing(super().produce(request)) as events:
            async for event in events:
                yield event
        yield TextDelta("and another thing")


@breaks("text_is_the_fold_of_events")
class EndsTwice(Honest):
    async def produce(self, request: Request) -> AsyncGenerator[Event]:
        async with aclosing(super().produce(request)) as events:
            async for event in events:
                yield event
                if type(event) is Finish:
                    yield event


@breaks("text_is_the_fold_of_events")
class SaysNothing(Honest):
    async def produce(self, request: Request) -> AsyncGenerator[Event]:
        async with aclosing(super().produce(request)) as events:
            async for event in events:
                if type(event) is not TextDelta:
                    yield event


@breaks("generate_is_the_fold_of_stream")
class GenerateSaysSomethingElse(Honest):
    async def generate(self, *args: Any, **kwargs: Any) -> Completion:
        completion = await super().generate(*args, **kwargs)
        completion.choices[0].message = completion.message.model_copy(update={"content": completion.text.upper()})
        return completion


@breaks("known_answers_are_given")
class DropsItsLastCharacter(Honest):
    def text(self, request: Request, index: int) -> str:
        return super().text(request, index)[:-1]


@breaks("the_first_token_is_seen_before_the_last_is_made", long_tokens=40)
class MakesAllAndThenShowsIt(Honest):
    pause = 0.002

    async def decode(self, request: Request) -> AsyncGenerator[Event]:
        for event in await whole(super().decode(request)):
            yield event


@breaks("the_first_token_is_seen_before_the_last_is_made")
class ShowsOnePiece(Honest):
    async def decode(self, request: Request) -> AsyncGenerator[Event]:
        events = await whole(super().decode(request))
        yield TextDelta("".join(event.text for event in events if type(event) is TextDelta))
        for event in events:
            if type(event) is not TextDelta:
                yield event


# -- many at once ------------------------------------------------------------------------------------------------------


class _Crosstalk(Honest):
    """The prompt lies in the engine instead of in the request's own place."""

    latest = ""

    async def produce(self, request: Request) -> AsyncGenerator[Event]:
        self.latest = str(request.conversation.messages[-1].content)
        async with aclosing(super().produce(request)) as events:
            async for event in events:
                yield event

    async def decode(self, request: Request) -> AsyncGenerator[Event]:
        await anyio.sleep(0.001)
        request.conversation = request.conversation.model_copy(
            update={"messages": [Message(role=Role.USER, content=self.latest)]}
        )
        async with aclosing(super().decode(request)) as events:
            async for event in events:
                yield event


@breaks("many_rows_keep_their_order")
class MixesRows(_Crosstalk):
    pass


@breaks("many_streams_at_once_are_each_correct")
class MixesStreams(_Crosstalk):
    pass


@breaks("a_slow_reader_loses_nothing")
class DropsWhatNobodyWaitsFor(Honest):
    async def produce(self, request: Request) -> AsyncGenerator[Event]:
        async with aclosing(super().produce(request)) as events:
            late = False
            async for event in events:
                if late and type(event) is TextDelta:
                    late = False
                    continue
                began = time.monotonic()
                yield event
                late = time.monotonic() - began > 0.05


@breaks("many_streams_at_once_are_each_correct")
class LosesTextWhenBusy(Honest):
    async def decode(self, request: Request) -> AsyncGenerator[Event]:
        async with aclosing(super().decode(request)) as events:
            async for event in events:
                if self.running < 6 or type(event) is not TextDelta:
                    yield event


@breaks("many_streams_at_once_are_each_correct", patience=1.5)
class HangsWhenBusy(Honest):
    async def decode(self, request: Request) -> AsyncGenerator[Event]:
        await anyio.sleep(0.01)
        if self.running > 6:
            await anyio.sleep_forever()
        async with aclosing(super().decode(request)) as events:
            async for event in events:
                yield event


@breaks("many_rows_keep_their_order")
class LosesOrder(Honest):
    def generate_many(self, conversations: Any, **kwargs: Any) -> Any:
        return super().generate_many(list(conversations)[::-1], **kwargs)


@breaks("conversations_are_never_changed")
class WritesIntoTheConversation(Honest):
    async def decode(self, request: Request) -> AsyncGenerator[Event]:
        async with aclosing(super().decode(request)) as events:
            async for event in events:
                yield event
        request.conversation.messages.append(Message(role=Role.ASSISTANT, content="mine"))


@breaks("conversations_are_never_changed")
class WritesIntoTheMessage(Honest):
    async def decode(self, request: Request) -> AsyncGenerator[Event]:
        async with aclosing(super().decode(request)) as events:
            async for event in events:
                yield event
        request.conversation.messages[0].content = "[INST]"


# -- ends, cuts and counts ---------------------------------------------------------------------------------------------


@breaks("max_tokens_cut_and_say_so")
class CallsACutAnEnd(Honest):
    at_limit = FinishReason.STOP


@breaks("max_tokens_cut_and_say_so")
class MakesOneTooMany(Honest):
    def limit(self, most: int) -> int:
        return most + 1


@breaks("max_tokens_cut_and_say_so")
class CallsAnEndACut(Honest):
    async def decode(self, request: Request) -> AsyncGenerator[Event]:
        async with aclosing(super().decode(request)) as events:
            async for event in events:
                yield Finish(FinishReason.LENGTH) if type(event) is Finish else event


class _NaiveStops:
    """Looks for stop strings in what was shown already; cuts what it still can."""

    keep = False

    def __init__(self, stops: Any) -> None:
        self.list, self.text, self.matched = list(stops), "", None

    def feed(self, text: str) -> str:
        before = len(self.text)
        self.text += text
        found = sorted((self.text.find(stop), stop) for stop in self.list if stop in self.text)
        if not found:
            return text
        at, self.matched = found[0]
        return self.text[before : at + (len(self.matched) if self.keep else 0)]

    def close(self) -> str:
        return ""


@breaks("stop_strings_cut_exactly")
class LeaksThePrefix(Honest):
    stops = _NaiveStops


class _KeptStops(_NaiveStops):
    keep = True


@breaks("stop_strings_cut_exactly")
class ShowsTheStopString(Honest):
    stops = _KeptStops


class _StopsInOneToken(_NaiveStops):
    def feed(self, text: str) -> str:
        self.text = ""
        return super().feed(text)


@breaks("stop_strings_cut_exactly")
class MissesStopsOverTokenBorders(Honest):
    stops = _StopsInOneToken


class _ForgetfulStops(Honest.stops):
    def close(self) -> str:
        return ""


@breaks("stop_strings_cut_exactly")
class SwallowsWhatOnlyBeganLikeAStop(Honest):
    stops = _ForgetfulStops


@breaks("stop_strings_cut_exactly")
class CallsAStopACut(Honest):
    async def decode(self, request: Request) -> AsyncGenerator[Event]:
        async with aclosing(super().decode(request)) as events:
            async for event in events:
                yield Finish(FinishReason.LENGTH) if type(event) is Finish and event.matched else event


class _Careless:
    def feed(self, token: bytes) -> str:
        return token.decode(errors="replace")

    def close(self) -> str:
        return ""


@breaks("unicode_is_never_shown_broken")
class ShowsHalvesOfCharacters(Honest):
    characters = _Careless


@breaks("unicode_is_never_shown_broken", unicode=None)
class ShowsHalvesOfCharactersOfAChoice(Honest):
    characters = _Careless


class _Lossy(_Careless):
    def feed(self, token: bytes) -> str:
        return token.decode(errors="ignore")


@breaks("unicode_is_never_shown_broken")
class LosesHalvesOfCharacters(Honest):
    characters = _Lossy


@breaks("usage_is_counted")
class CountsTooMuch(Honest):
    def usage(self, request: Request, output: int) -> Usage:
        return Usage(input_tokens=super().usage(request, output).input_tokens, output_tokens=output + 2)


@breaks("usage_is_counted", count_prompt=None)
class CountsTheSameForEveryPrompt(Honest):
    def usage(self, request: Request, output: int) -> Usage:
        return Usage(input_tokens=7, output_tokens=output)


@breaks("usage_is_counted")
class CountsThePromptOnlyRoughly(Honest):
    def usage(self, request: Request, output: int) -> Usage:
        return Usage(input_tokens=len(request.conversation.messages[0].text), output_tokens=output)


@breaks("seeds_repeat_answers")
class ForgetsTheSeed(Honest):
    def text(self, request: Request, index: int) -> str:
        return say("", request.generation.temperature)


@breaks("seeds_repeat_answers")
class KnowsOneSeedOnly(Honest):
    def text(self, request: Request, index: int) -> str:
        return say("", request.generation.temperature, 1)


@breaks("seeds_repeat_answers")
class ForgetsTheSeedInCompany(Honest):
    def text(self, request: Request, index: int) -> str:
        return say("", request.generation.temperature, request.generation.seed if self.running < 2 else None)


@breaks("several_answers_are_kept_apart")
class GivesOneOfSeveral(Honest):
    async def decode(self, request: Request) -> AsyncGenerator[Event]:
        async with aclosing(super().decode(request)) as events:
            async for event in events:
                if getattr(event, "index", 0) == 0:
                    yield event


@breaks("several_answers_are_kept_apart")
class PutsAllIntoTheFirst(Honest):
    async def decode(self, request: Request) -> AsyncGenerator[Event]:
        async with aclosing(super().decode(request)) as events:
            async for event in events:
                if type(event) is TextDelta:
                    event.index = 0
                yield event


@breaks("logprobs_fit_the_answer")
class LosesLogprobs(Honest):
    async def decode(self, request: Request) -> AsyncGenerator[Event]:
        async with aclosing(super().decode(request)) as events:
            async for event in events:
                if type(event) is TextDelta:
                    event.logprobs = None
                yield event


@breaks("logprobs_fit_the_answer")
class LosesSomeLogprobs(Honest):
    async def decode(self, request: Request) -> AsyncGenerator[Event]:
        begun = False
        async with aclosing(super().decode(request)) as events:
            async for event in events:
                if type(event) is TextDelta:
                    event.logprobs = event.logprobs if begun else None
                    begun = True
                yield event


# -- shapes ------------------------------------------------------------------------------------------------------------


@breaks("a_json_schema_is_followed")
class WrapsItsJson(Honest):
    def shaped(self, shape: Any) -> str:
        return "```json\n{}\n```" if shape.json is not None else super().shaped(shape)


@breaks("a_json_schema_is_followed")
class AddsToItsJson(Honest):
    def shaped(self, shape: Any) -> str:
        return '{"ok": true, "why": 1}' if shape.json is not None else super().shaped(shape)


@breaks("a_choice_is_followed")
class ChoosesSomethingElse(Honest):
    def shaped(self, shape: Any) -> str:
        return "neither" if shape.choice is not None else super().shaped(shape)


@breaks("a_regular_expression_is_followed")
class MatchesOnlyTheBeginning(Honest):
    def shaped(self, shape: Any) -> str:
        return "abc-12 and so on" if shape.regex is not None else super().shaped(shape)


@breaks("tools_are_called")
class NeverCalls(Honest):
    def calls(self, request: Request) -> bool:
        return False


@breaks("tools_are_called")
class CallsWhenItMustNot(Honest):
    def calls(self, request: Request) -> bool:
        return bool(request.tools) and len(request.conversation.messages) == 1


@breaks("tools_are_called")
class CallsACallAnEnd(Honest):
    def call(self) -> list[Event]:
        return [*super().call()[:-1], Finish(FinishReason.STOP)]


@breaks("tools_are_called")
class CallsWithHalfTheArguments(Honest):
    def call(self) -> list[Event]:
        return [super().call()[0], Finish(FinishReason.TOOL_CALLS)]


@breaks("tools_are_called")
class CallsWhatIsNotOffered(Honest):
    def call(self) -> list[Event]:
        whole = ToolCallDelta(0, id="c", name="get_time", arguments='{"city": "Oslo"}')
        return [whole, Finish(FinishReason.TOOL_CALLS)]


# -- leaving -----------------------------------------------------------------------------------------------------------


class _Zombie(Honest):
    """A thread decodes, as many at once as there are slots, and nobody tells it that its reader has gone."""

    slots = 2
    step = 0.006

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.decoding = threading.Semaphore(self.slots)

    async def produce(self, request: Request) -> AsyncGenerator[Event]:
        yield Start()
        text = tokens_of(self.text(request, 0))[: request.generation.max_new_tokens]
        done: list[str] = []

        def work() -> None:
            with self.decoding:
                with self.lock:
                    self.running += 1
                for token in text:
                    time.sleep(self.step)
                    self.made += 1
                    done.append(token.decode(errors="replace"))
                with self.lock:
                    self.running -= 1

        threading.Thread(target=work, daemon=True).start()
        for number in range(len(text)):
            while len(done) <= number:
                await anyio.sleep(0.001)
            yield TextDelta(done[number])
        yield Finish(FinishReason.STOP)
        yield UsageUpdate(Usage(input_tokens=1, output_tokens=len(text)))


@breaks("leaving_by_break_frees_the_sequence")
class GoesOnAfterABreak(_Zombie):
    pass


@breaks("leaving_by_exception_frees_the_sequence")
class GoesOnAfterAnException(_Zombie):
    pass


@breaks("leaving_by_cancellation_frees_the_sequence")
class GoesOnAfterCancellation(_Zombie):
    pass


@breaks("leaving_by_break_frees_the_sequence", running="probe", free_within=0.1)
class GoesOnUnderAProbe(_Zombie):
    slots = 4


@breaks("leaving_by_break_frees_the_sequence", made="probe")
class GoesOnMakingTokens(_Zombie):
    slots = 4


@breaks("leaving_by_cancellation_frees_the_sequence", patience=5.0)
class SwallowsCancellation(Honest):
    pause = 0.001

    async def wait(self) -> None:
        try:
            await anyio.sleep(self.pause)
        except anyio.get_cancelled_exc_class():
            return


@breaks("leaving_by_cancellation_frees_the_sequence", running="probe", free_within=0.1)
class LosesACancelledPrompt(Honest):
    async def produce(self, request: Request) -> AsyncGenerator[Event]:
        self.running += 1
        await anyio.sleep(0.002)  # reading the prompt: whoever is cancelled here stays counted
        self.running -= 1
        async with aclosing(super().produce(request)) as events:
            async for event in events:
                yield event


@breaks("leaving_by_break_frees_the_sequence")
class ColoursTheNextAnswer(Honest):
    """What an answer that was left had said already is still there when the next one begins."""

    rest = ""

    async def decode(self, request: Request) -> AsyncGenerator[Event]:
        if self.rest:
            yield TextDelta(self.rest)
        self.rest, ended = "1 ", False
        try:
            async with aclosing(super().decode(request)) as events:
                async for event in events:
                    yield event
            ended = True
        finally:
            self.rest = "" if ended else self.rest


@breaks("closing_ends_what_runs_and_opens_again", long_tokens=60, patience=5.0)
class DoesNotClose(Honest):
    pause = 0.003

    async def aclose(self) -> None:
        return


@breaks("closing_ends_what_runs_and_opens_again")
class NeverOpensAgain(Honest):
    closed = False

    def check(self, request: Request) -> None:
        super().check(request)
        if self.closed:
            raise EngineClosedError("closed for good")

    async def aclose(self) -> None:
        await super().aclose()
        self.closed = True


# -- errors ------------------------------------------------------------------------------------------------------------


@breaks("unsupported_parameters_are_refused_by_name")
class IgnoresWhatItLacks(Honest):
    def unsupported(self, request: Request) -> list[str]:
        return []


@breaks("a_broken_shape_is_a_typed_error")
class AcceptsAnyExpression(Honest):
    async def generate(self, conversation: Any, *, generation: Any = None, **call: Any) -> Completion:
        if generation.guided_decoding is not None:
            generation = None
        return await super().generate(conversation, generation=generation, **call)


@breaks("a_broken_shape_is_a_typed_error")
class RaisesItsLibrarysErrors(Honest):
    async def generate(self, *args: Any, **kwargs: Any) -> Completion:
        try:
            return await super().generate(*args, **kwargs)
        except AsyncInferError as error:
            raise KeyError(str(error)) from None


@breaks("a_prompt_that_is_too_long_is_a_typed_error")
class SaysOnlyThatSomethingIsWrong(Honest):
    def check(self, request: Request) -> None:
        if len(request.conversation.messages[0].text) > 5000:
            raise EngineError("bad request")


@breaks("a_prompt_that_is_too_long_is_a_typed_error")
class CutsWhatIsTooLong(Honest):
    def check(self, request: Request) -> None:
        return


# -- loops -------------------------------------------------------------------------------------------------------------


@breaks("other_event_loops_are_served")
class BelongsToItsFirstLoop(Honest):
    thread: int | None = None

    def check(self, request: Request) -> None:
        super().check(request)
        self.thread = self.thread or threading.get_ident()
        if self.thread != threading.get_ident():
            raise EngineError("attached to a different loop")


@breaks("the_event_loop_is_not_held_up", max_stall_ms=20.0, long_tokens=10)
class BlocksTheLoop(Honest):
    async def wait(self) -> None:
        time.sleep(0.003)
        await anyio.lowlevel.checkpoint()
