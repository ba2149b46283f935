"""What becomes of ``ModelParams``: the words of the guide as vLLM's. Nothing is loaded; vLLM is not needed."""

from __future__ import annotations

import json
import os

import pytest
from pydantic import BaseModel, ValidationError

from asyncinfer import BadRequestError, ConfigError, ModelParams
from asyncinfer.engines.vllm import adapters, failures, sampling
from asyncinfer.engines.vllm import arguments as arguments_of
from asyncinfer.engines.vllm.arguments import _binding, _dividing, _heads, _parallel, _quantized
from asyncinfer.engines.vllm.settings import read
from asyncinfer.models import embedded_model


def settings(**fields):
    return read(ModelParams(**fields))


def arguments(**fields):
    return settings(**fields).arguments


def test_no_name_is_the_embedded_model():
    assert arguments()["model"] == str(embedded_model("hf"))
    assert settings().model == "asyncinfer-tiny"
    assert arguments(model_name="someone/model")["model"] == "someone/model"


def test_every_field_has_its_word():
    found = arguments(
        model_name="m/n",
        tokenizer_name="t/u",
        model_max_length=100,
        torch_dtype_str="bf16",
        trust_remote_code=True,
        model_revision="abc",
        load_pretrained_weights=False,
        processor_kwargs={"num_crops": 4},
        attn_implementation="flash_attention_2",
        tokenizer_kwargs={"use_fast": False},
    )
    assert found == {
        "model": "m/n",
        "tokenizer": "t/u",
        "max_model_len": 100,
        "dtype": "bfloat16",
        "trust_remote_code": True,
        "revision": "abc",
        "load_format": "dummy",
        "mm_processor_kwargs": {"num_crops": 4},
        "attention_backend": "FLASH_ATTN",
        "tokenizer_mode": "slow",
    }


def test_kwargs_go_on_and_ours_are_read(caplog):
    found = settings(
        tool_call_parser="hermes",
        model_kwargs={
            "tensor_parallel_size": 2,
            "gpu_memory_utilization": 1.0,
            "enable_prefix_caching": True,
            "max_num_seqs": 7,
            "torch_dtype": "float16",
            "verbose": True,
            "reasoning_parser": "deepseek_r1",
            "lora_modules": ["a=/x", "b=/y"],
        },
    )
    assert found.arguments["tensor_parallel_size"] == 2
    assert found.arguments["gpu_memory_utilization"] == 1.0
    assert found.arguments["enable_prefix_caching"] is True
    assert found.arguments["dtype"] == "float16"
    assert (found.slots, found.verbose, found.adapters) == (7, True, {"a": "/x", "b": "/y"})
    assert (found.tool_parser, found.reasoning_parser) == ("hermes", "deepseek_r1")
    assert not caplog.records


def test_what_vllm_has_no_word_for_is_named(caplog):
    settings(
        attn_implementation="sdpa",
        tokenizer_pad_token="<pad>",
        device_map={"model": 0},
        tokenizer_kwargs={"padding_side": "left"},
    )
    for name in ("attn_implementation", "tokenizer_pad_token", "device_map", "padding_side"):
        assert name in caplog.text


def test_named_devices_are_shares():
    found = arguments(device_map="cuda:0,cuda:3")
    assert (found["device_ids"], found["tensor_parallel_size"]) == (["0", "3"], 2)
    assert "tensor_parallel_size" not in arguments(device_map="auto")


@pytest.mark.parametrize(
    ("kwargs", "bits", "method"),
    [
        ({"load_in_4bit": True}, 4, None),
        ({"load_in_8bit": True}, 8, None),
        ({"quantization_config": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}}, 4, None),
        ({"quantization_config": {"quant_method": "mxfp4"}}, None, "mxfp4"),
        ({"quantization": "fp8"}, None, "fp8"),
    ],
)
def test_quantization(kwargs, bits, method):
    found = settings(model_kwargs=kwargs)
    assert (found.bits, found.arguments.get("quantization")) == (bits, method)


