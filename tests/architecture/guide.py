"""The comparison guide's table, as this product has to match it, and what proves each of our own ticks."""

from __future__ import annotations

COLUMNS = ("VLLM", "NATIVE", "LLAMACPP", "REMOTE_VLLM", "SGLANG")

_MARKS = {"y": True, "n": False, "-": None}
_ROWS = {
    "Continuous batching": "ynnyy",
    "Tensor parallelism": "yynyy",
    "LoRA adapters": "yyyyy",
    "4-bit quantization": "nyynn",
    "GGUF format": "nnynn",
    "Prefix caching": "ynnyy",
    "Streaming": "yyyyy",
    "Vision models": "yyyyy",
    "CPU support": "nyy-n",
}

GUIDE: dict[str, dict[str, bool | None]] = {
    feature: dict(zip(COLUMNS, (_MARKS[mark] for mark in marks), strict=True)) for feature, marks in _ROWS.items()
}
"""Feature -> engine type -> whether the guide promises it; None where it says that the question does not arise."""

SERVERS_OWN = "the server's own work"

EVIDENCE: dict[str, dict[str, str]] = {
    "Continuous batching": {
        "NATIVE": "tests/native/test_features.py::test_a_short_answer_joins_a_long_one_and_is_done_first",
        "LLAMACPP": "tests/local/test_features.py::test_a_short_answer_joins_a_long_one_and_is_done_first",
        "REMOTE_VLLM": SERVERS_OWN,
        "SGLANG": SERVERS_OWN,
    },
    "Tensor parallelism": {
        "NATIVE": "tests/native/test_settings.py::test_tensor_parallelism_is_read_as_layers_over_devices",
        "REMOTE_VLLM": SERVERS_OWN,
        "SGLANG": SERVERS_OWN,
    },
    "LoRA adapters": {
        "NATIVE": "tests/native/test_loading.py::test_an_adapter_and_a_folder_that_is_one",
        "LLAMACPP": "tests/local/test_llama_cpp.py::test_a_lora_adapter_changes_the_answer",
        "REMOTE_VLLM": "tests/engines/test_remote.py::test_vllm_serves_its_adapter",
        "SGLANG": "tests/wire/sglang/test_sglang_encode.py::test_lora_and_the_last_word",
    },
    "4-bit quantization": {
        "NATIVE": "tests/native/test_loading.py::test_weights_of_few_bits",
        "LLAMACPP": "tests/local/test_features.py::test_a_model_of_four_bits",
    },
    "GGUF format": {
        "LLAMACPP": "tests/local/test_llama_cpp.py::test_a_path_a_folder_and_the_embedded_name_mean_the_same"
    },
    "Prefix caching": {
        "NATIVE": "tests/native/test_features.py::test_what_prompts_have_in_common_is_read_once",
        "LLAMACPP": "tests/local/test_features.py::test_what_prompts_have_in_common_is_read_once",
        "REMOTE_VLLM": SERVERS_OWN,
        "SGLANG": SERVERS_OWN,
    },
    "Streaming": {
        "NATIVE": "tests/native/test_features.py::test_a_short_answer_joins_a_long_one_and_is_done_first",
        "LLAMACPP": "tests/local/test_llama_cpp.py::test_it_really_streams",
        "REMOTE_VLLM": "tests/real/test_servers.py::test_stream",
        "SGLANG": "tests/wire/sglang/test_sglang_decode.py::test_whatever_a_server_streams_the_text_is_its_text",
    },
    "Vision models": {
        "NATIVE": "tests/native/test_whole.py::test_a_model_that_sees",
        "LLAMACPP": "tests/local/test_vision.py::test_what_is_seen_reaches_the_model",
        "REMOTE_VLLM": "tests/wire/test_chat_encode.py::test_images_go_out_with_their_real_media_type",
        "SGLANG": "tests/wire/sglang/test_sglang_encode.py::test_images",
    },
    "CPU support": {
        "NATIVE": "tests/native/test_conformance.py::test_the_engine_keeps_its_promises",
        "LLAMACPP": "tests/local/test_conformance.py::test_the_engine_keeps_every_promise",
    },
}
"""Feature -> engine type -> the test that fails when the tick is no longer true."""

PENDING: set[tuple[str, str]] = {(feature, "VLLM") for feature in _ROWS}
"""Ticks whose test is still being written."""
