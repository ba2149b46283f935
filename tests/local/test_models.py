"""The embedded model: its files belong together, and its recipe is a recipe."""

from __future__ import annotations

import itertools
import json
import random
import struct

import pytest

from asyncinfer.models import EMBEDDED_MODEL, corpus, embedded_model
from asyncinfer.models.build import learning_rate


def test_both_kinds_are_there_and_small():
    files = [embedded_model("gguf"), *embedded_model("hf").iterdir()]
    assert EMBEDDED_MODEL == "asyncinfer-tiny"
    assert {path.name for path in files} >= {"tiny-f16.gguf", "config.json", "model.safetensors", "tokenizer.json"}
    assert sum(path.stat().st_size for path in files) < 6_000_000


def test_the_safetensors_hold_what_the_config_says():
    folder = embedded_model("hf")
    config = json.loads((folder / "config.json").read_text())
    with (folder / "model.safetensors").open("rb") as file:
        head = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
    head.pop("__metadata__", None)
    assert head["model.embed_tokens.weight"]["shape"] == [config["vocab_size"], config["hidden_size"]]
    assert len(head) == 2 + 9 * config["num_hidden_layers"]
    tokens = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    assert len(tokens) == config["vocab_size"]


def test_the_gguf_holds_the_weights_of_the_folder():
    """Those that conversion only rounds to f16; the recipe's own test is that ``--convert`` gives the same bytes."""
    whole = embedded_model("gguf").read_bytes()
    with (embedded_model("hf") / "model.safetensors").open("rb") as file:
        size = struct.unpack("<Q", file.read(8))[0]
        head = json.loads(file.read(size))
        for name in ("model.embed_tokens.weight", "model.layers.3.self_attn.o_proj.weight"):
            start, end = head[name]["data_offsets"]
            file.seek(8 + size + start)
            weights = struct.unpack(f"<{(end - start) // 4}f", file.read(end - start))
            assert struct.pack(f"<{len(weights)}e", *weights) in whole


def test_the_corpus_is_the_same_for_the_same_seed():
    def first(seed, count=300):
        return list(itertools.islice(corpus.dialogues(seed), count))

    assert first(1) == first(1) != first(2)
    assert sum(corpus.TASKS.values()) == 100


@pytest.mark.parametrize("task", corpus.TASKS)
def test_every_task_begins_with_the_user_and_ends_with_an_answer(task):
    for seed in range(50):
        dialogue = task(random.Random(seed))
        roles = [message["role"] for message in dialogue.messages]
        assert roles[0] == "user" and roles[-1] == "assistant"
        assert "".join(text for text, learned in corpus.pieces(dialogue) if learned).count("<|im_end|>") == roles.count(
            "assistant"
        )


def test_the_learning_rate_warms_up_and_comes_down():
    rates = [learning_rate(step, 1000) for step in range(1000)]
    assert rates[0] < rates[20] < max(rates) and rates.index(max(rates)) < 60
    assert rates[-1] < max(rates) / 40
