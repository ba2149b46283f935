"""Configurations from YAML: the guide's examples, interpolation, overrides, errors with lines, round trips."""

from __future__ import annotations

import contextlib
import os
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncinfer.errors import ConfigError
from asyncinfer.params import InferenceConfig, InferenceEngineType, parse_overrides

GUIDE = {
    "structure": """
model:  # Model settings
  model_name: "meta-llama/Llama-3.1-8B-Instruct"
  trust_remote_code: true
  model_kwargs:
    device_map: "auto"
    torch_dtype: "float16"

generation:  # Generation parameters
  max_new_tokens: 100
  temperature: 0.7
  top_p: 0.9
  batch_size: 1

engine: "VLLM"  # VLLM, LLAMACPP, NATIVE, REMOTE_VLLM, etc.

remote_params:  # Optional remote settings
  api_url: "https://api.example.com/v1"
  api_key: "${API_KEY}"
  connection_timeout: 20.0
""",
    "model": """
model:
  model_name: "meta-llama/Llama-3.1-8B-Instruct"    # Model ID or path (REQUIRED)
  adapter_model: null
  tokenizer_name: null
  tokenizer_pad_token: null
  tokenizer_kwargs: {}
  model_max_length: null
  load_pretrained_weights: true
  trust_remote_code: false
  torch_dtype_str: "float32"
  device_map: "auto"
  compile: false
  attn_implementation: null
  enable_liger_kernel: false
  chat_template: null
  freeze_layers: []
  model_kwargs: {}
""",
    "lora": """
model:
  model_name: "meta-llama/Llama-3.1-8B-Instruct"  # Base model
  adapter_model: "path/to/lora/adapter"           # LoRA adapter path
""",
    "generation": """
generation:
  max_new_tokens: 256
  batch_size: 1
  exclude_prompt_from_response: true
  seed: null
  temperature: 0.0
  top_p: 1.0
  frequency_penalty: 0.0
  presence_penalty: 0.0
  stop_strings: null
  stop_token_ids: null
  logit_bias: {}
  min_p: 0.0
  use_cache: false
  num_beams: 1
  use_sampling: false
  guided_decoding: null
  skip_special_tokens: true
""",
    "remote": """
remote_params:
  api_url: "https://api.example.com/v1"   # Required: URL of the API endpoint
  api_key: "your-api-key"                 # API key for authentication
  api_key_env_varname: null
  max_retries: 3
  connection_timeout: 20.0
  num_workers: 1
  politeness_policy: 0.0
  batch_completion_window: "24h"
  use_adaptive_concurrency: True
""",
    "paths": "input_path: null    # JSONL\noutput_path: null   # Path to save generated outputs\n",
    "cli": """
model:
  model_name: "meta-llama/Llama-3.1-8B-Instruct"
  model_kwargs:
    device_map: "auto"
    torch_dtype: "float16"

generation:
  max_new_tokens: 100
  temperature: 0.7
  top_p: 0.9
  batch_size: 1

engine: "VLLM"
""",
    "quantized": """
model:
  model_name: "model.gguf"

engine: "llamacpp"

generation:
  temperature: 0.7
  batch_size: 1
""",
}


@pytest.mark.parametrize("name", GUIDE)
def test_the_guides_examples_load(name, monkeypatch, caplog):
    monkeypatch.setenv("API_KEY", "sk-1")
    config = InferenceConfig.from_str(GUIDE[name])
    assert config.model_fields_set
    assert not caplog.records
    again = InferenceConfig.from_str(config.to_str())
    assert again.to_str() == config.to_str()
    if name != "remote":  # there the key stands in the file; it is not written again
        assert again == config
    if name == "structure":
        assert config.engine is InferenceEngineType.VLLM
        assert config.model.model_kwargs == {"device_map": "auto", "torch_dtype": "float16"}
        assert config.remote_params is not None
        assert config.remote_params.resolve_api_key() == "sk-1"
        assert "${API_KEY}" in config.to_str()
        assert "sk-1" not in config.to_str()
    if name == "generation":
        assert config.generation.model_fields_set >= {"seed", "top_p", "guided_decoding"}
    if name == "quantized":
        assert config.engine is InferenceEngineType.LLAMACPP


