"""``ModelParams`` to settings, which file is meant, and what a newcomer reads when something is missing."""

from __future__ import annotations

import struct
import sys

import pytest

from asyncinfer import LlamaCppInferenceEngine, ModelParams
from asyncinfer.engines.llama_cpp import binding, gguf, locate, settings
from asyncinfer.engines.native import settings as native
from asyncinfer.errors import ConfigError, EngineError, MissingDependencyError
from asyncinfer.models import EMBEDDED_MODEL, embedded_model


def read(**kwargs):
    return settings.read(ModelParams(model_name=EMBEDDED_MODEL, model_kwargs=kwargs))


def test_defaults_fit_the_model_s_size(tmp_path):
    small = read()
    assert (small.slots, small.n_threads, small.n_ctx, small.binding) == (16, 1, None, None)
    big = tmp_path / "big.gguf"
    with big.open("wb") as file:
        file.truncate(settings._SMALL_MODEL + 1)
    assert settings.read(ModelParams(model_name=str(big))).slots == 4
    assert settings.read(ModelParams()).model == EMBEDDED_MODEL


def test_model_max_length_is_the_context_unless_n_ctx_says_otherwise():
    params = ModelParams(model_name=EMBEDDED_MODEL, model_max_length=512)
    assert settings.read(params).n_ctx == 512
    params.model_kwargs = {"n_ctx": 1024}
    assert settings.read(params).n_ctx == 1024


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n_ctx", -1),
        ("n_ctx", "2048"),
        ("n_ctx", 2048.0),
        ("n_batch", True),
        ("n_parallel", 0),
        ("n_gpu_layers", -2),
        ("use_mmap", 1),
        ("flash_attn", "yes"),
        ("rope_freq_base", "10000"),
        ("filename", 3),
        ("tensor_split", ["a"]),
    ],
)
def test_a_wrong_value_is_named_with_its_path(name, value):
    with pytest.raises(ConfigError) as caught:
        read(**{name: value})
    assert caught.value.path == f"model.model_kwargs.{name}"
    assert name in str(caught.value)


def test_unknown_kwargs_are_named_once_and_ignored(caplog):
    read(made_up=True, another=1, n_ctx=128)
    assert "another, made_up" in caplog.text and "n_ctx" not in caplog.text


def test_a_folder_needs_one_model(tmp_path):
    with pytest.raises(EngineError, match="no GGUF model"):
        locate.find(str(tmp_path))
    for name in ("a-Q8_0.gguf", "b-Q4_0.gguf", "split-00001-of-00002.gguf", "split-00002-of-00002.gguf", "x.txt"):
        (tmp_path / name).touch()
    with pytest.raises(EngineError, match=r"a-Q8_0.gguf, b-Q4_0.gguf, split-00001.*filename"):
        locate.find(str(tmp_path))
    assert locate.find(str(tmp_path), "*Q4*").name == "b-Q4_0.gguf"
    assert locate.find(str(tmp_path), "split*").name == "split-00001-of-00002.gguf"


@pytest.mark.parametrize("name", ["missing.gguf", "/no/such/place", "./here", "name-without-owner", "a/b/c"])
def test_a_file_that_is_not_there(name):
    with pytest.raises(EngineError, match="no such file"):
        locate.find(name)


def test_a_repository_without_the_hub_s_package_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MissingDependencyError, match="pip install huggingface_hub"):
        locate.find("owner/model")


def test_a_repository_s_file_is_picked_and_fetched(monkeypatch, tmp_path):
    class Hub:
        class HfApi:
            def list_repo_files(self, repository, revision=None):
                assert (repository, revision) == ("owner/model", "main")
                return ["README.md", "model-Q8_0.gguf", "model-Q4_0.gguf", "model-q8_0.gguf"]

        def hf_hub_download(repository, name, revision=None):
            return str(tmp_path / name)

    monkeypatch.setitem(sys.modules, "huggingface_hub", Hub)
    assert locate.find("owner/model", "*Q4_0.gguf", "main").name == "model-Q4_0.gguf"
    with pytest.raises(EngineError, match="filename"):
        locate.find("owner/model", "*.gguf", "main")


# -- bindings ----------------------------------------------------------------------------------------------------------


