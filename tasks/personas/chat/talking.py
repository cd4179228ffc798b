"""What the model of a chat is asked, and what it was shown when it replied."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field

from normloom.core.models.protocol import GenerateRequest, Sampling, Turn
from normloom.core.rows.ids import seed
from normloom.schemas.template import Template, sections, template_named
from normloom.steps.args import Args
from normloom.tasks.personas.chat import record

_NOTHING = "nothing yet"


class Talking(Args):
    """How the model of the chat is asked, and what is learned from what users say."""

    template: Annotated[Template, sections(("instruction", "prompt"))] = template_named("chat")
    sampling: Sampling = Sampling(max_tokens=120)
    facts: int = Field(12, ge=0, description="most facts of the user that the model is shown, the newest")
    suggestions: int = Field(3, ge=0, description="most recommendations that the model is shown")
    turns: int = Field(3, ge=0, description="earlier messages with their replies that the model is shown")
    learn_at: float = Field(0.5, ge=0, le=1, description="probability of a relation from which a fact is learned")
    topic_margin: float = Field(0.05, ge=0, description="lead in likeness of a fact's topic; below it is unknown")


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A request, with the ids of all that is in it: turns, replies and facts."""

    request: GenerateRequest
    drew_on: Sequence[str]


def request_for(
    turn: record.Turn,
    talking: Talking,
    *,
    earlier: Sequence[tuple[record.Turn, record.Reply]],
    facts: Sequence[Mapping[str, Any]],
    suggestions: Sequence[Mapping[str, Any]],
    attempt: int = 0,
) -> Asked:
    """Return what the model is asked about a message.

    `earlier` are messages before it with their replies, `facts` what is known of the user (fact, relation, object),
    `suggestions` recommendations (relation, object, and `facts`, the ids of those they rest on), the best first.
    """
    before = list(earlier)[-talking.turns :] if talking.turns else []
    own = list(facts)[-talking.facts :] if talking.facts else []
    offered = list(suggestions)[: talking.suggestions]
    drew_on = [one.id for pair in before for one in pair]
    drew_on += [fact["fact"] for fact in own]
    drew_on += [fact for one in offered for fact in one["facts"]]
    history = [
        Turn(role, text)
        for said, reply in before
        for role, text in (("user", said.text), ("assistant", reply.text or ""))
    ]
    prompt = talking.template.render(
        "prompt", task=turn.task, facts=_listed(own), suggestions=_listed(offered), said=turn.text
    )
    request = GenerateRequest(
        instruction=talking.template.render("instruction"),
        prompt=prompt,
        seeds=(seed(turn.id, "chat", attempt),),
        sampling=talking.sampling,
        history=tuple(history),
    )
    return Asked(request=request, drew_on=tuple(dict.fromkeys(drew_on)))


def _listed(facts: Sequence[Mapping[str, Any]]) -> str:
    return "\n".join(f"- {one['relation'].replace('_', ' ')}: {one['object']}" for one in facts) or _NOTHING
