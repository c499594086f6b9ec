import json

import pytest

from scibox.core.errors import InvalidRequest
from scibox.core.types import Dialect
from scibox.wire import chat, extras
from scibox.wire.orders import Target, order

CHAT = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


def raw(**fields: object) -> dict[str, bytes]:
    return {name: json.dumps(value).encode() for name, value in fields.items()}


def sent(dialect: Dialect, **fields: object) -> dict[str, object]:
    call = chat.parse("r", json.dumps({**CHAT, **fields}).encode())
    body: dict[str, object] = json.loads(order(call, Target("real", dialect)).body)
    return body


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("top_k", -2),
        ("top_k", 1.5),
        ("min_p", 1.01),
        ("min_p", "half"),
        ("repetition_penalty", 0),
        ("repeat_last_n", 10**9),
        ("dry_penalty_last_n", -2),
        ("dry_base", 0.5),
        ("dry_sequence_breakers", []),
        ("mirostat", 3),
        ("min_tokens", -1),
        ("stop_token_ids", [-1]),
        ("stop_token_ids", [1] * 129),
        ("allowed_token_ids", []),
        ("prompt_logprobs", 21),
        ("cache_salt", ""),
        ("chat_template_kwargs", "thinking"),
        ("guided_choice", []),
        ("guided_regex", "a" * 70_000),
        ("structured_outputs", "json"),
        ("ignore_eos", "yes"),
        ("typical_p", 1e400),
    ],
)
def test_a_wrong_value_is_refused_and_named(name: str, value: object) -> None:
    with pytest.raises(InvalidRequest) as caught:
        extras.check(raw(**{name: value}))

    assert caught.value.param is not None
    assert caught.value.param.startswith(name) or caught.value.param == "body"  # 1e400 is no JSON number


@pytest.mark.parametrize(
    "name",
    [
        *("api_base", "base_url", "api_key", "custom_llm_provider", "headers", "extra_headers", "fallbacks"),
        *(
            "models",
            "route",
            "provider",
            "lora",
            "id_slot",
            "cache_prompt",
            "kv_transfer_params",
            "vllm_xargs",
        ),
        *("mm_processor_kwargs", "media_io_kwargs", "chat_template", "priority", "use_beam_search"),
        *("request_id", "reasoning_format", "n_predict", "samplers", "grammar_triggers"),
    ],
)
def test_what_a_caller_must_not_decide_never_passes(name: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        chat.parse("r", json.dumps({**CHAT, name: "http://127.0.0.1:1"}).encode())

    assert (caught.value.param, caught.value.code) == (name, "unknown_parameter")
    assert not any(name in understood for understood in extras.UNDERSTOOD.values())


def test_every_extra_is_understood_by_some_engine_and_nothing_else_is() -> None:
    assert extras.UNDERSTOOD["vllm"] | extras.UNDERSTOOD["llama"] == extras.NAMES
    assert chat.KNOWN.isdisjoint(extras.NAMES)
    assert extras.CHAT_ONLY <= extras.NAMES


@pytest.mark.parametrize("dialect", ["vllm", "llama"])
def test_common_ones_reach_both_engines(dialect: Dialect) -> None:
    asked = {"top_k": -1, "min_p": 0.05, "chat_template_kwargs": {"enable_thinking": False}}

    assert asked.items() <= sent(dialect, **asked).items()


@pytest.mark.parametrize(
    ("dialect", "asked", "becomes"),
    [
        ("llama", "repetition_penalty", "repeat_penalty"),
        ("llama", "repeat_penalty", "repeat_penalty"),
        ("vllm", "repeat_penalty", "repetition_penalty"),
        ("vllm", "repetition_penalty", "repetition_penalty"),
    ],
)
def test_two_names_of_one_thing_are_translated(dialect: Dialect, asked: str, becomes: str) -> None:
    body = sent(dialect, **{asked: 1.1})

    assert body[becomes] == 1.1
    assert ("repeat_penalty" in body) != ("repetition_penalty" in body)


@pytest.mark.parametrize(
    ("name", "value", "field"),
    [
        ("guided_json", {"type": "object"}, "json"),
        ("guided_regex", "a+", "regex"),
        ("guided_choice", ["a"], "choice"),
        ("guided_grammar", "root ::= 'a'", "grammar"),
    ],
)
def test_older_constraints_become_the_newer_one_for_vllm(name: str, value: object, field: str) -> None:
    body = sent("vllm", **{name: value})

    assert body["structured_outputs"] == {field: value}
    assert name not in body


def test_several_constraints_are_refused() -> None:
    for fields in (
        {"guided_regex": "a", "guided_choice": ["a"]},
        {"guided_regex": "a", "structured_outputs": {}},
    ):
        with pytest.raises(InvalidRequest, match=r"keep one of them|one constraint"):
            sent("vllm", **fields)


@pytest.mark.parametrize(
    ("dialect", "name", "value", "words"),
    [
        ("llama", "min_tokens", 5, "it understands add_generation_prompt, chat_template_kwargs"),
        ("vllm", "mirostat", 2, "not understood by the engine that serves 'm'"),
        ("openai", "top_k", 5, 'dialect = "vllm"'),
    ],
)
def test_what_the_engine_does_not_understand_is_refused(
    dialect: Dialect, name: str, value: object, words: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        sent(dialect, **{name: value})

    assert (caught.value.param, caught.value.code) == (name, "unsupported_parameter")
    assert words in caught.value.message


def test_null_asks_for_nothing() -> None:
    assert "top_k" not in sent("openai", top_k=None)


def test_both_names_at_once_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="one thing"):
        sent("vllm", repeat_penalty=1.1, repetition_penalty=1.2)


def test_parameters_of_a_dialogue_are_refused_elsewhere() -> None:
    with pytest.raises(InvalidRequest) as caught:
        extras.check(raw(chat_template_kwargs={}), is_chat=False)

    assert caught.value.param == "chat_template_kwargs"
    extras.check(raw(top_k=5), is_chat=False)


def test_llama_is_told_to_leave_reasoning_to_us() -> None:
    assert sent("llama")["reasoning_format"] == "none"
    assert "reasoning_format" not in sent("vllm")


def test_values_stay_as_they_were_sent() -> None:
    call = chat.parse("r", b'{"model":"m","messages":[{"role":"user","content":"x"}],"min_p":0.10}')

    assert b'"min_p":0.10' in order(call, Target("real", "vllm")).body
