"""PersoPilot: facts from what people say, recommendations, and who would take an offer (after arXiv 2602.04540).

Facts become personas and recommendations; labels of users are replayed round by round under three strategies, so that
no prediction ever saw the label that it is held to. Who is not labelled is put before an analyst, or gets an offer;
decisions and replies are labels of the next build. An extractor learns to read facts from utterances.
"""

from __future__ import annotations

from normloom.core.errors import ConfigError
from normloom.core.stage import Stage
from normloom.flows.persodpo.summary import sections
from normloom.flows.persopilot.analyst import analysed
from normloom.flows.persopilot.config import PersoPilotConfig
from normloom.readers import holding
from normloom.settings.faces.about import About
from normloom.settings.faces.chat_face import Conversation
from normloom.settings.system import System
from normloom.steps.products import files_of
from normloom.store.store import Store
from normloom.tasks.personas.assist import assistance
from normloom.tasks.personas.chat.known import known, turns
from normloom.tasks.personas.chat.record import chat_labels
from normloom.tasks.personas.community import personas, recommendations
from normloom.tasks.personas.extraction_figures import extraction_figures
from normloom.tasks.personas.extractor import extractor, triples
from normloom.tasks.personas.facts import LABEL, read_facts, read_labels, read_topics
from normloom.tasks.personas.utterances import held_out, read_utterances


def persopilot(config: PersoPilotConfig) -> list[Stage]:
    """Return the last stages of a replay, the personas first."""
    source = config.source
    told = read_facts(source, source=source.facts)
    people, models = chat_labels("persopilot", "person"), chat_labels("persopilot", "model")
    facts = known(told, turns(people=people), people=people, models=models)
    ends = []
    listed = source.companion("topics")
    described = personas(facts, read_topics(source=listed) if listed else told)
    ends += [described, recommendations(described)]
    if labelled := source.companion("labels"):
        labels = read_labels(facts, source=holding(labelled, LABEL))
        ends += analysed(labels, facts, config)
        if config.models.assistant:
            ends.append(assistance(labels, config.assist, facts, config.models.assistant))
    if spoken := source.companion("utterances"):
        said = read_utterances(config.extraction, source=spoken, columns=config.utterance_columns)
        trained = extractor(said, config.extraction)
        ends.append(extraction_figures(triples(held_out(said), extractor=files_of(trained))))
    return ends


def chat(config: PersoPilotConfig, store: Store, who: str) -> Conversation:
    """Return the conversation of a user with the assistant."""
    from normloom.tasks.personas.chat.conversation import PersonaChat

    if config.models.assistant is None:
        raise ConfigError("models.assistant: the chat needs a model that replies; choose a profile that has one")
    return PersonaChat(store, "persopilot", who, model=config.models.assistant, talking=config.chat)


PERSOPILOT = System(
    name="persopilot",
    title="PersoPilot",
    config=PersoPilotConfig,
    flow=persopilot,
    sections=sections,
    about=About.of("persopilot"),
    chat=chat,
)
