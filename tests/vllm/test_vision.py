"""Images, on a very small vision-language model of random numbers, which the test makes."""

from __future__ import annotations

import io

import pytest

from asyncinfer import (
    ConfigError,
    ContentItem,
    Conversation,
    GenerationParams,
    Message,
    ModelParams,
    Prompt,
    Role,
    Type,
    VLLMInferenceEngine,
)
from asyncinfer.models import embedded_model

pytestmark = [pytest.mark.vllm, pytest.mark.anyio, pytest.mark.timeout(900)]

TEMPLATE = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}{% if m.content is string %}{{ m.content }}{% else %}"
    "{% for p in m.content %}{% if p.type == 'image' %}{{ '<image>' }}{% else %}{{ p.text }}{% endif %}{% endfor %}"
    "{% endif %}{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


@pytest.fixture(scope="module")
def eyes(tmp_path_factory):
    """An Idefics3, as a folder: its code needs no torchvision."""
    import torch
    from transformers import (
        AutoTokenizer,
        Idefics3Config,
        Idefics3ForConditionalGeneration,
        Idefics3ImageProcessorPil,
        Idefics3Processor,
    )

    folder = tmp_path_factory.mktemp("eyes")
    tokenizer = AutoTokenizer.from_pretrained(embedded_model("hf"))
    marks = ["<image>", "<fake_token_around_image>", "<global-img>", "<end_of_utterance>"]
    tokenizer.add_special_tokens({"additional_special_tokens": marks})
    size = {"longest_edge": 64}
    pictures = Idefics3ImageProcessorPil(size=size, max_image_size=size, do_image_splitting=False)
    Idefics3Processor(pictures, tokenizer, image_seq_len=4, chat_template=TEMPLATE).save_pretrained(folder)
    torch.manual_seed(0)
    config = Idefics3Config(
        vision_config={
            "hidden_size": 64,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": 64,
            "patch_size": 16,
        },
        text_config={
            "model_type": "llama",
            "vocab_size": len(tokenizer),
            "hidden_size": 64,
            "intermediate_size": 96,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "max_position_embeddings": 512,
            "eos_token_id": 2,
            "pad_token_id": 0,
            "initializer_range": 0.5,  # large enough for a picture to matter
        },
        scale_factor=2,
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        pad_token_id=0,
    )
    Idefics3ForConditionalGeneration(config).save_pretrained(folder)
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


@pytest.mark.parametrize("anyio_backend", ["trio"])
async def test_a_model_that_sees(eyes, anyio_backend):
    kwargs = {"kv_cache_memory_bytes": 2**28, "limit_mm_per_prompt": {"image": 2}, "max_num_seqs": 8}
    model = ModelParams(model_name=eyes, torch_dtype_str="float32", model_kwargs=kwargs)
    few = GenerationParams(max_new_tokens=12)
    async with VLLMInferenceEngine(model, generation_params=few) as engine:
        assert engine.slots == 8
        red, blue = await engine.generate(shown("red")), await engine.generate(shown("blue"))
        # an image is four patches between three marks
        assert red.usage.input_tokens == blue.usage.input_tokens
        assert red.text != blue.text
        plain = await engine.generate("What is it?")
        assert red.usage.input_tokens - plain.usage.input_tokens == 7
        two = await engine.generate(shown("red", "blue"))
        assert two.usage.input_tokens - plain.usage.input_tokens == 14
        placed = Prompt(text="<image>\nGo on", images=(picture("red"),))
        unplaced = Prompt(text="Go on", images=(picture("red"),))  # its place stands before the text
        assert (await engine.generate(placed)).text == (await engine.generate(unplaced)).text
        with pytest.raises(ConfigError, match="cannot be read"):
            await engine.generate(Prompt(text="<image>", images=(b"no image",)))
        assert (await engine.generate(shown("red"))).text == red.text
