"""How providers of one wire format differ, as values: what a codec reads instead of asking who the provider is.

Rule: values only, never changed in place. A field is read by one codec and wanted by two providers.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from .limits import Resource

CHAT_FIELDS = {
    "max_new_tokens": "max_tokens",
    "temperature": "temperature",
    "top_p": "top_p",
    "frequency_penalty": "frequency_penalty",
    "presence_penalty": "presence_penalty",
    "seed": "seed",
    "stop_strings": "stop",
    "logit_bias": "logit_bias",
    "n": "n",
    "logprobs": "logprobs",
    "top_logprobs": "top_logprobs",
    "tool_choice": "tool_choice",
    "parallel_tool_calls": "parallel_tool_calls",
    "reasoning_effort": "reasoning_effort",
}
"""Generation parameters of Chat Completions and their usual names on the wire."""

MESSAGES_FIELDS = {
    "max_new_tokens": "max_tokens",
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "stop_strings": "stop_sequences",
    "tool_choice": "tool_choice",
    "parallel_tool_calls": "tool_choice.disable_parallel_tool_use",
    "reasoning_effort": "thinking",
}
"""The same for Anthropic Messages."""

TOLD = {"json": "json_schema", "choice": "wrapped", "regex": "told"}
"""What becomes of guided decoding where the format has JSON Schemas, and nothing is known of their ``pattern``."""

PATTERNS = {**TOLD, "regex": "wrapped"}
"""The same where ``pattern`` is known."""


@dataclass(frozen=True, slots=True)
class ModelRule:
    """Parameters that some models of a provider refuse.

    Attributes:
        prefixes: beginnings of model names, without an organisation (``openai/``) or ``ft:`` in front.
        drops: parameter -> the value that means the same as leaving it out.
        when: ``"always"``; ``"unless_none"``: but not with ``reasoning_effort="none"``; ``"if_effort"``: only where an
            effort other than ``"none"`` was asked for.
    """

    prefixes: tuple[str, ...]
    drops: dict[str, Any]
    when: Literal["always", "unless_none", "if_effort"] = "always"


@dataclass(frozen=True, slots=True)
class Dialect:
    """How one provider differs from others that speak the same format. Values only; never changed in place.

    Attributes:
        path: path of the chat endpoint below the base URL.
        fields: generation parameter -> name on the wire (a dot makes a nested object); others cannot be sent.
        guided: kind of guided decoding (``json``, ``regex``, ``choice``, ``grammar``) -> where its value goes:
            ``json_schema`` or ``json_object`` (kinds of ``response_format``), ``wrapped`` (the one string of an object,
            sent where ``json`` goes), ``told`` (the same, an expression in words), else a field of the body.
        strict: which schemas are sent as strict where the caller does not say: ``closable``: our own, and those of
            classes that strictness leaves their meaning; ``wrapped``: our own only; ``asked``: none.
        default_max_tokens: sent where nobody asked for a maximum and the provider requires one.
        stream_options: sent with every streamed request, or None where the provider does not know the field.
        streams: whether the provider can stream at all.
        ends_at_eof: the provider sends neither a finish reason nor ``[DONE]``: the body's end is the answer's end.
        reasoning: how earlier reasoning goes back: as a field of assistant messages (``reasoning_content``,
            ``reasoning``, ``reasoning_details``), as ``thinking`` parts of their content (``content``), or not at all.
        reasoning_turns: which assistant turns carry it: ``all``, or those with tool calls since the last user turn
            (``tools``; the field is then sent even where it is empty).
        group_turns: adjacent messages of one role must be one message.
        developer_role: the provider knows the role ``developer``; elsewhere it is sent as ``system``.
        flat_text: content made of text parts only must be one string.
        tool_images: a tool message may hold images; elsewhere they follow as a message of the user.
        image_urls: the provider fetches images; where False only their bytes can be sent.
        document_urls: the provider fetches documents; elsewhere they are fetched for it.
        user_field: where ``RemoteParams.user_id`` goes, or None.
        system_turns: a system message may stand between the turns, where the model takes it there; elsewhere it joins
            the one at the top.
        call_extras: keys of a tool call, beyond the standard ones, that must travel back with it.
        logprobs_count: ``logprobs`` is a number on the wire, not a flag.
        template_kwargs: the server takes ``chat_template_kwargs``.
        adapter_field: where ``ModelParams.adapter_model`` goes, or None.
        model_rules: first match counts.
        rate_windows: seconds that a rate-limit header's bucket spans where its name does not say.
    """

    path: str = "/chat/completions"
    fields: dict[str, str] = field(default_factory=lambda: dict(CHAT_FIELDS))
    guided: dict[str, str] = field(default_factory=lambda: dict(TOLD))
    strict: Literal["closable", "wrapped", "asked"] = "wrapped"
    default_max_tokens: int | None = None
    stream_options: dict[str, Any] | None = field(default_factory=lambda: {"include_usage": True})
    streams: bool = True
    ends_at_eof: bool = False
    reasoning: Literal["reasoning_content", "reasoning", "reasoning_details", "content"] | None = None
    reasoning_turns: Literal["all", "tools"] = "all"
    group_turns: bool = False
    developer_role: bool = False
    flat_text: bool = False
    tool_images: bool = False
    image_urls: bool = True
    document_urls: bool = False
    user_field: str | None = "user"
    system_turns: bool = False
    call_extras: tuple[str, ...] = ()
    logprobs_count: bool = False
    template_kwargs: bool = False
    adapter_field: str | None = None
    model_rules: tuple[ModelRule, ...] = ()
    rate_windows: dict[Resource, float] = field(default_factory=dict)

    @property
    def supported(self) -> frozenset[str]:
        """Names of the generation parameters that can be sent."""
        return frozenset(self.fields) | ({"guided_decoding"} if self.guided else frozenset())

    def rule(self, model: str) -> ModelRule | None:
        """The rule for a model name, if there is one."""
        bare = model.lower().removeprefix("ft:").rpartition("/")[2]
        return next((rule for rule in self.model_rules if bare.startswith(rule.prefixes)), None)
