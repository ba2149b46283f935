"""Trains the embedded model from nothing, on a CPU, without a network: ``python -m asyncinfer.models.build OUT``.

The same seed, number of steps, libraries and machine give the same weights: nothing depends on the clock, and one
thread does all the arithmetic. 1,800 steps take a quarter of an hour. Needs ``pip install 'asyncinfer[training]'``.
``--convert`` only writes the GGUF file of a folder that is already there.
"""

from __future__ import annotations

import argparse
import itertools
import logging
import math
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .convert import TYPES, to_gguf
from .corpus import Dialogue, dialogues, pieces

_log = logging.getLogger("asyncinfer.models.build")

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
VOCABULARY = 1024
CONTEXT = 2048
WORD_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""How Qwen 2 cuts text into words before byte-pair encoding; llama.cpp knows it as the pre-tokenizer ``qwen2``."""
BATCH = 32
LEARNING_RATE = 3e-3
WARM_UP = 50
SHAPE = {
    "hidden_size": 128,
    "intermediate_size": 384,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
}
_IGNORED = -100
"""What a label is where the loss must not look."""
_SAMPLE = 3000
"""Dialogues that the tokenizer is trained on."""


def chat_template() -> str:
    """The Jinja source that writes a conversation as the model was trained on it."""
    return (Path(__file__).parent / "files" / "hf" / "chat_template.jinja").read_text("utf-8")


def make_tokenizer(folder: Path, seed: int) -> Any:
    """Train the tokenizer and save it to ``folder``."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORD_PATTERN), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    sample = itertools.islice(dialogues(seed + 1), _SAMPLE)
    texts = [message["content"] for dialogue in sample for message in dialogue.messages]
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(SPECIAL),
        show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )
    tokenizer.train_from_iterator(texts, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",  # noqa: S106 -- a token of another kind
        pad_token="<|endoftext|>",  # noqa: S106
        additional_special_tokens=["<|im_start|>"],
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = chat_template()
    fast.save_pretrained(folder)
    return fast


def encode(tokenizer: Any, dialogue: Dialogue) -> tuple[list[int], list[int]]:
    """Token ids of a dialogue, and the labels to learn from: the ids again, where the assistant speaks."""
    ids: list[int] = []
    labels: list[int] = []
    for text, learned in pieces(dialogue):
        part = tokenizer.encode(text, add_special_tokens=False)
        ids += part
        labels += part if learned else [_IGNORED] * len(part)
    return ids, labels


def batches(tokenizer: Any, seed: int) -> Iterator[list[tuple[list[int], list[int]]]]:
    """Batches of dialogues of about the same length, in random order."""
    source = dialogues(seed)
    rng = random.Random(seed)  # noqa: S311 -- reproducible, not secret
    while True:
        examples = [encode(tokenizer, dialogue) for dialogue in itertools.islice(source, BATCH * 16)]
        examples.sort(key=lambda example: len(example[0]))
        groups = [examples[start : start + BATCH] for start in range(0, len(examples), BATCH)]
        rng.shuffle(groups)
        yield from groups


def make_model(tokenizer: Any, seed: int) -> Any:
    """A Llama of 0.9 million random weights."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        max_position_embeddings=CONTEXT,
        rms_norm_eps=1e-5,
        rope_theta=10000.0,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **SHAPE,
    )
    return LlamaForCausalLM(config)


def learning_rate(step: int, steps: int) -> float:
    """Linear warm-up, then half a cosine down to a fiftieth."""
    decay = 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / steps))
    return LEARNING_RATE * min(1.0, (step + 1) / WARM_UP) * decay


def train(model: Any, tokenizer: Any, steps: int, seed: int) -> float:
    """Train for ``steps`` batches; returns the last loss."""
    import torch

    torch.set_num_threads(1)  # also much faster: the matrices are too small to share
    torch.use_deterministic_algorithms(True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.98), weight_decay=0.01)
    model.train()
    last = math.inf
    for step, batch in enumerate(itertools.islice(batches(tokenizer, seed), steps)):
        longest = max(len(ids) for ids, _ in batch)
        ids = torch.tensor([row + [0] * (longest - len(row)) for row, _ in batch])
        labels = torch.tensor([row + [_IGNORED] * (longest - len(row)) for _, row in batch])
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, steps)
        learned = labels[:, 1:] != _IGNORED
        # Padding stands behind the text and attention looks back only: no mask is needed. Plain f32: bfloat16 is faster
        # on the newest CPUs, many times slower on all others, and different on each.
        hidden = model.model(input_ids=ids).last_hidden_state[:, :-1]
        loss = torch.nn.functional.cross_entropy(model.lm_head(hidden[learned]), labels[:, 1:][learned])
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        last = float(loss.detach())
        if step % 100 == 0:
            _log.info("step %d of %d: loss %.4f", step, steps, last)
    model.eval()
    return last


def score(model: Any, tokenizer: Any, seed: int, count: int = 40) -> float:
    """Share of unseen first answers that come out exactly right, end token included."""
    import torch

    right = 0
    for dialogue in itertools.islice(dialogues(seed), count):
        first = next(at for at, message in enumerate(dialogue.messages) if message["role"] == "assistant")
        prompt = tokenizer.apply_chat_template(
            dialogue.messages[:first],
            tools=dialogue.tools or None,
            add_generation_prompt=True,
            return_tensors="pt",
            return_dict=True,
        )
        with torch.no_grad():
            made = model.generate(**prompt, max_new_tokens=80, do_sample=False)[0, prompt["input_ids"].shape[1] :]
        answer = tokenizer.decode(made, skip_special_tokens=True)
        ended = int(made[-1]) == tokenizer.eos_token_id
        right += ended and answer == dialogue.messages[first]["content"]
    return right / count


def build(out: Path, steps: int, seed: int) -> None:
    """Tokenizer, training, check, and both formats, below ``out``."""
    folder = out / "hf"
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = make_tokenizer(folder, seed)
    model = make_model(tokenizer, seed)
    _log.info("%d parameters", sum(weights.numel() for weights in model.parameters()))
    loss = train(model, tokenizer, steps, seed)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.generation_config.do_sample = False
    model.save_pretrained(folder)
    _log.info("loss %.4f, %.0f %% of unseen answers right", loss, 100 * score(model, tokenizer, seed + 99))


def main(words: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m asyncinfer.models.build", description=__doc__)
    parser.add_argument("out", type=Path, help="folder to write to: hf/ and tiny-*.gguf")
    parser.add_argument("--steps", type=int, default=1800, help="batches to train on")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--convert", action="store_true", help="train nothing: only write the GGUF of OUT/hf")
    parser.add_argument("--type", choices=TYPES, default="f16", help="number format of the GGUF")
    given = parser.parse_args(words)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if not given.convert:
        build(given.out, given.steps, given.seed)
    to_gguf(given.out / "hf", given.out / f"tiny-{given.type}.gguf", given.type)


if __name__ == "__main__":
    main()
