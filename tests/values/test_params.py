"""Parameters: defaults, rules, what was set explicitly, merging, secrets."""

from __future__ import annotations

import copy
import pickle
from dataclasses import dataclass

import pytest
from pydantic import BaseModel, SecretStr

from asyncinfer.errors import ConfigError
from asyncinfer.params import (
    GenerationParams,
    GuidedDecodingParams,
    InferenceConfig,
    InferenceEngineType,
    ModelParams,
    RemoteParams,
    merge,
)

SECRET = "sk-very-secret-1234"


def test_defaults_are_the_guides():
    generation = GenerationParams()
    assert (generation.max_new_tokens, generation.temperature, generation.top_p, generation.batch_size) == (
        256,
        0.0,
        1.0,
        1,
    )
    assert (generation.use_cache, generation.use_sampling, generation.num_beams, generation.min_p) == (
        False,
        False,
        1,
        0.0,
    )
    assert generation.skip_special_tokens
    assert generation.exclude_prompt_from_response
    assert (generation.stop_strings, generation.stop_token_ids, generation.logit_bias) == (None, None, {})
    remote = RemoteParams()
    assert (remote.max_retries, remote.connection_timeout, remote.num_workers) == (3, 20.0, 1)
    assert (remote.politeness_policy, remote.batch_completion_window) == (0.0, "24h")
    assert remote.use_adaptive_concurrency
    model = ModelParams()
    assert (model.model_name, model.adapter_model, model.device_map, model.model_kwargs) == (None, None, "auto", {})
    assert model.load_pretrained_weights
    assert not model.trust_remote_code
    for params in (generation, remote, model, InferenceConfig()):
        assert params.model_fields_set == set()


@pytest.mark.parametrize(
    ("make", "path", "words"),
    [
        (lambda: GenerationParams(temprature=1), "generation.temprature", "did you mean 'temperature'"),
        (lambda: GenerationParams(max_tokens=1), "generation.max_tokens", "did you mean 'max_new_tokens'"),
        (lambda: GenerationParams(temperature=-0.1), "generation.temperature", "at least 0"),
        (lambda: GenerationParams(temperature=float("inf")), "generation.temperature", "finite"),
        (lambda: GenerationParams(temperature=True), "generation.temperature", "a number, got true"),
        (lambda: GenerationParams(max_new_tokens=True), "generation.max_new_tokens", "a whole number, got true"),
        (lambda: GenerationParams(max_new_tokens=1.5), "generation.max_new_tokens", "a whole number"),
        (lambda: GenerationParams(max_new_tokens=0), "generation.max_new_tokens", "at least 1"),
        (lambda: GenerationParams(batch_size=0), "generation.batch_size", "at least 1"),
        (lambda: GenerationParams(top_p=1.1), "generation.top_p", "at most 1"),
        (lambda: GenerationParams(min_p=-1), "generation.min_p", "at least 0"),
        (lambda: GenerationParams(num_beams=0), "generation.num_beams", "at least 1"),
        (lambda: GenerationParams(logit_bias={"5": 101}), "generation.logit_bias.5", "at most 100"),
        (lambda: GenerationParams(logit_bias={5: -101}), "generation.logit_bias[5]", "at least -100"),
        (lambda: GenerationParams(stop_strings=[1]), "generation.stop_strings[0]", "expected text, got 1"),
        (lambda: GenerationParams(tool_choice="any"), "generation.tool_choice", "none, auto, required"),
        (lambda: GenerationParams(min_tokens=9, max_new_tokens=5), "generation", "min_new_tokens 9 is above"),
        (lambda: GenerationParams(guided_decoding={"jsn": 1}), "generation.guided_decoding.jsn", "did you mean 'json'"),
        (lambda: GuidedDecodingParams(json={}, regex="x"), "generation.guided_decoding", "json and regex"),
        (lambda: GuidedDecodingParams(json="[]"), "generation.guided_decoding.json", "holds a list"),
        (lambda: GuidedDecodingParams(json="{"), "generation.guided_decoding.json", "not valid JSON"),
        (lambda: GuidedDecodingParams(json=5), "generation.guided_decoding.json", "got a int"),
        (lambda: GuidedDecodingParams(choice=[]), "generation.guided_decoding", "choice is empty"),
        (lambda: RemoteParams(timeout=3), "remote_params.timeout", "did you mean 'connection_timeout'"),
        (lambda: RemoteParams(num_workers=0), "remote_params.num_workers", "at least 1"),
        (lambda: RemoteParams(max_retries=-1), "remote_params.max_retries", "at least 0"),
        (lambda: RemoteParams(connection_timeout=-1), "remote_params.connection_timeout", "at least 0"),
        (lambda: RemoteParams(requests_per_minute=0), "remote_params.requests_per_minute", "greater than 0"),
        (lambda: RemoteParams(politeness_policy=float("nan")), "remote_params.politeness_policy", "got nan"),
        (lambda: RemoteParams(retry_backoff_base=50), "remote_params", "retry_backoff_max 30.0 is below"),
        (lambda: RemoteParams(min_concurrency=5, max_concurrency=2), "remote_params", "min_concurrency 5 is above"),
        (lambda: RemoteParams(api_url="localhost:8000"), "remote_params.api_url", "http://"),
        (lambda: RemoteParams(api_key="**********"), "remote_params.api_key", "masked"),
        (
            lambda: RemoteParams(extra_headers={"a\r\nb": "c"}),
            "remote_params.extra_headers",
            "not the name of a header",
        ),
        (lambda: RemoteParams(extra_headers={"a": "b\nc"}), "remote_params.extra_headers", "line break"),
        (lambda: ModelParams(model_max_length=0), "model.model_max_length", "at least 1"),
        (lambda: ModelParams(torch_dtype_str="int3"), "model.torch_dtype_str", "bfloat16"),
        (lambda: ModelParams(processor_kwargs={"model_name": 1}), "model", "field of their own"),
        (lambda: InferenceConfig(temperature=1), "temperature", "belongs to 'generation'"),
        (lambda: InferenceConfig(engine="vlmm"), "engine", "did you mean 'VLLM'"),
        (lambda: InferenceConfig(generation={"seed": "x"}), "generation.seed", "a whole number"),
    ],
)
def test_a_mistake_names_path_and_remedy(make, path, words):
    with pytest.raises(ConfigError) as caught:
        make()
    assert caught.value.path == path
    assert words in str(caught.value)
    assert isinstance(caught.value, ValueError)