def test_training_keys_are_ignored_with_one_note(caplog):
    config = InferenceConfig.from_str(
        "model: {model_name: m, freeze_layers: [a], enable_liger_kernel: true, shard_for_eval: true}\n"
        "training: {output_dir: x}\ndata: {train: []}\npeft: {lora_r: 8}\n"
    )
    assert config.model.model_name == "m"
    assert len(caplog.records) == 1
    for key in ("training", "data", "peft", "freeze_layers", "enable_liger_kernel", "shard_for_eval"):
        assert key in caplog.text


def test_empty_things():
    for text in ("", "# nothing\n", "model:\ngeneration:\nremote_params:\n", "{}"):
        config = InferenceConfig.from_str(text)
        assert config == InferenceConfig()
    assert InferenceConfig().to_str() == "{}\n"


def test_files(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_bytes("\ufeffmodel: {model_name: naïve}\n".encode())
    config = InferenceConfig.from_yaml(path, ["--seed", "42"])
    assert (config.model.model_name, config.generation.seed) == ("naïve", 42)
    config.to_yaml(str(path))
    assert InferenceConfig.from_yaml(str(path)) == config
    for bad in (tmp_path / "none.yaml", tmp_path):
        with pytest.raises(ConfigError, match="cannot be read"):
            InferenceConfig.from_yaml(bad)
    with pytest.raises(ConfigError, match="cannot be written"):
        config.to_yaml(tmp_path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="UTF-8"):
        InferenceConfig.from_yaml(path)


def test_yaml_traps():
    config = InferenceConfig.from_str(
        "model:\n  model_name: 1e5\n  chat_template: no\n  model_kwargs: {a: 1e-3, b: yes, c: 2024-01-01, d: 12:30,"
        " e: 0x10, on: 1, f: 1_000, g: .5, h: ~}\n"
        "generation:\n  temperature: 1e-3\n  max_new_tokens: 1e3\n  stop_strings: [no, 1.10, null-ish]\n"
        "  use_cache: yes\n  logit_bias: {50256: -100}\n  guided_decoding: {choice: [yes, no]}\n"
        "remote_params: {api_key: 0123, extra_headers: {X-V: 1.10}}\n"
    )
    assert (config.model.model_name, config.model.chat_template) == ("1e5", "no")
    assert config.model.model_kwargs == {
        "a": 0.001, "b": True, "c": "2024-01-01", "d": "12:30", "e": 16, "on": 1, "f": 1000, "g": 0.5, "h": None,
    }  # fmt: skip
    assert (config.generation.temperature, config.generation.max_new_tokens) == (0.001, 1000)
    assert config.generation.stop_strings == ["no", "1.10", "null-ish"]
    assert config.generation.use_cache is True
    assert config.generation.logit_bias == {50256: -100.0}
    assert config.generation.guided_decoding is not None
    assert config.generation.guided_decoding.choice == ["yes", "no"]
    assert config.remote_params is not None
    assert config.remote_params.resolve_api_key() == "0123"
    assert config.remote_params.extra_headers == {"X-V": "1.10"}


def test_anchors_and_merges():
    config = InferenceConfig.from_str(
        "model:\n  tokenizer_kwargs: &a {x: 1, y: 2}\n  processor_kwargs: *a\n  model_kwargs: {<<: *a, y: 3}\n"
        "  chat_template_kwargs:\n    <<: [{p: 1}, {p: 2, q: 3}]\n"
    )
    assert config.model.model_kwargs == {"x": 1, "y": 3}
    assert config.model.processor_kwargs == {"x": 1, "y": 2}
    assert config.model.chat_template_kwargs == {"p": 1, "q": 3}
    bomb = "model:\n  model_kwargs:\n    a0: &a0 [x, x]\n" + "".join(
        f"    a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12)
    )
    with pytest.raises(ConfigError, match="alias"):
        InferenceConfig.from_str(bomb)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [", "c.yaml: line 1, column 5: not valid YAML"),
        ("generation:\n\ttop_p: 1", "c.yaml: line 2, column 1"),
        ("model:\n  model_nam: x\n", "model.model_nam (line 2 of c.yaml): unknown key; did you mean 'model_name'?"),
        ("temperature: 1", "temperature (line 1 of c.yaml): unknown key here; 'temperature' belongs to 'generation'"),
        ("remote: {api_url: x}", "did you mean 'remote_params'"),
        (
            "generation:\n\n  temperature: hot",
            "generation.temperature (line 3 of c.yaml): expected a number, got 'hot'",
        ),
        (
            "generation:\n  stop_strings:\n  - a\n  - {b: 1}",
            "generation.stop_strings[1] (line 4 of c.yaml): expected text",
        ),
        ("generation:\n  seed: 1\n  seed: 2", "line 3 of c.yaml: 'generation.seed' was already set in line 2"),
        ("generation: 5", "generation (line 1 of c.yaml): expected a mapping"),
        ("engine: vllmm", "did you mean 'VLLM'"),
        ("- a", "expected sections"),
        ("model: {model_name: m}\n---\nmodel: {}", "found another document"),
        ("a: &a [*a]", "contains itself"),
        ("!!python/object/apply:os.system [x]", "not plain data"),
        ("model: !!python/name:os.system x", "not plain data"),
        ("? [a]\n: b", "a key must be"),
        ("model: {a: ${X}}", "put ${...} in quotes"),
        ("x: " + "[" * 5000, "nested too deeply"),
        (
            "generation:\n  seed: ${NOT_SET}",
            "generation.seed (line 2 of c.yaml): the environment variable NOT_SET is not set",
        ),
        ("generation:\n  seed: ${oc.env:NOT_SET}", "environment variable NOT_SET"),
        ("generation:\n  seed: ${foo bar}", "'${foo bar}' is not understood"),
        ("generation:\n  seed: ${oc.decode:x}", "is not understood"),
        ("generation:\n  seed: ${a.b}", "refers to a key that is not set here"),
        ("generation:\n  seed: ${", "never closed"),
        ("generation:\n  seed: ${generation.top_k}\n  top_k: ${generation.seed}", "refers to itself"),
        ("generation:\n  extra_body: {a: '${generation.extra_body}'}", "itself"),
    ],
)
def test_a_fault_names_path_line_and_remedy(text, words, monkeypatch):
    monkeypatch.delenv("NOT_SET", raising=False)
    with pytest.raises(ConfigError) as caught:
        InferenceConfig.from_str(text, name="c.yaml")
    assert words in str(caught.value)