def test_without_a_binding_the_message_has_the_command(monkeypatch):
    monkeypatch.setattr(binding, "find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'asyncinfer\[llamacpp\]'"):
        binding.choose(None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'asyncinfer\[llama-cpp-python\]'"):
        binding.choose("llama-cpp-python")
    with pytest.raises(ConfigError, match="xllamacpp"):
        binding.choose("other")


def test_the_compiled_binding_is_preferred_where_it_is_installed(monkeypatch):
    monkeypatch.setattr(binding, "find_spec", lambda name: object())
    assert binding.choose(None) == "llama-cpp-python"
    assert binding.choose("xllamacpp") == "xllamacpp"


def test_making_an_engine_loads_no_binding(monkeypatch):
    for name in ("llama_cpp", "xllamacpp"):
        monkeypatch.delitem(sys.modules, name, raising=False)
        monkeypatch.setitem(sys.modules, name, None)  # importing it would fail now
    engine = LlamaCppInferenceEngine()
    assert engine.slots == 16
    assert "max_new_tokens" in engine.get_supported_params()
    assert "num_beams" not in engine.get_supported_params()


# -- the head of a GGUF file -------------------------------------------------------------------------------------------


def test_the_head_says_how_long_the_context_is():
    assert gguf.context_length(embedded_model("gguf")) == 2048


def test_every_cut_of_the_head_is_read_or_refused_with_a_typed_error(tmp_path):
    whole = embedded_model("gguf").read_bytes()[:600]
    path = tmp_path / "cut.gguf"
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        try:
            length = gguf.context_length(path)
        except EngineError:
            continue
        assert length in (2048, None)


def test_the_head_says_which_tokens_stand_for_no_text(tmp_path):
    silent = gguf.silent_tokens(embedded_model("gguf"))
    assert {0, 1} <= silent  # the end of a text, the beginning of a message
    assert 2 not in silent  # the end of a message: it ends an answer
    assert 24 not in silent
    whole = embedded_model("gguf").read_bytes()
    path = tmp_path / "cut.gguf"
    for size in (0, 3, 30, 600, 5_000, 20_000):
        path.write_bytes(whole[:size])
        with pytest.raises(EngineError):
            gguf.silent_tokens(path)


def a_head(**keys):
    """The head of a GGUF file with these keys: strings and truth values."""

    def text(value):
        return struct.pack("<Q", len(value)) + value.encode()

    def entry(key, value):
        kind = 7 if isinstance(value, bool) else 8
        return text(key) + struct.pack("<I", kind) + (struct.pack("<?", value) if kind == 7 else text(value))

    return b"GGUF" + struct.pack("<IQQ", 3, 0, len(keys)) + b"".join(entry(*pair) for pair in keys.items())


@pytest.mark.parametrize(
    ("keys", "why"),
    [
        ({"general.architecture": "t5"}, "encoder"),
        ({"general.architecture": "bert"}, "embeddings"),
        ({"general.architecture": "llama", "llama.attention.causal": False}, "both sides"),
        ({"general.type": "adapter", "general.architecture": "llama"}, "adapter_model"),
        ({"general.architecture": "clip"}, "mmproj"),
    ],
)
def test_a_file_that_cannot_answer_is_refused_before_the_library_aborts(tmp_path, keys, why):
    path = tmp_path / "model.gguf"
    path.write_bytes(a_head(**keys))
    with pytest.raises(EngineError, match=why) as caught:
        settings.read(ModelParams(model_name=str(path))).file()
    assert str(path) in str(caught.value)


def test_a_file_that_can_answer(tmp_path):
    path = tmp_path / "model.gguf"
    path.write_bytes(
        a_head(**{"general.architecture": "llama", "llama.attention.causal": True, "general.type": "model"})
    )
    assert settings.read(ModelParams(model_name=str(path))).file() == path
    assert settings.read(ModelParams()).file() == embedded_model("gguf")


@pytest.mark.parametrize("read", [settings.read, native.read], ids=["llama_cpp", "native"])
def test_a_chat_template_is_source_or_a_file_that_is_there(tmp_path, read):
    path = tmp_path / "chat.jinja"
    path.write_text("{{ messages }}", encoding="utf-8")
    assert read(ModelParams(chat_template=str(path))).chat_template == "{{ messages }}"
    assert read(ModelParams(chat_template="{{ 1 }}")).chat_template == "{{ 1 }}"
    for missing in (str(tmp_path / "nope.jinja"), "chatml", str(tmp_path)):
        with pytest.raises(ConfigError, match="no file with one") as caught:
            read(ModelParams(chat_template=missing))
        assert caught.value.path == "model.chat_template"


@pytest.mark.parametrize(("name", "value"), [("n_ctx", 2**31), ("n_batch", 2**33), ("tensor_split", [1.0] * 129)])
def test_more_than_the_library_can_hold_is_refused(name, value):
    with pytest.raises(ConfigError, match="at most") as caught:
        settings.read(ModelParams(model_kwargs={name: value}))
    assert caught.value.path == f"model.model_kwargs.{name}"


def test_a_precision_of_weights_is_a_known_one_or_left_to_the_model():
    assert native.read(ModelParams(model_kwargs={"torch_dtype": None})).dtype == "auto"
    assert native.read(ModelParams(model_kwargs={"torch_dtype": "torch.half"})).dtype == "float16"
    with pytest.raises(ConfigError, match="bfloat16") as caught:
        native.read(ModelParams(model_kwargs={"torch_dtype": "int3"}))
    assert caught.value.path == "model.model_kwargs.torch_dtype"
