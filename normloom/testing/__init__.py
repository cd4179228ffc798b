"""The testing kit for steps, flows and systems: scripted models, tables without Prefect and Ray, a toy flow.

    from normloom.testing import language_model, made, scripted

docs/new-system.md shows a test. Nothing here is meant for builds.
"""

from __future__ import annotations

from normloom.testing.inline import made
from normloom.testing.models import embedder, language_model, scripted
from normloom.testing.toy import echo_stage, words_stage
from normloom.testing.unread import unread_settings

__all__ = ["echo_stage", "embedder", "language_model", "made", "scripted", "unread_settings", "words_stage"]