@pytest.mark.parametrize("quote", ["", "'", '"'])
@pytest.mark.parametrize("form", ["${VALUE}", "${oc.env:VALUE}", "${ oc.env:VALUE , 9 }", "${oc.env:UNSET,0.25}"])
def test_interpolation_works_in_any_quotes(quote, form, monkeypatch):
    monkeypatch.setenv("VALUE", "0.25")
    monkeypatch.delenv("UNSET", raising=False)
    written = f"{quote}{form}{quote}"
    config = InferenceConfig.from_str(
        f"generation:\n  temperature: {written}\n  stop_strings:\n  - {written}\n  extra_body:\n    a: {written}\n"
        f"model:\n  model_name: {quote}x-{form}-{form}{quote}\n"
    )
    assert config.generation.temperature == 0.25
    assert config.generation.stop_strings == ["0.25"]
    assert config.generation.extra_body == {"a": 0.25}
    assert config.model.model_name == "x-0.25-0.25"
    assert form in config.to_str()


def test_interpolated_values_have_the_type_that_is_wanted(monkeypatch):
    monkeypatch.setenv("N", "7")
    monkeypatch.setenv("OCT", "007")
    monkeypatch.setenv("YES", "true")
    monkeypatch.setenv("BRACES", "${N} {{ x }}")
    monkeypatch.delenv("UNSET", raising=False)
    config = InferenceConfig.from_str(
        "model: {model_kwargs: {n: '${N}', o: '${OCT}', y: '${YES}', t: 'a${N}b', d: '${oc.env:UNSET,null}',"
        " s: \"${oc.env:UNSET,'7'}\", l: '${oc.env:UNSET,[1,a]}', nest: '${oc.env:UNSET,${oc.env:N}}', e: '${BRACES}'},"
        " trust_remote_code: '${YES}', model_name: '${N}', adapter_model: '${oc.env:UNSET,null}'}\n"
        "generation: {seed: '${N}', top_k: '${generation.seed}', reasoning_effort: '${model.model_name}'}\n"
        "remote_params: {user_id: '${OCT}', api_key: '${N}', num_workers: '${oc.env:UNSET,3}'}\n"
    )
    assert config.model.model_kwargs == {
        "n": 7, "o": "007", "y": True, "t": "a7b", "d": None, "s": "7", "l": [1, "a"], "nest": 7, "e": "${N} {{ x }}",
    }  # fmt: skip
    assert (config.model.model_name, config.model.adapter_model, config.model.trust_remote_code) == ("7", None, True)
    assert (config.generation.seed, config.generation.top_k, config.generation.reasoning_effort) == (7, 7, "7")
    assert config.remote_params is not None
    assert (config.remote_params.user_id, config.remote_params.num_workers) == ("007", 3)
    assert config.remote_params.resolve_api_key() == "7"


