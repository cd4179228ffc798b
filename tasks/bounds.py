"""What the stages of this package make and ask at most (`normloom.core.bounds` says how tokens are bounded)."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from normloom.core.bounds import CHAT, REREAD, Bound, Size, total
from normloom.schemas.template import Template

_PLACEHOLDER = re.compile(r"\$(?:(\w+)|\{(\w+)\})")
_PICTURE = 4_096  # tokens that most models read a picture as, at most
_PICTURES = 2  # of a question: an example's and the meme's
_SOUND = 4_096  # tokens that most models read a sound of minutes as
_PERSON = 200  # bytes that describe a person or a group
_CONTEXT = ("instruction", "context")
_QUESTION = (*_CONTEXT, "question")
_PROMPT = ("instruction", "prompt")
_SENTENCE = 4  # bytes of the shortest sentence
_CALIBRATION = 16  # bytes of the empty response that a judge is asked about


def as_many(stage: Any, inputs: Sequence[Size], sides: Sequence[Size]) -> Bound:  # as all are called
    """Of a stage that makes no more rows than it reads."""
    return Bound(size=total(inputs))


def of_sides(stage: Any, inputs: Sequence[Size], sides: Sequence[Size]) -> Bound:
    """Of a stage that chooses among the rows of its side tables."""
    return Bound(size=total(sides))


def first_rows(stage: Any, inputs: Sequence[Size], sides: Sequence[Size]) -> Bound:
    """Of a stage that takes the first rows, at most its argument `limit`."""
    read = total(inputs)
    given = stage.given
    rows = min(read.rows, given["limit"] or read.rows)
    return Bound(size=Size(rows=rows, tokens=min(read.tokens, rows * read.longest), longest=read.longest))


def joined(stage: Any, inputs: Sequence[Size], sides: Sequence[Size]) -> Bound:
    """Of a stage whose rows are those it reads, each with a text of its first side table."""
    rows, longest = total(inputs).rows, sides[0].longest
    return Bound(size=Size(rows=rows, tokens=rows * longest, longest=longest))


def labels_asked(stage: Any, inputs: Sequence[Size], sides: Sequence[Size]) -> Bound:
    """A question about each label, or about as many of each dimension as are on the shortlist."""
    given, template = stage.given, stage.given["template"]
    k = stage.inputs[0].given.get("shortlist")
    asked, longest, text = 0, 0, 0
    for taxonomy in given["taxonomies"]:
        lengths = [_length(taxonomy.dimension, label.name, label.definition) for label in taxonomy.labels]
        number = min(k or len(lengths), len(lengths))
        asked += number
        longest = max(longest, *lengths)
        text += number * longest
    return _questions(inputs, template, _QUESTION, count=asked, once=text)


def labels_ranked(stage: Any, inputs: Sequence[Size], sides: Sequence[Size]) -> Bound:
    """A question about each dimension, with the codes of its labels."""
    given, template = stage.given, stage.given["rank_template"]
    text = sum(
        2 * _length(taxonomy.dimension) + sum(_length(label.name) + 4 for label in taxonomy.labels)
        for taxonomy in given["taxonomies"]
    )
    return _questions(inputs, template, _QUESTION, count=len(given["taxonomies"]), once=text)


def types_asked(stage: Any, inputs: Sequence[Size], sides: Sequence[Size]) -> Bound:
    """One question, with the codes and definitions of the types."""
    given = stage.given
    text = sum(_length(label.name, label.definition) + 8 for label in given["types"].labels)
    return _questions(inputs, given["template"], _QUESTION, count=1, once=text)


def sparse_labels(stage: Any, inputs: Sequence[Size], sides: Sequence[Size]) -> Bound:
    """Each label that may be sparse, with its examples."""
    return _gaps(stage.given, total(inputs), groups=1)


def sparse_labels_of_groups(stage: Any, inputs: Sequence[Size], sides: Sequence[Size]) -> Bound:
    """Each label that may be sparse in each group; there are at most as many groups as rows."""
    read = total(inputs)
    return _gaps(stage.given, read, groups=read.rows)


def drafted(stage: Any, inputs: Sequence[Size], sides: Sequence[Size]) -> Bound:
    """The budget of draws for each gap, each a request with the label and its examples."""
    given, [gaps] = stage.given, inputs
    quota = stage.inputs[0].given["quota"]
    draws = round(given["draws_per_prompt"] * quota)
    label = max(_length(label.name, label.definition) for taxonomy in given["taxonomies"] for label in taxonomy.labels)
    each = _of(given["template"], *_PROMPT) + CHAT
    repeats = _repeats(given["template"], *_PROMPT)
    limit = given["sampling"].max_tokens
    requests = gaps.rows * draws
    written = REREAD * limit + _PERSON  # a text begins with its group where there is one
    rows = gaps.rows * min(quota, draws)
    return Bound(
        size=Size(rows=rows, tokens=rows * written, longest=written if rows else 0),
        requests=requests,
        tokens_in=requests * (each + repeats * (label + _PERSON)) + repeats * draws * gaps.tokens,
        tokens_out=requests * limit,
    )


def candidates_drawn(stage: Any, inputs: Sequence[Size], sides: Sequence[Size]) -> Bound:
    """As many candidates as are drawn for each prompt, or for each shortfall of every generator."""
    given = stage.given
    sections = ("instruction", "resample") if "diagnosis" in stage.inputs[0].given else _PROMPT
    limit = given["sampling"].max_tokens
    return _texts(inputs, given["template"], sections, copies=given["candidates"], limit=limit)


def checks_asked(stage: Any, inputs: Sequence[Size], sides: Sequence[Size]) -> Bound:
    """A question for each check, and those about the empty response in each part."""
    given, template = stage.given, stage.given["template"]
    names = [f"question {check}" for check in (*given["dimensions"], "on_task")]
    once = _of(template, *names)
    found = _questions(inputs, template, _CONTEXT, count=len(names), once=once)
    if given["calibration"] != "content_free":
        return found
    rows = total(inputs).rows
    parts = math.ceil(rows / (stage.part_rows or max(rows, 1)))
    size = Size(rows=parts, tokens=parts * _CALIBRATION)
    empty = _questions([size], template, _CONTEXT, count=len(names), once=once)
    return Bound(
        size=found.size,
        requests=found.requests + empty.requests,
        tokens_in=found.tokens_in + empty.tokens_in,
        questions=True,
    )


def shortfalls(stage: Any, inputs: Sequence[Size], sides: Sequence[Size]) -> Bound:
    """Each prompt, generator and alignment, with the response that came nearest."""
    response = max(side.longest for side in sides)
    return Bound(size=total(inputs).times(2 * len(stage.given["generators"]), more=response + _CALIBRATION))


def diagnosed(stage: Any, inputs: Sequence[Size], sides: Sequence[Size]) -> Bound:
    """One text for each shortfall, which names a verdict and its reason."""
    given = stage.given
    limit = given["diagnosis"].max_tokens
    return _texts(inputs, given["diagnosis_template"], _PROMPT, copies=1, limit=limit, more=_PERSON)


def responses_judged(stage: Any, inputs: Sequence[Size], sides: Sequence[Size]) -> Bound:
    """A question over all, and one about each dimension."""
    given, template = stage.given, stage.given["template"]
    names = [f"question {name}" for name in ("misaligned", *given["dimensions"])]
    return _questions(inputs, template, _CONTEXT, count=len(names), once=_of(template, *names))


def verdicts_written(stage: Any, inputs: Sequence[Size], sides: Sequence[Size]) -> Bound:
    """A verdict in each run."""
    given, sections = stage.given, ("written instruction", "written prompt")
    limit = given["sampling"].max_tokens
    return _texts(inputs, given["template"], sections, copies=given["runs"], limit=limit)


def prompts_answered(stage: Any, inputs: Sequence[Size], sides: Sequence[Size]) -> Bound:
    """An answer for each prompt and run."""
    given = stage.given
    limit = given["sampling"].max_tokens
    return _texts(inputs, given["template"], _PROMPT, copies=given["runs"], limit=limit)


def persona_replies(stage: Any, inputs: Sequence[Size], sides: Sequence[Size]) -> Bound:
    """The replies that are drawn for each prompt."""
    given = stage.given
    limit = given["sampling"].max_tokens
    return _texts(inputs, given["template"], _PROMPT, copies=given["replies"], limit=limit)


def replies_of_systems(stage: Any, inputs: Sequence[Size], sides: Sequence[Size]) -> Bound:
    """A reply to each prompt, which is asked as it is."""
    limit, read = stage.given["sampling"].max_tokens, total(inputs)
    return Bound(
        size=read.times(1, more=REREAD * limit),
        requests=read.rows,
        tokens_in=read.rows * CHAT + read.tokens,
        tokens_out=read.rows * limit,
    )


def replies_judged(stage: Any, inputs: Sequence[Size], sides: Sequence[Size]) -> Bound:
    """A question about each sentence of the persona (at most as many as its bytes) and the reference."""
    given, prompts = stage.given, sides[0]
    asked = max(prompts.longest // _SENTENCE, 1) + 1
    found = _questions(inputs, given["template"], _QUESTION, count=asked, once=prompts.longest)
    size = total(inputs)
    return replace(found, size=Size(rows=2 * size.rows, tokens=2 * size.tokens, longest=size.longest))


def replies_compared(stage: Any, inputs: Sequence[Size], sides: Sequence[Size]) -> Bound:
    """Two questions about each reply, with the prompt and the reply that it is compared with."""
    given = stage.given
    limit, once = given["sampling"].max_tokens, 2 * sides[0].longest
    found = _questions(inputs, given["template"], _QUESTION, count=2, once=once)
    size = found.size.times(2, more=REREAD * limit)
    if given["by"] == "scored":
        return replace(found, size=size)
    return replace(found, size=size, tokens_out=found.requests * limit, questions=False)


def persons_asked(stage: Any, inputs: Sequence[Size], sides: Sequence[Size]) -> Bound:
    """One question for each conversation and person."""
    return _questions(inputs, stage.given["template"], _QUESTION, count=1, once=_PERSON)


def texts_of_memes(stage: Any, inputs: Sequence[Size], sides: Sequence[Size]) -> Bound:
    """The text of each meme in each language, with its translation."""
    size = total(inputs).times(len(set(stage.given["countries"].values())))
    return Bound(size=replace(size, tokens=2 * size.tokens, longest=2 * size.longest))


def cells_of_grid(stage: Any, inputs: Sequence[Size], sides: Sequence[Size]) -> Bound:
    """A question for each item, cell of the grid and order of the options, with an example in those that show one."""
    args, read = stage.given, total(inputs)
    cells = len(args["shots"]) * len(args["prompt_languages"]) * len(args["text_versions"])
    longest = _length(*args["template"].sections.values()) + read.longest + sides[0].longest
    rows = 2 * cells * read.rows
    return Bound(size=Size(rows=rows, tokens=rows * longest, longest=longest))


def cells_scored(stage: Any, inputs: Sequence[Size], sides: Sequence[Size]) -> Bound:
    """One question for each row, whose texts are the whole prompt, maybe with pictures."""
    read = total(inputs)
    tokens = read.tokens + read.rows * (CHAT + _seen(stage))
    return Bound(size=read, requests=read.rows, tokens_in=tokens, questions=True)


def cells_written(stage: Any, inputs: Sequence[Size], sides: Sequence[Size]) -> Bound:
    """One reply for each row, whose texts are the whole prompt, maybe with pictures."""
    read, limit = total(inputs), stage.given["sampling"].max_tokens
    return Bound(
        size=read.times(1, more=REREAD * limit),
        requests=read.rows,
        tokens_in=read.tokens + read.rows * (CHAT + _seen(stage)),
        tokens_out=read.rows * limit,
    )


def slots_reworded(stage: Any, inputs: Sequence[Size], sides: Sequence[Size]) -> Bound:
    """The three slots of an explanation that are reworded; each holds a part of its text."""
    given = stage.given
    return _texts(inputs, given["template"], _PROMPT, copies=3, limit=given["sampling"].max_tokens)


def _seen(stage: Any) -> int:
    return (_PICTURES * _PICTURE if stage.images else 0) + (_SOUND if stage.sounds else 0)


def conversations_found(stage: Any, inputs: Sequence[Size], sides: Sequence[Size]) -> Bound:
    """No more conversations than ratings, each turn with the name of its speaker."""
    return Bound(size=total(inputs).times(1, more=_PERSON))


def _gaps(given: Mapping[str, Any], read: Size, *, groups: int) -> Bound:
    labels = sum(len(taxonomy.labels) for taxonomy in given["taxonomies"])
    rows = labels * groups if given["minimum"] else 0
    longest = given["examples"] * (read.longest + 4) + _PERSON
    return Bound(size=Size(rows=rows, tokens=rows * longest, longest=longest if rows else 0))


def _questions(
    inputs: Sequence[Size], template: Template, sections: Sequence[str], *, count: int, once: int, more: int = 0
) -> Bound:
    """Of `count` questions about each row: `sections` in every request, `once` bytes in all of a row's."""
    read, each = total(inputs), _of(template, *sections) + more + CHAT
    text = read.rows * once + count * read.tokens
    return Bound(
        size=read,
        requests=read.rows * count,
        tokens_in=read.rows * count * each + _repeats(template, *sections) * text,
        questions=True,
    )


def _texts(
    inputs: Sequence[Size], template: Template, sections: Sequence[str], *, copies: int, limit: int, more: int = 0
) -> Bound:
    """Of `copies` texts of up to `limit` tokens written for each row."""
    read, each = total(inputs), _of(template, *sections) + more + CHAT
    requests = read.rows * copies
    return Bound(
        size=read.times(copies, more=REREAD * limit),
        requests=requests,
        tokens_in=requests * each + _repeats(template, *sections) * copies * read.tokens,
        tokens_out=requests * limit,
    )


def _repeats(template: Template, *sections: str) -> int:
    """Return how often the placeholder that occurs most is filled in one request."""
    text = "\n".join(template.sections.get(name, "") for name in sections)
    names = [named or braced for named, braced in _PLACEHOLDER.findall(text)]
    return max(Counter(names).values(), default=1)


def _of(template: Template, *sections: str) -> int:
    return sum(_length(template.sections[name]) for name in sections if name in template.sections)


def _length(*texts: str) -> int:
    return sum(len(text.encode()) for text in texts)
