"""The way over ``model.generate``: beams, no cache, models that are not batched continuously, models that see."""

from __future__ import annotations

import io

import anyio
import pytest

from asyncinfer import (
    ContentItem,
    Conversation,
    FinishReason,
    GenerationParams,
    GuidedDecodingParams,
    Message,
    ModelParams,
    NativeTextInferenceEngine,
    Prompt,
    Role,
    TextDelta,
    Type,
)
from asyncinfer.errors import ConfigError, EngineError
from asyncinfer.models import embedded_model

pytestmark = [pytest.mark.native, pytest.mark.anyio]

COUNT = "Count from 1 to 20."
COUNTED = " ".join(map(str, range(1, 21)))
LONG = GenerationParams(max_new_tokens=1500, logit_bias={2: -100})


def params(**fields):
    return GenerationParams(**fields)


@pytest.fixture(scope="module")
def sequential():
    engine = NativeTextInferenceEngine(
        ModelParams(model_kwargs={"continuous_batching": False}), generation_params=GenerationParams(batch_size=4)
    )
    yield engine
    anyio.run(engine.aclose)


async def test_batches_of_unequal_prompts_are_answered_each_its_own_way(sequential):
    asked = {
        "What is 3 + 4?": "3 + 4 = 7.",
        COUNT: COUNTED,
        "Hello": "Hello! How can I help you today?",
        "What is the capital of France?": "The capital of France is Paris.",
    }
    completions = await sequential.generate_many(list(asked) * 2)
    assert [completion.text for completion in completions] == list(asked.values()) * 2
    assert {completion.finish_reason for completion in completions} == {FinishReason.STOP}
    assert completions[0].usage.output_tokens == 9  # not what its longest neighbour had


async def test_it_streams_and_leaving_stops_the_computation(sequential):
    async with sequential.stream(COUNT, generation=LONG) as stream:
        pieces = 0
        async for event in stream.events():
            pieces += type(event) is TextDelta
            if pieces == 3:
                break
    with anyio.fail_after(10):
        assert (await sequential.generate("What is 3 + 4?")).text == "3 + 4 = 7."


async def test_parameters_work_here_too(sequential):
    stopped = await sequential.generate(COUNT, generation=params(stop_strings=[" 5"]))
    assert (stopped.text, stopped.choices[0].matched) == ("1 2 3 4", " 5")
    guided = params(guided_decoding=GuidedDecodingParams(choice=["yes", "no"]))
    assert (await sequential.generate(COUNT, generation=guided)).text in {"yes", "no"}
    noise = params(temperature=1.5, seed=4, max_new_tokens=15, n=2)
    one, two = [await sequential.generate("Repeat after me: x", generation=noise) for _ in range(2)]
    assert [choice.message.text for choice in one.choices] == [choice.message.text for choice in two.choices]


async def test_without_a_cache_the_answer_is_the_same(engine):
    assert (await engine.generate(COUNT, generation=params(use_cache=False))).text == COUNTED
    with_it = params(use_cache=True)
    assert (await engine.generate(COUNT, generation=with_it)).text == COUNTED


async def test_beams_are_those_of_the_library(engine):
    """Beside streams that run on, token for token what ``model.generate`` finds by itself."""
    import torch

    await engine.ready()
    loaded = engine._life.worker._loaded
    prompt = "Repeat after me: red cat"
    answers = {}
    async with anyio.create_task_group() as group:

        async def stream():
            text = ""
            async for token in engine.stream(COUNT):
                text += token
            answers["stream"] = text

        async def beams():
            asked = params(num_beams=4, n=2, max_new_tokens=12)
            answers["beams"] = await engine.generate(prompt, generation=asked)

        group.start_soon(stream)
        group.start_soon(beams)
    assert answers["stream"] == COUNTED
    found = answers["beams"]
    ids = loaded.tokenizer.apply_chat_template(
        [{"role": "user", "content": prompt}], add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    await engine.aclose()  # nobody else may use the model meanwhile
    with torch.no_grad():
        made = loaded.model.generate(
            **ids, num_beams=4, num_return_sequences=2, max_new_tokens=12, do_sample=False, early_stopping=True
        )
    raw = loaded.tokenizer.batch_decode(made[:, ids["input_ids"].shape[1] :], skip_special_tokens=True)
    assert [choice.message.text for choice in found.choices] == raw
    assert found.usage.output_tokens > 2


async def test_beams_heed_what_is_said_about_tokens(engine):
    guided = params(num_beams=3, guided_decoding=GuidedDecodingParams(regex="[a-c]{4}"), max_new_tokens=20)
    completion = await engine.generate(COUNT, generation=guided)
    assert len(completion.text) == 4 and set(completion.text) <= set("abc")
    stopped = await engine.generate(COUNT, generation=params(num_beams=2, stop_strings=[" 5"]))
    assert stopped.text == "1 2 3 4" and stopped.finish_reason is FinishReason.STOP
    cut = await engine.generate(COUNT, generation=params(num_beams=2, max_new_tokens=5))
    assert cut.finish_reason is FinishReason.LENGTH
    with pytest.raises(ConfigError, match="no more answers than beams"):
        await engine.generate(COUNT, generation=params(num_beams=2, n=3))


# -- models that see ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def eyes(tmp_path_factory):
    """A very small LLaVA with random weights, as a folder."""
    import torch
    from transformers import (
        AutoTokenizer,
        CLIPImageProcessorPil,
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
    )

    folder = tmp_path_factory.mktemp("eyes")
    tokenizer = AutoTokenizer.from_pretrained(embedded_model("hf"))
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    template = (
        "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}{% for p in m.content %}"
        "{% if p.type == 'image' %}{{ '<image>' }}{% else %}{{ p.text }}{% endif %}{% endfor %}{{ '<|im_end|>\n' }}"
        "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    )
    pictures = CLIPImageProcessorPil(size={"shortest_edge": 30}, crop_size={"height": 30, "width": 30})
    LlavaProcessor(
        pictures,
        tokenizer,
        patch_size=15,
        vision_feature_select_strategy="default",
        chat_template=template,
        num_additional_image_tokens=1,
    ).save_pretrained(folder)
    torch.manual_seed(0)
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=30,
            patch_size=15,
        ),
        text_config=LlamaConfig(
            vocab_size=len(tokenizer) + 7,
            hidden_size=64,
            intermediate_size=96,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            max_position_embeddings=256,
            eos_token_id=2,
            pad_token_id=0,
        ),
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        vision_feature_layer=-1,
    )
    LlavaForConditionalGeneration(config).save_pretrained(folder)
    return str(folder)


