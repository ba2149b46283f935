"""What importing values loads: pydantic and little else. (How long it takes is measured by the benchmarks.)"""

from __future__ import annotations

import subprocess
import sys

HEAVY = ("yaml", "httpx", "anyio", "trio", "msgspec", "inspect", "json", "asyncio", "importlib.metadata")


def loaded_by(code: str) -> set[str]:
    listing = f"import sys, pydantic\nfrom pydantic import BaseModel\nbefore = set(sys.modules)\n{code}\n"
    listing += "print('\\n'.join(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", listing], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_conversations_load_nothing_heavy():
    loaded = loaded_by("from asyncinfer.conversation import Conversation")
    assert not loaded.intersection(HEAVY)
    assert not [name for name in loaded if name.startswith("asyncinfer.params")]


def test_parameters_load_nothing_heavy():
    assert not loaded_by("from asyncinfer.params import InferenceConfig, RemoteParams").intersection(HEAVY)
