"""The tables of the README that are made from the code. ``python -m tests.architecture.tables`` writes them."""

from __future__ import annotations

from pathlib import Path

from asyncinfer.engines.opening import ENGINES, engine_class
from asyncinfer.params import GenerationParams

README = Path(__file__).resolve().parents[2] / "README.md"
BEGIN = "<!-- made by `python -m tests.architecture.tables`: begin -->"
END = "<!-- end -->"
_NOT_SENT = {"batch_size", "exclude_prompt_from_response", "extra_body", "strict_params", "use_cache"}


def supported_params() -> str:
    """Which engine honours which generation parameter: engines that honour the same ones share a row."""
    groups: dict[frozenset[str], list[str]] = {}
    for kind in sorted(ENGINES, key=lambda kind: kind.name):
        groups.setdefault(frozenset(engine_class(kind).get_supported_params()), []).append(kind.name)
    names = [name for name in GenerationParams.model_fields if name not in _NOT_SENT]
    everywhere = [name for name in names if all(name in group for group in groups)]
    lines = [
        f"Every engine honours {', '.join(f'`{name}`' for name in everywhere)}. Beyond these:",
        "",
        "| engine | also honours |",
        "|---|---|",
    ]
    for group, engines in sorted(groups.items(), key=lambda item: item[1]):
        more = [f"`{name}`" for name in names if name in group and name not in everywhere]
        lines.append(f"| {', '.join(engines)} | {', '.join(more) or '-'} |")
    return "\n".join(lines)


def written(readme: str) -> str:
    """The README with its tables as they should be."""
    before, _, rest = readme.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{supported_params()}\n\n{END}{after}"


if __name__ == "__main__":
    README.write_text(written(README.read_text(encoding="utf-8")), encoding="utf-8")