def picture(colour):
    from PIL import Image

    buffer = io.BytesIO()
    Image.new("RGB", (40, 50), colour).save(buffer, format="PNG")
    return buffer.getvalue()


def shown(*colours, text="What is it?"):
    items = [ContentItem(type=Type.IMAGE_BINARY, binary=picture(colour)) for colour in colours]
    items.append(ContentItem(type=Type.TEXT, content=text))
    return Conversation(messages=[Message(role=Role.USER, content=items)])


async def test_a_model_that_sees(eyes):
    few = params(max_new_tokens=12)
    async with NativeTextInferenceEngine(ModelParams(model_name=eyes), generation_params=few) as engine:
        red, blue = await engine.generate(shown("red")), await engine.generate(shown("blue"))
        # four patches for an image, in the place of one word
        assert red.usage.input_tokens == blue.usage.input_tokens
        assert red.text != blue.text
        plain = await engine.generate("What is it?")
        assert red.usage.input_tokens - plain.usage.input_tokens == 4
        two = await engine.generate(shown("red", "blue"))
        assert two.usage.input_tokens - plain.usage.input_tokens == 8
        together = await engine.generate_many([shown("red"), shown("blue"), shown("red"), "What is it?"] * 2)
        for at, alone in enumerate([red, blue, red, plain] * 2):
            assert together[at].text == alone.text
        batched = params(batch_size=4)
        together = await engine.generate_many(
            [shown("red"), shown("blue", text="Or?"), shown("red")] * 2, generation=batched
        )
        assert together[0].text == together[2].text == red.text
        bare = Prompt(text="<image>Go on", images=(picture("red"),))
        assert (await engine.generate(bare)).usage.input_tokens >= 6
        with pytest.raises(ConfigError, match="cannot be read"):
            await engine.generate(Prompt(text="<image>", images=(b"no image",)))


async def test_what_a_processor_says_beside_tensors_holds_nobody_up(eyes):
    few = params(max_new_tokens=4, batch_size=2)
    async with NativeTextInferenceEngine(ModelParams(model_name=eyes), generation_params=few) as engine:
        alone = await engine.generate(shown("red"))
        prompts = engine._life.worker._prompts
        words = prompts._words

        class Talkative:
            apply_chat_template = words.apply_chat_template

            def __call__(self, **given):
                return {**words(**given), "image_sizes_as_given": [[40, 50]]}

        prompts._words = Talkative()
        with anyio.fail_after(60):
            both = await engine.generate_many([shown("red")] * 4)
    assert [one.text for one in both] == [alone.text] * 4


async def test_an_answer_that_the_library_ends_too_soon_is_told_so(sequential, monkeypatch):
    await sequential.ready()
    monkeypatch.setattr(sequential._life.worker._loaded.model, "generate", lambda **_: None)
    with pytest.raises(EngineError, match="before its end"), anyio.fail_after(60):
        await sequential.generate(COUNT)


async def test_rlites_example_with_images(eyes):
    """Word for word, but for the path of the image; its prompt does not say where the image stands."""
    from PIL import Image

    from asyncinfer import rlite

    async with rlite.InferenceEngine(model_path=eyes, backend="native") as engine:
        outputs = await engine.generate(
            [
                {
                    "prompt": "What is the image about?",
                    "multi_modal_data": {"image": Image.new("RGB", (40, 50), "red")},
                }
                for _ in range(8)
            ],
            sampling_params={
                "temperature": 0.7,
                "seed": 42,
            },
            use_tqdm=True,
            tqdm_desc="VLM generating",
        )
        (said,) = await engine.generate(
            {
                "prompt": "<image>What is the image about?",
                "multi_modal_data": {"image": [Image.new("RGB", (40, 50), "red")]},
            },
            {"temperature": 0.7, "seed": 42},
        )
        (blind,) = await engine.generate("What is the image about?", {"max_tokens": 1})
    assert len({output.outputs[0].text for output in outputs}) == 1
    assert outputs[0].num_prompt_tokens == said.num_prompt_tokens == blind.num_prompt_tokens + 4
    assert outputs[0].outputs[0].text == said.outputs[0].text