def test_templates_survive():
    template = "{% for m in messages %}{{ '<|' ~ m['role'] }} $5 {x} }} $${a} {% endfor %}"
    config = InferenceConfig.from_str(f'model:\n  chat_template: "{template}"\n')
    assert config.model.chat_template == template.replace("$${", "${")
    assert InferenceConfig.from_str(config.to_str()) == config


def test_what_came_from_the_environment_goes_back_as_it_came(monkeypatch):
    monkeypatch.setenv("KEY", "sk-1")
    monkeypatch.setenv("HOST", "h")
    text = (
        "generation:\n  seed: ${oc.env:SEED,5}\nremote_params:\n  api_url: http://${HOST}/v1\n  api_key: ${KEY}\n"
        "  extra_headers:\n    Authorization: Bearer ${KEY}\n"
    )
    config = InferenceConfig.from_str(text)
    assert config.to_str() == text
    assert config.model_copy(deep=True).to_str() == text
    assert config.remote_params is not None
    assert "api_key: ${KEY}\n" in config.remote_params.model_copy().to_str()
    config.remote_params.api_key = "other"  # type: ignore[assignment]
    config.generation.seed = 6
    assert "seed: 6\n" in config.to_str()
    assert "api_key" not in config.to_str()


def test_overrides():
    config = InferenceConfig.from_str(
        "model: {model_name: a, model_kwargs: {x: 1}}\ngeneration: {stop_strings: [a, b]}\nremote_params:\n",
        [
            "--generation.temperature", "0.2",
            "--generation.presence_penalty", "-0.5",
            "--model.model_kwargs.tensor_parallel_size", "4",
            "--model.model_kwargs.deep.er=[1, {a: b}]",
            "--model.model_kwargs.list[0]", "x",
            "--model.trust-remote-code",
            "model.device_map=cuda:0,cuda:1",
            "--generation.stop_strings.0", "a # b",
            "--generation.stop_strings[2]", "c",
            "--generation.stop_token_ids", "[1, 2]",
            "--remote_params.num_workers", "8",
            "--remote_params.api_url=http://h/v1?a=b",
            "--seed", "42",
            "--max-new-tokens", "10",
            "--engine", "llamacpp",
            "-output_path", "out.jsonl",
            "--local-rank", "0",
            "--model.model_name", "123",
            "--model.chat_template", "{% if x %}[",
            "--model.adapter_model", "null",
        ],
    )  # fmt: skip
    assert config.generation.explicit() == {
        "max_new_tokens": 10, "seed": 42, "temperature": 0.2, "presence_penalty": -0.5,
        "stop_strings": ["a # b", "b", "c"], "stop_token_ids": [1, 2],
    }  # fmt: skip
    assert config.model.explicit() == {
        "model_name": "123", "adapter_model": None, "trust_remote_code": True, "chat_template": "{% if x %}[",
        "device_map": "cuda:0,cuda:1",
        "model_kwargs": {"x": 1, "tensor_parallel_size": 4, "deep": {"er": [1, {"a": "b"}]}, "list": ["x"]},
    }  # fmt: skip
    assert config.remote_params is not None
    assert config.remote_params.explicit() == {"num_workers": 8, "api_url": "http://h/v1?a=b"}
    assert (config.engine, config.output_path) == (InferenceEngineType.LLAMACPP, "out.jsonl")


