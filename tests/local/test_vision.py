"""Pictures, with a vision part that the tests make: they reach the model, in their places, with either binding."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import anyio
import pytest

from asyncinfer import (
    ContentItem,
    Conversation,
    GenerationParams,
    LlamaCppInferenceEngine,
    Message,
    ModelParams,
    Prompt,
    Role,
    Type,
)
from asyncinfer.engines.llama_cpp.locate import find_projector
from asyncinfer.errors import BadRequestError, ConfigError, ContextLengthError, EngineError
from asyncinfer.models import embedded_model

from .sight import TOKENS, png, projector

pytestmark = pytest.mark.anyio

RED, BLUE = png((255, 0, 0)), png((0, 0, 255))
QUESTION = "What is the capital of France?"
ANSWER = "The capital of France is Paris."


def sees(binding):
    """Whether this binding can see: llama-cpp-python may have been compiled without."""
    if binding == "xllamacpp":
        return True
    package = find_spec("llama_cpp").submodule_search_locations[0]
    return any(Path(package, "lib").glob("*mtmd*"))


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "tiny.gguf").symlink_to(embedded_model("gguf"))
    (tmp_path / "mmproj-tiny-f32.gguf").write_bytes(projector())
    return tmp_path


@pytest.fixture
def open_engine(binding, folder):
    def make(**kwargs):
        return LlamaCppInferenceEngine(
            ModelParams(model_name=str(folder / "tiny.gguf"), model_kwargs={"binding": binding, **kwargs})
        )

    return make


def asking(*pictures, text=QUESTION):
    items = [ContentItem(type=Type.IMAGE_BINARY, binary=picture) for picture in pictures]
    items.append(ContentItem(type=Type.TEXT, content=text))
    return Conversation(messages=[Message(role=Role.USER, content=items)])


async def scores(engine, conversation):
    """How sure the model is of each token of its answer: the picture shows in that."""
    asked = GenerationParams(logprobs=True, max_new_tokens=8)
    completion = await engine.generate(conversation, generation=asked)
    return [round(entry["logprob"], 3) for entry in completion.choices[0].logprobs]


async def test_what_is_seen_reaches_the_model(binding, open_engine):
    engine = open_engine(n_parallel=2)
    if not sees(binding):  # the model was found to have a vision part that this build cannot use
        with pytest.raises(ConfigError, match="text only"):
            await engine.generate(asking(RED))
        assert (await engine.generate(QUESTION)).text == ANSWER
        await engine.aclose()
        return
    async with engine:
        plain = await engine.generate(QUESTION)
        assert plain.text == ANSWER
        seen = await engine.generate(asking(RED))
        assert seen.text == ANSWER  # the tower is random: what it shows means nothing to the model
        assert seen.usage.input_tokens == plain.usage.input_tokens + TOKENS
        two = await engine.generate(asking(RED, BLUE))
        assert two.usage.input_tokens == plain.usage.input_tokens + 2 * TOKENS
        red, blue, mixed = await scores(engine, asking(RED)), await scores(engine, asking(BLUE)), None
        assert red != blue
        assert await scores(engine, asking(RED)) == red
        mixed = await scores(engine, asking(RED, BLUE))
        assert mixed != await scores(engine, asking(BLUE, RED))
        assert (await engine.generate(QUESTION)).text == ANSWER


async def test_pictures_and_text_are_answered_together(binding, open_engine):
    if not sees(binding):
        return
    async with open_engine(n_parallel=4) as engine:
        alone = [await scores(engine, asking(picture)) for picture in (RED, BLUE)]
        together = [None] * 8

        async def ask(at):
            together[at] = await scores(engine, asking((RED, BLUE)[at % 2]))

        async def write():
            assert (await engine.generate("Count from 1 to 20.")).text.endswith("19 20")

        async with anyio.create_task_group() as group:
            for at in range(8):
                group.start_soon(ask, at)
            group.start_soon(write)
        for at, found in enumerate(together):
            assert found == pytest.approx(alone[at % 2], abs=0.02)


async def test_several_answers_about_a_picture(binding, open_engine):
    if not sees(binding):
        return
    async with open_engine(n_parallel=2) as engine:
        completion = await engine.generate(asking(RED), generation=GenerationParams(n=3))
        assert [choice.text for choice in completion.choices] == [ANSWER] * 3


async def test_a_picture_by_its_path(binding, open_engine, tmp_path):
    if not sees(binding):
        return
    (tmp_path / "red.png").write_bytes(RED)
    item = ContentItem(type=Type.IMAGE_PATH, content=str(tmp_path / "red.png"))
    named = Conversation(
        messages=[Message(role=Role.USER, content=[item, ContentItem(type=Type.TEXT, content=QUESTION)])]
    )
    async with open_engine() as engine:
        assert await scores(engine, named) == await scores(engine, asking(RED))


async def test_what_is_no_picture_is_refused_and_others_go_on(binding, open_engine):
    if not sees(binding):
        return
    async with open_engine(n_ctx=256) as engine:
        with pytest.raises(BadRequestError):
            await engine.generate(asking(b"not a picture at all"))
        with pytest.raises(ContextLengthError):
            await engine.generate(asking(RED, text="hi there " * 200))
        for _ in range(3):  # leaving before it was read
            with anyio.move_on_after(0):
                await engine.generate(asking(RED))
        assert (await engine.generate(asking(RED))).text == ANSWER


async def test_a_bare_prompt_has_its_pictures_where_it_says(binding, open_engine):
    if not sees(binding):
        return
    start, end = "<|im_start|>user\n", f"{QUESTION}<|im_end|>\n<|im_start|>assistant\n"
    async with open_engine() as engine:
        if binding == "xllamacpp":
            with pytest.raises(ConfigError, match="llama-cpp-python"):
                await engine.generate(Prompt(start + end, images=(RED,)))
            return
        placed = await scores(engine, Prompt(f"{start}<__media__>{end}", images=(RED,)))
        assert placed == await scores(engine, asking(RED))
        assert placed != await scores(engine, Prompt(start + end, images=(RED,)))
        with pytest.raises(BadRequestError, match="2 pictures"):
            await engine.generate(Prompt(f"{start}<__media__>{end}", images=(RED, BLUE)))


async def test_a_vision_part_is_named_or_found_or_left_out(binding, open_engine, folder):
    async with open_engine(mmproj=False) as engine:
        with pytest.raises(ConfigError, match="text only"):
            await engine.generate(asking(RED))
    missing = open_engine(mmproj="*nothing*.gguf")
    with pytest.raises(EngineError, match="mmproj"):
        await missing.generate(QUESTION)
    named = open_engine(mmproj=str(folder / "mmproj-tiny-f32.gguf"))
    if sees(binding):
        assert (await named.generate(asking(RED))).text == ANSWER
    else:
        with pytest.raises(EngineError, match="LLAVA_BUILD"):
            await named.generate(asking(RED))
    await named.aclose()
    (folder / "mmproj-tiny-f32.gguf").write_bytes(projector()[:5000])
    broken = open_engine()
    if binding == "xllamacpp":
        with pytest.raises(EngineError, match="xllamacpp"):
            await broken.generate(QUESTION)
    else:  # it was only found
        assert (await broken.generate(QUESTION)).text == ANSWER
    await broken.aclose()


def test_which_vision_part_belongs_to_a_model(tmp_path):
    model = tmp_path / "m-Q4_0.gguf"
    model.touch()
    for kind in ("q8_0", "BF16", "F16"):
        (tmp_path / f"mmproj-m-{kind}.gguf").touch()
    assert find_projector(None, str(model), model).name == "mmproj-m-F16.gguf"
    assert find_projector("*BF16*", str(model), model).name == "mmproj-m-BF16.gguf"
    (tmp_path / "other.gguf").touch()  # now it cannot be known whose they are
    assert find_projector(None, str(model), model) is None
    assert find_projector("*mmproj*q8*", str(model), model).name == "mmproj-m-q8_0.gguf"
