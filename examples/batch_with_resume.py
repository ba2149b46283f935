"""A batch that survives anything: stop it however you like, run the same line again, and it finishes.

    python examples/batch_with_resume.py questions.jsonl answers.jsonl [config.yaml]

Each input line is a conversation: {"messages": [{"role": "user", "content": "..."}]}. Answers are journaled beside the
output as they finish and appear in input order at the end; rows without an answer are in answers.failures.jsonl.
"""

import asyncio
import sys

from asyncinfer import InferenceConfig
from asyncinfer.batch import BatchProgress, run_file


def show(progress: BatchProgress) -> None:
    print(f"\r{progress.completed}/{progress.total} rows, {progress.failed} failed", end="", file=sys.stderr)


async def main(input_path: str, output_path: str, config_path: str | None = None) -> int:
    config = InferenceConfig.from_yaml(config_path) if config_path else InferenceConfig()
    summary = await run_file(config, input_path, output_path, on_progress=show)
    print(f"\n{summary.completed} answers in {summary.output_path}, {summary.resumed} of them from an earlier run")
    return 0 if summary.ok else 3


if __name__ == "__main__":
    if len(sys.argv) not in {3, 4}:
        sys.exit(__doc__)
    sys.exit(asyncio.run(main(*sys.argv[1:])))
