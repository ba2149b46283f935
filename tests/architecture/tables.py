"""The tables of the README that are made from the code. ``python -m tests.architecture.tables`` writes them."""

from __future__ import annotations

from pathlib import Path

from asyncinfer.engines.features import COLUMNS, FEATURES, Fact
from asyncinfer.engines.opening import ENGINES, engine_class
from asyncinfer.params import GenerationParams, InferenceEngineType

from .guide import GUIDE

README = Path(__file__).resolve().parents[2] / "README.md"
BEGIN = "<!-- made by `python -m tests.architecture.tables`: begin -->"
END = "<!-- end -->"
BEGIN_FEATURES = "<!-- features, made by `python -m tests.architecture.tables`: begin -->"
END_FEATURES = "<!-- features: end -->"
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


def features() -> str:
    """What each kind of engine can do; where the guide promises less, with a star; what a word would hide, below."""
    columns = [name for name in COLUMNS if InferenceEngineType(name) in ENGINES]
    notes: list[str] = []
    lines = [
        f"| | {' | '.join(COLUMNS[name] for name in columns)} |",
        "|---|" + ":---:|" * len(columns),
    ]
    for feature, facts in FEATURES.items():
        cells = [_cell(facts[name], promised=GUIDE[feature][name], notes=notes) for name in columns]
        lines.append(f"| {feature} | {' | '.join(cells)} |")
    lines += ["", "\\* more than the comparison guide promises; *server*: whatever the server was started with."]
    lines += ["", *(f"{number}. {note}." for number, note in enumerate(notes, start=1))]
    return "\n".join(lines)


def _cell(fact: Fact, *, promised: bool | None, notes: list[str]) -> str:
    if fact.can is None:
        word = "server"
    elif fact.can:
        word = fact.word if promised else f"{fact.word}\\*"
    else:
        word = "no"
    if not fact.note:
        return word
    if fact.note not in notes:
        notes.append(fact.note)
    return f"{word} ({notes.index(fact.note) + 1})"


def written(readme: str) -> str:
    """The README with its tables as they should be."""
    with_params = _between(readme, BEGIN, supported_params(), END)
    return _between(with_params, BEGIN_FEATURES, features(), END_FEATURES)


def _between(text: str, begin: str, table: str, end: str) -> str:
    before, _, rest = text.partition(begin)
    _, _, after = rest.partition(end)
    return f"{before}{begin}\n\n{table}\n\n{end}{after}"


if __name__ == "__main__":
    README.write_text(written(README.read_text(encoding="utf-8")), encoding="utf-8")