def test_assignment_is_checked_and_a_bad_one_changes_nothing():
    remote = RemoteParams(min_concurrency=3)
    with pytest.raises(ConfigError, match="above"):
        remote.max_concurrency = 1
    with pytest.raises(ConfigError, match="num_workers"):
        remote.num_workers = 0
    with pytest.raises(ConfigError, match="did you mean 'num_workers'"):
        remote.num_worker = 3  # type: ignore[attr-defined]
    assert (remote.max_concurrency, remote.num_workers) == (None, 1)
    assert remote.model_fields_set == {"min_concurrency"}
    remote.num_workers = 4
    assert remote.explicit() == {"num_workers": 4, "min_concurrency": 3}


def test_numbers_in_any_spelling():
    generation = GenerationParams(temperature="1e-3", max_new_tokens="1e3", seed=3.0, top_p="0.5")  # type: ignore[arg-type]
    assert (generation.temperature, generation.max_new_tokens, generation.seed, generation.top_p) == (
        0.001,
        1000,
        3,
        0.5,
    )
    assert GenerationParams(min_tokens=5).min_new_tokens == 5  # type: ignore[call-arg]
    assert GenerationParams(stop_strings="x").stop_strings == ["x"]  # type: ignore[arg-type]
    assert GenerationParams(logit_bias={5: 1, "6": 2}).logit_bias == {5: 1.0, "6": 2.0}


def test_changes_in_place_count_as_explicit():
    model = ModelParams()
    model.model_kwargs["n_ctx"] = 2048
    assert model.model_fields_set == {"model_kwargs"}
    config = InferenceConfig()
    config.generation.temperature = 0.5
    assert config.model_fields_set == {"generation"}
    assert merge(InferenceConfig(model=ModelParams(model_name="m")), config).generation.temperature == 0.5


def test_merge_takes_only_what_was_set():
    base = InferenceConfig(
        model=ModelParams(model_name="m", model_kwargs={"a": 1}),
        generation=GenerationParams(temperature=0.7, seed=1),
        remote_params=RemoteParams(num_workers=9),
    )
    before = base.to_str()
    assert merge(base, None) is base
    assert merge(base, InferenceConfig()) is base
    assert merge(base.generation, GenerationParams()) is base.generation
    merged = merge(
        base,
        InferenceConfig(
            model=ModelParams(adapter_model="lora"),
            generation=GenerationParams(temperature=0.0, guided_decoding=GuidedDecodingParams(regex="x")),
            remote_params=RemoteParams(max_retries=3),
        ),
    )
    assert (merged.model.model_name, merged.model.adapter_model, merged.model.model_kwargs) == ("m", "lora", {"a": 1})
    assert (merged.generation.temperature, merged.generation.seed) == (0.0, 1)
    assert merged.remote_params is not None
    assert merged.remote_params.explicit() == {"max_retries": 3, "num_workers": 9}
    assert base.to_str() == before
    shape = merge(merged.generation, GenerationParams(guided_decoding=GuidedDecodingParams(choice=["a"])))
    assert shape.guided_decoding is not None
    assert shape.guided_decoding.explicit() == {"choice": ["a"]}
    with pytest.raises(ConfigError, match="above"):
        merge(RemoteParams(min_concurrency=5), RemoteParams(max_concurrency=2))