def test_overrides_are_interpolated_too(monkeypatch):
    monkeypatch.setenv("KEY", "sk-1")
    config = InferenceConfig.from_str("", parse_overrides(["--remote_params.api_key", "${KEY}"]))
    assert config.remote_params is not None
    assert config.remote_params.resolve_api_key() == "sk-1"
    assert "${KEY}" in config.to_str()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--generation.temprature", "1"], "--generation.temprature: unknown key; did you mean"),
        (["--temprature", "1"], "--temprature: there is no such key; did you mean --generation.temperature?"),
        (["--nonsense.x", "1"], "--nonsense.x: there is no such key"),
        (["--generation.seed", "x"], "--generation.seed: expected a whole number, got 'x'"),
        (["--seed", "x"], "generation.seed (--seed): expected a whole number, got 'x'"),
        (["--generation.max-new-tokens", "x"], "--generation.max-new-tokens: expected a whole number"),
        (["generation.seed=x"], "generation.seed: expected a whole number"),
        (["--generation.seed"], "--generation.seed needs a value"),
        (["--model.model_name", "engine=openai"], "--model.model_name needs a value"),
        (["--generation.stop_strings", "[a"], "--generation.stop_strings: '[a' is line 1"),
        (["--generation.stop_strings.3", "x"], "--generation.stop_strings.3: the list has 0 values"),
        (["--model.model_name.x", "1"], "model.model_name (--model.model_name.x): expected text"),
        (["--engine.x", "1", "--engine.x.y", "2"], "--engine.x.y: there is no 'y' in it"),
        (["stray"], "'stray': expected --section.key value"),
        (["--a..b", "1"], "expected --section.key value"),
        (["--generation.seed=${NOT_SET_HERE}"], "--generation.seed: the environment variable NOT_SET_HERE"),
    ],
)
def test_a_bad_override_names_its_flag(words, expected):
    with pytest.raises(ConfigError) as caught:
        InferenceConfig.from_str("", words)
    assert str(caught.value).startswith(expected) or words[0] in {"stray", "--a..b"}
    assert expected in str(caught.value)


def test_values_that_yaml_lacks_are_named():
    config = InferenceConfig(model={"model_kwargs": {"a": [object()]}})  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"model\.model_kwargs\.a\[0\]: a object cannot be written"):
        config.to_str()


TEXT = st.text(max_size=12)
NUMBER = st.floats(min_value=0, max_value=1, allow_nan=False)
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=5,
)
MAPPING = st.dictionaries(TEXT, PLAIN, max_size=3)


def some(**fields):
    return st.fixed_dictionaries({}, optional=fields)


