"""The loop with people: whom an analyst is asked about, who gets an offer, and what their answers teach."""

from __future__ import annotations

from normloom.core.stage import Stage
from normloom.flows.persopilot.config import PersoPilotConfig
from normloom.labelling.asking import Asking
from normloom.labelling.questions import LabelSchema, Question
from normloom.schemas.people.analyst_tables import ACCEPT, ACCEPTED, DECISIONS, DECLINE, DECLINED, REPLIES, REPLY, SIDE
from normloom.tasks.labels.ask import queue
from normloom.tasks.labels.recorded import labels as labels_of
from normloom.tasks.personas.assist import assistance
from normloom.tasks.personas.classifier import leave_one_out
from normloom.tasks.personas.figures import loop_figures
from normloom.tasks.personas.members import learned, members
from normloom.tasks.personas.offers import offers, taught
from normloom.tasks.personas.rounds import rounds
from normloom.tasks.personas.unlabelled import candidates, predictions, suggestions

DECIDING = Asking(
    name=DECISIONS,
    asks=LabelSchema(
        questions={SIDE: Question(text="Which side is this user on?", options=(ACCEPT, DECLINE))},
        guidelines="Accept: the user would take the offer of the task. Go by the facts; the score may be wrong.",
    ),
    show=(
        "classification_task", "username", "accept", "decline", "strategy", "facts", "predicted", "confidence",
        "like", "because", "score", "reason", "cited",
    ),
    order="given",
    about="member",
)  # fmt: skip
OFFERING = Asking(
    name=REPLIES,
    asks=LabelSchema(questions={REPLY: Question(text="What did the user reply?", options=(ACCEPTED, DECLINED))}),
    show=("classification_task", "username", "offer"),
    order="given",
    about="member",
)


def analysed(labels: Stage, facts: Stage, config: PersoPilotConfig) -> list[Stage]:
    """Return the figures of the loop and its two queues. The build waits for neither: it uses the answers there are."""
    loop = config.loop
    decisions, replies = labels_of(DECISIONS, DECIDING.asks), labels_of(REPLIES, OFFERING.asks)
    everybody = members(labels, facts)
    known = learned(labels, everybody, facts, decisions, replies)
    since = taught(known, loop)
    ahead = predictions(everybody, loop, known, facts)
    asked = candidates(ahead, loop, known)
    assistant = config.models.assistant
    opinions = assistance(asked, config.assist, facts, assistant, name="candidate_assistance") if assistant else None
    return [
        loop_figures(leave_one_out(known, loop), rounds(known, loop), since),
        queue(suggestions(asked, facts, opinions), DECIDING),
        queue(offers(everybody, ahead, known, since, decisions), OFFERING),
    ]