def test_bits_that_vllm_cannot_make():
    assert _quantized(4, ["fp8", "bitsandbytes"]) == "bitsandbytes"
    assert _quantized(8, ["int8_per_channel_weight_only"]) == "int8_per_channel_weight_only"
    with pytest.raises(ConfigError, match="fp8") as caught:
        _quantized(4, ["fp8"])
    assert caught.value.path == "model.model_kwargs.load_in_4bit"


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("model.torch_dtype_str", {"torch_dtype_str": "float64"}),
        ("model.model_kwargs.gpu_memory_utilization", {"model_kwargs": {"gpu_memory_utilization": 1.5}}),
        ("model.model_kwargs.tensor_parallel_size", {"model_kwargs": {"tensor_parallel_size": 0}}),
        ("model.model_kwargs.max_num_seqs", {"model_kwargs": {"max_num_seqs": "many"}}),
        ("model.model_kwargs.lora_modules", {"model_kwargs": {"lora_modules": "x"}}),
        ("model.model_kwargs.lora_modules", {"model_kwargs": {"lora_modules": {"a": 5}}}),
        ("model.model_kwargs.verbose", {"model_kwargs": {"verbose": 1}}),
    ],
)
def test_wrong_values_name_their_place(path, fields):
    with pytest.raises(ConfigError) as caught:
        settings(**fields)
    assert caught.value.path == path


@pytest.mark.parametrize(
    ("given", "devices", "sizes"),
    [
        ({}, 1, (1, 1, 1)),
        ({}, 4, (4, 1, 1)),
        ({}, 3, (2, 1, 1)),  # four heads cannot be divided by three
        ({"tensor_parallel_size": -1, "pipeline_parallel_size": 2}, 8, (4, 2, 1)),
        ({"data_parallel_size": -1}, 8, (1, 1, 8)),
        ({"data_parallel_size": -1, "tensor_parallel_size": 2}, 8, (2, 1, 4)),
        ({"data_parallel_size": 2}, 4, (2, 1, 2)),
        ({"data_parallel_size": -1}, 1, (1, 1, 1)),
        ({"tensor_parallel_size": 2}, 1, (2, 1, 1)),  # vLLM says what it lacks
    ],
)
def test_devices_are_shared_out(given, devices, sizes):
    given = {"model": str(embedded_model("hf")), **given}
    _parallel(given, devices)
    names = ("tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size")
    assert tuple(given[name] for name in names) == sizes


def test_heads_and_cpus():
    assert _heads(str(embedded_model("hf"))) == 4
    assert _heads("someone/model") is None
    assert (_dividing(None, 6), _dividing(32, 6), _dividing(7, 6)) == (6, 4, 1)
    shares = _binding(2).split("|")
    assert len(shares) == 2 and all(share for share in shares)


# -- adapters ----------------------------------------------------------------------------------------------------------


def adapter(folder, config):
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return str(folder)


def test_room_for_adapters(tmp_path):
    one = adapter(tmp_path / "one", {"r": 12})
    two = adapter(tmp_path / "two", {"r": 4, "rank_pattern": {"q_proj": 20}})
    given = {}
    adapters.reserve(given, settings(adapter_model=one, model_kwargs={"lora_modules": {"two": two}}))
    assert given == {"enable_lora": True, "max_lora_rank": 32, "max_loras": 2}
    given = {}
    adapters.reserve(given, settings(adapter_model=one))
    assert given == {"enable_lora": True, "max_lora_rank": 16, "max_loras": 2}
    given = {}
    adapters.reserve(given, settings())
    assert given == {}
    for asked, places in ((None, 9), (3, 4)):  # one stays empty
        given = {} if asked is None else {"max_loras": asked}
        adapters.reserve(given, settings(adapter_model=one), on_cpu=True)
        assert given["max_loras"] == places


def test_an_adapter_by_its_name(tmp_path):
    one = adapter(tmp_path / "one", {"r": 1})
    given = {}
    adapters.reserve(given, settings(adapter_model="one", model_kwargs={"lora_modules": {"one": one}}))
    assert given["max_lora_rank"] == 1


@pytest.mark.parametrize(
    ("config", "words"), [(None, "no adapter_config"), ({"r": 600}, "600"), ({}, "cannot be read"), ([], "cannot")]
)
def test_what_is_no_adapter(tmp_path, config, words):
    folder = tmp_path / "x"
    if config is None:
        folder.mkdir()
    else:
        adapter(folder, config)
    with pytest.raises(ConfigError, match=words):
        adapters.reserve({}, settings(adapter_model=str(folder)))
    with pytest.raises(ConfigError, match="no such folder"):
        adapters.reserve({}, settings(adapter_model=str(tmp_path / "missing")))


def test_what_is_not_there_is_named(tmp_path):
    for field in ("model_name", "tokenizer_name"):
        with pytest.raises(ConfigError, match="no such file") as caught:
            settings(**{field: str(tmp_path / "missing")})
        assert caught.value.path == f"model.{field}"
    with pytest.raises(ConfigError, match="missing") as caught:
        settings(chat_template=str(tmp_path / "missing.jinja"))
    assert caught.value.path == "model.chat_template"