def test_copies_and_pickles_remember_what_was_set():
    remote = RemoteParams(api_key=SECRET, num_workers=1)
    for clone in (copy.copy(remote), copy.deepcopy(remote), remote.model_copy(), pickle.loads(pickle.dumps(remote))):
        assert clone == remote
        assert clone.model_fields_set == {"api_key", "num_workers"}
        assert clone.resolve_api_key() == SECRET
    assert remote != RemoteParams(api_key="other", num_workers=1)


def test_a_secret_shows_nowhere(tmp_path):
    remote = RemoteParams(
        api_key=SecretStr(SECRET),
        extra_headers={"Authorization": f"Bearer {SECRET}", "X-Api-Key": SECRET, "X-Trace": "on"},
    )
    config = InferenceConfig(remote_params=remote)
    config.to_yaml(tmp_path / "c.yaml")
    shown = [repr(config), str(remote), f"{remote}", config.to_str(), (tmp_path / "c.yaml").read_text()]
    shown += [config.model_dump_json(), str(config.model_dump()), str(config.canonical()), str(config.explicit())]
    with pytest.raises(ConfigError) as caught:
        RemoteParams(api_key=[SECRET], extra_headers={"X-Key": [SECRET]})  # type: ignore[arg-type,dict-item]
    shown += [str(caught.value), repr(caught.value)]
    assert not [text for text in shown if SECRET in text]
    loaded = InferenceConfig.from_yaml(tmp_path / "c.yaml").remote_params
    assert loaded is not None
    assert loaded.explicit() == {"extra_headers": {"X-Trace": "on"}}


def test_the_key_comes_from_the_variable_that_is_named(monkeypatch):
    monkeypatch.setenv("MY_KEY", SECRET)
    assert RemoteParams(api_key_env_varname="MY_KEY").resolve_api_key() == SECRET
    assert RemoteParams(api_key="given", api_key_env_varname="MY_KEY").resolve_api_key() == "given"
    assert RemoteParams(api_key_env_varname="NOT_SET").resolve_api_key() is None
    assert RemoteParams().resolve_api_key() is None


def test_fingerprints_tell_answers_apart():
    one = GenerationParams(temperature=0.5, seed=1)
    assert one.fingerprint() == GenerationParams(seed=1, temperature="0.5").fingerprint()  # type: ignore[arg-type]
    assert one.fingerprint() != GenerationParams(seed=2, temperature=0.5).fingerprint()
    assert one.fingerprint() != GenerationParams(temperature=0.5).fingerprint()
    assert GenerationParams(temperature=0.0).fingerprint() != GenerationParams().fingerprint()
    assert RemoteParams(api_key="a").fingerprint() == RemoteParams(api_key="b").fingerprint()
    assert GenerationParams(logit_bias={5: 1, "6": 2}).canonical() == {"logit_bias": {"5": 1.0, "6": 2.0}}
    assert InferenceConfig(generation=GenerationParams()).canonical() == {}


class Answer(BaseModel):
    word: str


@dataclass
class Plain:
    word: str


def test_schemas_in_every_form():
    text = '{"type": "object"}'
    assert GuidedDecodingParams(json=text).json_schema() == {"type": "object"}
    assert GuidedDecodingParams(json={"type": "object"}).json_schema() == {"type": "object"}
    assert GuidedDecodingParams().json_schema() is None
    for kind in (Answer, Plain):
        guided = GuidedDecodingParams(json=kind)
        schema = guided.json_schema()
        assert schema is not None
        assert schema["properties"] == {"word": {"title": "Word", "type": "string"}}
        params = GenerationParams(guided_decoding=guided)
        assert params.canonical()["guided_decoding"]["json"] == schema
        assert params.fingerprint() == GenerationParams(guided_decoding=GuidedDecodingParams(json=schema)).fingerprint()
        loaded = InferenceConfig.from_str(InferenceConfig(generation=params).to_str())
        assert loaded.generation.guided_decoding is not None
        assert loaded.generation.guided_decoding.json == schema


@pytest.mark.parametrize("engine", list(InferenceEngineType))
def test_engine_names_in_any_spelling(engine):
    for text in (engine.name, engine.value, engine.name.lower(), engine.value.title(), engine.name.replace("_", "-")):
        assert InferenceEngineType(text) is engine
        assert InferenceConfig(engine=text).engine is engine


def test_more_engine_names():
    assert InferenceEngineType("llama_cpp") is InferenceEngineType("LlamaCpp") is InferenceEngineType.LLAMACPP
    assert InferenceEngineType("gemini") is InferenceEngineType.GOOGLE_GEMINI
    assert InferenceEngineType("remote_vllm") is InferenceEngineType.REMOTE_VLLM
    assert len(InferenceEngineType) == 20


def test_a_revision_has_its_own_field(caplog):
    kwargs = {"revision": "main", "x": 1}
    model = ModelParams(model_kwargs=kwargs)
    assert (model.model_revision, model.model_kwargs) == ("main", {"x": 1})
    assert kwargs == {"revision": "main", "x": 1}
    assert "model_revision" in caplog.text
    with pytest.raises(ConfigError, match="revision"):
        ModelParams(model_kwargs={"revision": "a"}, model_revision="b")
