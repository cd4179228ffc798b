"""A model's chat template around our texts, as tokens.

The template is rendered once with marks where our texts go and split at the marks, so that what is
constant comes out as one run of tokens, and so that only the template's own text can hold control tokens.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple, Protocol

from jinja2 import TemplateError
from tokenizers import AddedToken, Tokenizer

from normloom.core.content import Content, Image, Medium, Part, Sound, media_of, merged, text_of
from normloom.core.errors import ConfigError, ModelError
from normloom.core.models.protocol import Turn

SYSTEM, USER = "system", "user"
_USER = "NORMLOOM-USER-MARK"
BREAK = "\n\n"  # between the parts of a user turn

Message = dict[str, Any]
Render = Callable[[list[Message]], str]


class Senses(Protocol):
    """How the prompts of a model hold images and sounds.

    `marks` are the texts that stand for what it takes of the two in what the chat template writes.
    """

    marks: Mapping[type[Medium], str]

    def tokens(self, medium: Image | Sound) -> list[int]:
        """Return the tokens in place of the mark; raises UnreadableError."""
        ...

    def added(self, medium: Image | Sound) -> int:
        """Return how many more tokens the engine itself puts in their place."""
        ...


class Piece(NamedTuple):
    """A run of prompt text; `control` says that it comes from the template and may hold control tokens."""

    text: str
    control: bool


@dataclass(frozen=True)
class Framed:
    """A prompt around the user's text.

    `head` is what all prompts of an instruction begin with, `said` what the history of this one adds, `tail` the
    template text after the user's.
    """

    head: tuple[Piece, ...]
    said: tuple[Piece, ...]
    tail: str


class EncodedFrame(NamedTuple):
    """Token ids of a `Framed` without history."""

    head: list[int]
    tail: list[int]


def opening(instruction: str, history: Sequence[Turn]) -> tuple[list[str], list[Turn]]:
    """Return what belongs into the system message (the instruction, then system texts), and the other turns."""
    given = [instruction] if instruction else []
    given += [turn.content for turn in history if turn.role == SYSTEM]
    return given, [turn for turn in history if turn.role != SYSTEM]


class _Said(NamedTuple):
    """A turn as the template is given it: texts are marks."""

    role: str
    content: tuple[Part, ...]


def frame(
    render: Render,
    instruction: str,
    history: Sequence[Turn] = (),
    content: Sequence[Part] = ("",),
    *,
    in_parts: bool = False,
) -> Framed:
    """Return the prompt that `render` makes of instruction and history, cut open after the user's `content`.

    `content` has no two texts in a row and ends with one; a user's text that is not known yet is an empty one.
    `in_parts` writes each message as a list of its parts, as templates of models that see want it. A template without
    a system role (it raises, or leaves the text out) gets what belongs there at the start of the first user turn.
    Raises `ModelError` if the template does not hold each text exactly once, in order.
    """
    given, turns = opening(instruction, history)
    marks = [f"NORMLOOM-GIVEN-{position}-MARK" for position in range(len(given))]
    dialogue = [_Said(turn.role, (f"NORMLOOM-TURN-{position}-MARK",)) for position, turn in enumerate(turns)]
    user = [
        f"NORMLOOM-PART-{position}-MARK" if isinstance(part, str) else part for position, part in enumerate(content)
    ]
    user[-1] = _USER
    dialogue.append(_Said(USER, tuple(user)))
    text, folded = _rendered(render, marks, dialogue, in_parts=in_parts or len(user) > 1)

    texts = [content + BREAK for content in given]
    if given and not folded:
        texts[-1] = given[-1]
    texts += [turn.content for turn in turns]
    texts += [part for part in content if isinstance(part, str)]
    spoken = [part for said in dialogue for part in said.content if isinstance(part, str)]
    pieces: list[Piece] = []
    for mark, written in zip([*marks, *spoken], texts, strict=True):
        before, text = _cut(text, mark)
        pieces += [Piece(before, control=True), Piece(written, control=False)]
    if pieces[-1] == Piece("", control=False):
        pieces.pop()
    constant = 2 * bool(instruction) if history or len(user) > 1 else len(pieces)
    return Framed(tuple(pieces[:constant]), tuple(pieces[constant:]), text)


def _rendered(render: Render, marks: Sequence[str], dialogue: Sequence[_Said], *, in_parts: bool) -> tuple[str, bool]:
    """Return the template's text, and whether what belongs into the system message is in the first user turn."""
    lead = "".join(marks)
    if not marks:
        return render(_messages(dialogue, in_parts=in_parts)), False
    try:
        text = render(_messages([_Said(SYSTEM, (lead,)), *dialogue], in_parts=in_parts))
    except (TemplateError, ValueError):  # "System role not supported" and the like
        text = ""
    if text.count(lead) == 1:
        return text, False
    first, rest = (dialogue[0].content, dialogue[1:]) if dialogue[0].role == USER else (("",), dialogue)
    begun = (lead + first[0], *first[1:]) if isinstance(first[0], str) else (lead, *first)
    return render(_messages([_Said(USER, begun), *rest], in_parts=in_parts)), True