CONFIG = some(
    model=some(
        model_name=TEXT | st.none(),
        chat_template=TEXT
        | st.sampled_from(["no", "1e5", "null", "~", "12:30", "${X}", "$${", "<<", "=", "- a", "{%"]),
        model_kwargs=MAPPING,
        trust_remote_code=st.booleans(),
        freeze_layers=st.lists(TEXT, max_size=2),
    ),
    generation=some(
        temperature=NUMBER,
        top_p=NUMBER | st.none(),
        seed=st.integers() | st.none(),
        stop_strings=st.lists(TEXT, max_size=3) | st.none(),
        logit_bias=st.dictionaries(st.integers() | st.text(min_size=1), st.floats(-100, 100), max_size=3),
        extra_body=MAPPING,
        guided_decoding=some(json=MAPPING) | some(choice=st.lists(TEXT, min_size=1, max_size=3)) | st.none(),
    ),
    engine=st.sampled_from(InferenceEngineType) | st.none(),
    input_path=TEXT | st.none(),
    remote_params=some(
        num_workers=st.integers(1, 99),
        connection_timeout=NUMBER,
        extra_headers=st.dictionaries(st.sampled_from(["X-A", "x-b"]), st.sampled_from(["1", "no", "a b", ""])),
    ),
)


@settings(deadline=None)
@given(CONFIG.filter(lambda data: "revision" not in data.get("model", {}).get("model_kwargs", {})))
def test_any_configuration_round_trips(data):
    config = InferenceConfig(**data)
    text = config.to_str()
    again = InferenceConfig.from_str(text)
    assert again == config
    assert again.to_str() == text
    assert again.fingerprint() == config.fingerprint()
    assert again.canonical() == config.canonical()


@settings(deadline=None)
@given(st.text(alphabet="${}a.:,oc env\n'\"") | TEXT)
def test_any_text_survives_writing_and_filling_in(text):
    config = InferenceConfig.from_str(InferenceConfig(generation={"stop_strings": [text]}).to_str())  # type: ignore[arg-type]
    assert config.generation.stop_strings == [text]


NO_NUL = st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), max_size=12)


@settings(deadline=None)
@given(NO_NUL, NO_NUL.filter(lambda text: "$" not in text), NO_NUL.filter(lambda text: "$" not in text))
def test_any_variable_fills_in_as_it_is(value, before, after):
    written = InferenceConfig(model={"chat_template": "PLACE"}, input_path=f"{before}PLACE{after}").to_str()  # type: ignore[arg-type]
    with mock.patch.dict(os.environ, {"ANY": value}):
        text = written.replace("chat_template: PLACE", "chat_template: ${ANY}")
        if f"{before}{after}".count("PLACE") == 0:
            text = text.replace("PLACE", "${ANY}")
        config = InferenceConfig.from_str(text)
        assert config.model.chat_template == value
        assert config.input_path == f"{before}{value}{after}"
        assert InferenceConfig.from_str(config.to_str()) == config


@settings(deadline=None)
@given(st.text(alphabet=st.sampled_from("ab:-[]{},&*!|>'\"%@`#\n\t $?~<=1.e"), max_size=30))
def test_any_yaml_loads_or_is_a_config_error(text):
    for source in (text, f"model:\n  model_kwargs: {text}"):
        with contextlib.suppress(ConfigError):
            InferenceConfig.from_str(source)


@settings(deadline=None)
@given(
    st.lists(
        st.text(alphabet="-=ab.[]0 {'", max_size=8) | st.sampled_from(["--model.model_kwargs.a", "--seed"]), max_size=4
    )
)
def test_any_words_are_overrides_or_a_config_error(words):
    with contextlib.suppress(ConfigError):
        InferenceConfig.from_str("", words)


@settings(deadline=None)
@given(NO_NUL, st.integers(), NUMBER)
def test_any_text_and_number_can_be_given_as_override(text, number, share):
    words = ["--generation.seed", str(number), f"--top_p={share!r}", f"--model.model_kwargs.n={number}"]
    config = InferenceConfig.from_str("", words)
    assert (config.generation.seed, config.generation.top_p) == (number, share)
    assert config.model.model_kwargs == {"n": number}
    plain = text.strip()
    if "$" not in text and plain[:1] not in {"'", '"'} and plain.lower() not in {"", "~", "null"}:
        assert InferenceConfig.from_str("", [f"--model.model_name={text}"]).model.model_name == text