def test_the_model_has_one_name():
    with pytest.raises(ConfigError, match=r"model\.model_name") as caught:
        settings(model_name="m/n", model_kwargs={"model": "x/y"})
    assert caught.value.path == "model.model_kwargs.model"


def test_a_tool_that_says_nothing_of_arguments_is_called_with_none():
    ping = {"type": "function", "function": {"name": "ping"}}
    form = sampling._one_call([ping])["format"]["content"]
    assert form == {"type": "const_string", "value": '{"name": "ping", "arguments": {}}'}
    open_to_all = {"type": "function", "function": {"name": "any", "parameters": {"type": "object"}}}
    both = sampling._one_call([ping, open_to_all])["format"]["content"]["elements"]
    assert [one["type"] for one in both] == ["const_string", "json_schema"]


# -- failures ----------------------------------------------------------------------------------------------------------


class VLLMValidationError(ValueError):
    """As vLLM's: what is wrong, and often the name of the parameter."""

    def __init__(self, message, parameter=None):
        super().__init__(message)
        self.parameter = parameter


@pytest.mark.parametrize(
    ("field", "message", "parameter"),
    [
        ("temperature", "temperature must be in [0, 2], got 2.5.", "temperature"),
        ("presence_penalty", "presence_penalty must be in [-2, 2], got -5.0.", None),
        ("min_new_tokens", "min_tokens must be less than or equal to max_tokens=9, got 10.", None),
        ("top_logprobs", "Requested sample logprobs of 5000, which is greater than max allowed: 1024", "logprobs"),
        ("logit_bias", "token_id(s) [9999] in logit_bias contain out-of-vocab token ids.", "logit_bias"),
        ("n", "n must be at most 16384, got 20000.", None),
        ("guided_decoding", "Grammar error: Unimplemented keys", None),
        ("guided_decoding", "Invalid grammar specification: no 'root' rule", None),
    ],
)
def test_a_value_that_vllm_refuses_names_its_field(field, message, parameter):
    error = failures.in_request(VLLMValidationError(message, parameter))
    assert isinstance(error, ConfigError)
    assert error.path == f"generation.{field}"
    assert message in str(error) and not error.retryable


def test_what_vllm_says_of_no_field_stays_a_bad_request():
    assert isinstance(failures.in_request(VLLMValidationError("The decoder prompt cannot be empty")), BadRequestError)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("model.model_name", "Value error, Invalid repository ID or local directory specified: '/tmp'."),
        ("model.model_max_length", "Value error, User-specified max_model_len (9) is greater than the derived"),
        ("model.model_kwargs.quantization", "Value error, Unknown quantization method: x."),
        ("model.model_kwargs.attention_backend", "Unknown attention backend: 'X'."),
        ("model.model_kwargs.reasoning_parser", "Reasoning parser 'x' not found."),
    ],
)
def test_what_is_wrong_with_the_model_names_its_field(path, message):
    error = failures.while_loading(ValueError(message), "m")
    assert isinstance(error, ConfigError) and error.path == path


def test_what_pydantic_refuses_names_its_argument():
    class Config(BaseModel):
        block_size: int

    with pytest.raises(ValidationError) as caught:
        Config(block_size="x")
    error = failures.while_loading(caught.value, "m")
    assert isinstance(error, ConfigError) and error.path == "model.model_kwargs.block_size"


# -- the environment ---------------------------------------------------------------------------------------------------


def test_a_quiet_engine_does_not_silence_a_later_one(monkeypatch):
    monkeypatch.setattr(arguments_of, "_ours", {})
    for name in ("VLLM_LOGGING_LEVEL", "PYTHONWARNINGS", "TRANSFORMERS_VERBOSITY"):
        monkeypatch.setenv(name, "x")  # so that what is set here is undone
        monkeypatch.delenv(name)
    monkeypatch.setenv("TORCH_CPP_LOG_LEVEL", "INFO")
    arguments_of.prepare_environment(verbose=False)
    assert os.environ["VLLM_LOGGING_LEVEL"] == "ERROR"
    assert os.environ["TORCH_CPP_LOG_LEVEL"] == "INFO"  # somebody else's
    arguments_of.prepare_environment(verbose=True)
    assert "VLLM_LOGGING_LEVEL" not in os.environ and "PYTHONWARNINGS" not in os.environ
    assert os.environ["TORCH_CPP_LOG_LEVEL"] == "INFO"
    assert os.environ["VLLM_WORKER_MULTIPROC_METHOD"] == "spawn"