def _messages(turns: Sequence[_Said], *, in_parts: bool) -> list[Message]:
    return [
        {"role": turn.role, "content": [_in_message(part) for part in turn.content] if in_parts else turn.content[0]}
        for turn in turns
    ]


def _in_message(part: Part) -> Message:
    if isinstance(part, str):
        return {"type": "text", "text": part}
    return {"type": "audio" if isinstance(part, Sound) else "image"}


def _cut(text: str, mark: str) -> tuple[str, str]:
    if text.count(mark) != 1:
        raise ModelError(f"the chat template holds a message {text.count(mark)} times; expected it once")
    before, after = text.split(mark)
    return before, after


class Chat:
    """Turns instructions, row texts and answers into token ids with one model's tokenizer and chat template.

    `tokenizer` is a fast transformers tokenizer; `variables` go to its template (`enable_thinking`, say). With `senses`
    requests may hold images, sounds or both.
    """

    def __init__(
        self, tokenizer: Any, *, name: str, variables: Mapping[str, Any] | None = None, senses: Senses | None = None
    ) -> None:
        if not tokenizer.chat_template:
            raise ModelError(f"model {name!r} has no chat template; use its instruction-tuned version")
        if not hasattr(tokenizer, "backend_tokenizer"):
            raise ModelError(
                f"model {name!r} has no fast tokenizer (tokenizer.json), without which row text cannot be "
                "kept apart from control tokens"
            )
        self._tokenizer = tokenizer
        self._name = name
        self._senses = senses
        self._variables = dict(variables or {})
        self._in_parts = senses is not None and self._wants_parts()
        self._plain = _plain_tokenizer(tokenizer)
        self.framed = lru_cache(maxsize=256)(self._framed)
        self.answer = lru_cache(maxsize=4096)(self._answer)

    def plain(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the token ids of texts in which nothing is a control token."""
        return [encoding.ids for encoding in self._plain.encode_batch(list(texts), add_special_tokens=False)]

    def framed_after(
        self, instruction: str, history: tuple[Turn, ...], content: Content
    ) -> tuple[list[int], list[int], list[int]]:
        """Return the ids of head, of history with the user's content, and of tail.

        `ModelError` if the template refuses such a conversation, `ConfigError` for media that the model does not take.
        """
        media = media_of(content)
        if not history and not media:
            head, tail = self.framed(instruction)
            return head, self.plain([text_of(content)])[0], tail
        self._require_senses(media)
        try:
            parts = frame(self._render, instruction, history, merged(content), in_parts=self._in_parts)
        except (TemplateError, ValueError) as error:  # "Conversation roles must alternate" and the like
            raise ModelError(f"the model's chat template refuses the conversation: {error}") from error
        shown = iter(media)
        said = self._ids(parts.said, shown)
        if left := len(list(shown)):
            raise ModelError(
                f"the chat template of model {self._name!r} leaves out {left} of {len(media)} images and sounds"
            )
        return self._ids(parts.head), said, self._ids([Piece(parts.tail, control=True)])

    def added(self, media: Sequence[Image | Sound]) -> int:
        """Return the tokens that the engine adds to a prompt with these media."""
        return sum(map(self._senses.added, media)) if self._senses else 0

    def _require_senses(self, media: Sequence[Image | Sound]) -> None:
        marks = self._senses.marks if self._senses else {}
        if lost := [medium for medium in media if type(medium) not in marks]:
            verb = "hear" if isinstance(lost[0], Sound) else "see"
            raise ConfigError(
                f"model {self._name!r} cannot {verb} {lost[0].kind}s, and a request holds {len(lost)} of them"
            )

    def _framed(self, instruction: str) -> EncodedFrame:
        """Return the ids before and after the user's text under `instruction`."""
        parts = frame(self._render, instruction, in_parts=self._in_parts)
        return EncodedFrame(self._ids(parts.head), self._ids([Piece(parts.tail, control=True)]))

    def _wants_parts(self) -> bool:
        """Return whether the template takes messages only as lists of parts."""
        try:
            frame(self._render, "")
        except (TemplateError, TypeError, ValueError, ModelError):
            return True
        return False

    def _ids(self, pieces: Sequence[Piece], media: Iterator[Image | Sound] = iter(())) -> list[int]:  # noqa: B008  # empty
        return [token for piece in pieces for token in self._encode_with(piece, media)]

    def _encode_with(self, piece: Piece, media: Iterator[Image | Sound]) -> list[int]:
        """Return the ids of a piece, in which the template's marks of media are the tokens of the next ones."""
        if self._senses is None or not piece.control:
            return self._encode(piece)
        kinds = {mark: kind for kind, mark in self._senses.marks.items()}
        first, *others = re.split(f"({'|'.join(map(re.escape, kinds))})", piece.text)
        ids = self._encode(Piece(first, control=True))
        for mark, text in zip(others[::2], others[1::2], strict=True):
            medium = next(media, None)
            if medium is None or not isinstance(medium, kinds[mark]):
                raise ModelError(
                    f"the chat template of model {self._name!r} shows more {kinds[mark].kind}s than the request has, "
                    "or in another order"
                )
            ids += [*self._senses.tokens(medium), *self._encode(Piece(text, control=True))]
        return ids

    def _answer(self, instruction: str, answer: str) -> int:
        """Return the one token that `answer` is at the start of the reply; `ConfigError` if it is not one."""
        tail = frame(self._render, instruction, in_parts=self._in_parts).tail
        before = self._encode(Piece(tail, control=True))
        after = self._encode(Piece(tail + answer, control=True))
        if after[:-1] != before:
            pieces = self._tokenizer.convert_ids_to_tokens(self.plain([answer])[0])
            raise ConfigError(
                f"answer {answer!r} is not one token at the start of a reply but {len(pieces)} "
                f"({' | '.join(pieces)}); choose answers of one token, such as 'Yes', 'No' or a letter"
            )
        return after[-1]

    def _render(self, messages: list[Message]) -> str:
        return str(
            self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True, **self._variables)
        )

    def _encode(self, piece: Piece) -> list[int]:
        if piece.control:
            return list(self._tokenizer(piece.text, add_special_tokens=False)["input_ids"])
        return self.plain([piece.text])[0]


def _plain_tokenizer(tokenizer: Any) -> Tokenizer:
    """Return a copy of the tokenizer that reads control tokens as ordinary text.

    `encode_special_tokens` does so for tokens declared special; those that the template uses without declaring
    them (`<think>`, `<tool_call>`) are declared here. Added tokens of blanks stay: they are ordinary text.
    """
    plain = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    template = str(tokenizer.chat_template)
    used = [
        token.content
        for token in tokenizer.added_tokens_decoder.values()
        if not token.special and token.content.strip() and token.content in template
    ]
    plain.add_special_tokens([AddedToken(content, special=True) for content in used])
    plain.encode_special_tokens = True
    plain.no_truncation()
    plain.no_padding()
    return plain
