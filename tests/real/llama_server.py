"""The llama.cpp server that the binding brings, in a process of its own.

``python -m tests.real.llama_server model.gguf KEY`` prints its address and serves until its standard input ends.
"""

from __future__ import annotations

import sys

import xllamacpp


def main(model: str, key: str) -> None:
    params = xllamacpp.CommonParams()
    params.model.path = model
    params.n_ctx = 8192
    params.n_parallel = 8
    params.cpuparams.n_threads = 1
    params.use_jinja = True
    params.endpoint_metrics = True
    params.api_keys = [key]
    params.cache_ram_mib = 0
    server = xllamacpp.Server(params)
    server.handle_completions({"prompt": "a", "max_tokens": 1})
    print(server.listening_address, flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main(*sys.argv[1:])
