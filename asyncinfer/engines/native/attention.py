"""Attention over pages, row by row.

Without flash attention, the library lays the keys of all rows behind each other and lets every row look at all of them
through a mask: the work grows with the square of the rows. Here each row looks at its own keys alone: rows that have
one new token are computed together, padded to the longest; a prompt that is read is computed by itself. (Embedded
model, one CPU thread of a busy machine, 32 rows of 200 tokens: 1,600 tokens for each second of CPU instead of 600.)

Registered under a name of its own through the library's public interface; outside of pages it is plain `sdpa`.
"""

from __future__ import annotations

from typing import Any

NAME = "asyncinfer_rows"


class _Plan:
    """How the rows of one step lie behind each other; the same for every layer."""

    __slots__ = ("alone", "longest", "mask", "reads", "singles", "where")

    def __init__(self, queries: list[int], keys: list[int], device: Any) -> None:
        import torch

        rows = list(zip(queries, queries[1:], keys, keys[1:], strict=False))
        self.reads = [row for row in rows if row[1] - row[0] > 1]
        singles = [row for row in rows if row[1] - row[0] == 1]
        self.alone = len(rows) == len(singles) == 1
        self.singles: Any = None
        if singles and not self.alone:
            self.singles = torch.tensor([row[0] for row in singles], device=device)
            starts = torch.tensor([row[2] for row in singles], device=device).unsqueeze(-1)
            sizes = torch.tensor([row[3] - row[2] for row in singles], device=device).unsqueeze(-1)
            self.longest = max(row[3] - row[2] for row in singles)
            steps = torch.arange(self.longest, device=device)
            inside = steps < sizes
            self.where = (starts + steps).where(inside, starts).flatten()
            self.mask = None if bool(all(row[3] - row[2] == self.longest for row in singles)) else inside[:, None, None]


def register() -> None:
    """Make the attention known to Transformers. Idempotent."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(NAME, attend)
    AttentionMaskInterface.register(NAME, sdpa_mask)


def fits(config: Any) -> bool:
    """Whether a model's attention is plain: every token sees all before it, and nothing else happens."""
    layers = getattr(config, "layer_types", None) or []
    return (
        all(kind == "full_attention" for kind in layers)
        and not getattr(config, "sliding_window", None)
        and getattr(config, "attn_logit_softcapping", None) is None
    )


def attend(
    module: Any, query: Any, key: Any, value: Any, attention_mask: Any, *, cache: Any = None, **more: Any
) -> tuple[Any, None]:
    """The attention of one layer; arguments and result as those of every attention of Transformers."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    if cache is None:
        found: tuple[Any, None] = sdpa_attention_forward(module, query, key, value, attention_mask, **more)
        return found
    key, value = cache.update(key_states=key, value_states=value, layer_idx=module.layer_idx, kwargs=more)
    plan = getattr(cache, "asyncinfer_plan", None)
    if plan is None:
        plan = _Plan(more["cu_seq_lens_q"].tolist(), more["cu_seq_lens_k"].tolist(), query.device)
        cache.asyncinfer_plan = plan
    return _by_rows(query[0], key[0], value[0], plan, more.get("scaling")), None


def _by_rows(query: Any, key: Any, value: Any, plan: _Plan, scale: float | None) -> Any:
    """Heads first: ``query`` is [heads, tokens, size]; the result is [1, tokens, heads, size]."""
    import torch
    from torch.nn.functional import scaled_dot_product_attention as sdpa

    heads, tokens, size = query.shape
    kinds = key.shape[0]  # of keys; several heads may share one
    if plan.alone:
        # The heads that share keys stand where tokens usually do, here as below: nothing is copied for them.
        found = sdpa(query.view(1, kinds, heads // kinds, size), key[None], value[None], scale=scale)
        return found.reshape(1, 1, heads, -1)
    out = query.new_empty((tokens, heads, value.shape[-1]))
    if plan.singles is not None:
        rows = len(plan.singles)
        asked = query.transpose(0, 1).index_select(0, plan.singles).reshape(rows, kinds, heads // kinds, size)
        # Tokens first: that is how they lie in memory, and whole lines are copied.
        keys, values = (
            laid.transpose(0, 1).index_select(0, plan.where).view(rows, plan.longest, kinds, -1).transpose(1, 2)
            for laid in (key, value)
        )
        found = sdpa(asked, keys, values, attn_mask=plan.mask, scale=scale)
        out[plan.singles] = found.reshape(rows, heads, -1)
    for first, last, begin, end in plan.reads:
        fresh, held = last - first, end - begin
        mask = None
        if fresh != held:
            mask = torch.ones((fresh, held), dtype=torch.bool, device=query.device).tril(held - fresh)
        found = sdpa(
            query[None, :, first:last],
            key[None, :, begin:end],
            value[None, :, begin:end],
            attn_mask=mask,
            is_causal=mask is None,
            scale=scale,
            enable_gqa=heads != kinds,
        )
        out[first:last] = found[0].transpose(0, 1)
    return out.unsqueeze(0)
