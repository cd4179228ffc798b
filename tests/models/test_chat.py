from __future__ import annotations

import pytest
from tiny_models import CHATML, NO_SYSTEM, SILENT_SYSTEM, tokenizer
from transformers import ByT5Tokenizer

from normloom.core.errors import ConfigError, ModelError
from normloom.core.models.protocol import GenerateRequest, Sampling, Turn
from normloom.models.requests.chat import Chat, Piece, frame
from normloom.models.requests.prompts import Prompter


def chat(template: str | None = CHATML) -> Chat:
    return Chat(tokenizer(template), name="tiny")


def written(template: str, instruction: str, user: str) -> str:
    words = tokenizer(template)
    head, tail = Chat(words, name="tiny").framed(instruction)
    return f"{words.decode(head)}{user}{words.decode(tail)}"


def test_the_frame_is_what_the_template_makes_of_both_messages() -> None:
    messages = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hello"}]
    expected = tokenizer().apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert written(CHATML, "Be kind.", "Hello") == expected


def test_tokens_of_the_parts_are_the_tokens_of_the_whole() -> None:
    words = tokenizer()
    maker = Chat(words, name="tiny")
    head, tail = maker.framed("You judge texts.")
    messages = [{"role": "system", "content": "You judge texts."}, {"role": "user", "content": "Is it about cats?"}]
    whole = words.apply_chat_template(messages, add_generation_prompt=True)["input_ids"]
    assert head + maker.plain(["Is it about cats?"])[0] + tail == whole


def test_without_an_instruction_there_is_no_system_message() -> None:
    assert written(CHATML, "", "Hello") == "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n"


@pytest.mark.parametrize("template", [NO_SYSTEM, SILENT_SYSTEM])
def test_an_instruction_is_folded_into_the_user_turn_where_there_is_no_system_role(template: str) -> None:
    text = written(template, "Be kind.", "Hello")
    assert text.startswith("<|im_start|>user\nBe kind.\n\nHello<|im_end|>\n")


@pytest.mark.parametrize("mark", ["<|im_end|>", "<|im_start|>system", "<think>"])
def test_control_tokens_in_our_texts_are_ordinary_text(mark: str) -> None:
    words = tokenizer(CHATML + "{# <think> #}")
    maker = Chat(words, name="tiny")
    control = {words.convert_tokens_to_ids(token) for token in ("<|im_start|>", "<|im_end|>", "<think>")}
    text = f"before {mark} after"
    assert control & set(words(text)["input_ids"])  # the tokenizer itself would read them
    (ids,) = maker.plain([text])
    assert not control & set(ids)
    assert words.decode(ids) == text
    in_head, plain_head = maker.framed(text).head, maker.framed("before after").head
    assert [i for i in in_head if i in control] == [i for i in plain_head if i in control]


def test_a_template_mark_in_a_row_text_changes_nothing() -> None:
    assert frame(lambda messages: "".join(m["content"] for m in messages), "NORMLOOM-USER-MARK").head == (
        Piece("", control=True),
        Piece("NORMLOOM-USER-MARK", control=False),
        Piece("", control=True),
    )


def test_a_template_that_drops_the_user_text_is_an_error() -> None:
    with pytest.raises(ModelError, match="0 times"):
        frame(lambda _: "nothing", "")


def test_a_model_without_a_chat_template_is_an_error() -> None:
    with pytest.raises(ModelError, match="'tiny' has no chat template"):
        chat(None)


def test_a_tokenizer_that_is_not_fast_is_an_error() -> None:
    slow = ByT5Tokenizer(chat_template=CHATML)
    with pytest.raises(ModelError, match=r"'tiny' has no fast tokenizer \(tokenizer.json\)"):
        Chat(slow, name="tiny")


def test_a_template_that_refuses_every_prompt_is_an_error() -> None:
    with pytest.raises(ModelError, match="0 times"):
        asked("nothing")


def test_an_answer_is_one_token_at_the_start_of_the_reply() -> None:
    maker = chat()
    assert maker.answer("Judge.", "Yes") == maker.plain(["Yes"])[0][0]


@pytest.mark.parametrize("answer", ["Certainly", "", "Yes No"])
def test_an_answer_of_other_than_one_token_is_a_config_error_that_names_its_pieces(answer: str) -> None:
    with pytest.raises(ConfigError, match=f"answer '{answer}' is not one token") as caught:
        chat().answer("Judge.", answer)
    if answer == "Yes No":
        assert "Yes | Ġ" in str(caught.value)


ALTERNATING = (
    "{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate') }}{% endif %}"
    "[{{ message['role'] }}]{{ message['content'] }}{% endfor %}[assistant]"
)
TALK = (Turn("system", "Be brief."), Turn("user", "Hi"), Turn("assistant", "Hello"))


def asked(template: str, *history: Turn, instruction: str = "Be kind.", limit: int = 512) -> str:
    """Return the text that a prompt after a history becomes, or why it cannot be read."""
    words = tokenizer(template)
    request = GenerateRequest(
        instruction=instruction, prompt="Why?", seeds=(1,), sampling=Sampling(max_tokens=8), history=history
    )
    prompt = Prompter(Chat(words, name="tiny"), limit).writing(request)
    return prompt.error or words.decode(prompt.sequences()[0])


def test_a_history_goes_through_the_chat_template_with_its_system_text_after_the_instruction() -> None:
    messages = [{"role": "system", "content": "Be kind.\n\nBe brief."}, {"role": "user", "content": "Hi"}]
    messages += [{"role": "assistant", "content": "Hello"}, {"role": "user", "content": "Why?"}]
    expected = tokenizer().apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert asked(CHATML, *TALK) == expected


def test_without_an_instruction_the_system_text_is_the_source_s_own() -> None:
    assert asked(CHATML, Turn("system", "Be brief."), instruction="").startswith(
        "<|im_start|>system\nBe brief.<|im_end|>"
    )


@pytest.mark.parametrize("template", [NO_SYSTEM, ALTERNATING])
def test_a_template_without_a_system_role_gets_the_system_text_in_the_first_user_turn(template: str) -> None:
    text = asked(template, *TALK)
    assert text.index("Be kind.\n\nBe brief.\n\nHi") < text.index("Hello") < text.index("Why?")
    assert "system" not in text


def test_where_the_assistant_begins_the_system_text_is_a_user_turn_of_its_own() -> None:
    text = asked(ALTERNATING, Turn("system", "Be brief."), Turn("assistant", "Hello"))
    assert text == "[user]Be kind.\n\nBe brief.\n\n[assistant]Hello[user]Why?[assistant]"


def test_a_conversation_that_the_template_refuses_costs_its_row_and_says_why() -> None:
    error = asked(ALTERNATING, Turn("user", "Hi"))
    assert error == "the model's chat template refuses the conversation: Conversation roles must alternate"


def test_a_conversation_that_does_not_fit_says_its_length() -> None:
    assert "the conversation of 4 turns and " in asked(CHATML, *TALK, limit=20)


def test_control_tokens_in_a_history_are_ordinary_text() -> None:
    words = tokenizer()
    maker = Chat(words, name="tiny")
    _, said, _ = maker.framed_after("Judge.", (Turn("user", "a <|im_end|> b"), Turn("assistant", "c")), "")
    _, plain, _ = maker.framed_after("Judge.", (Turn("user", "a b"), Turn("assistant", "c")), "")
    end = words.convert_tokens_to_ids("<|im_end|>")
    assert said.count(end) == plain.count(end)
    assert "a <|im_end|> b" in words.decode(said)
