"""What Prefect does not see by itself, sent to its server as events: checks, shrunken releases, stale releases.

The names of events and labels are stable: automations (those of `notify`, or people's own in Prefect's UI) act on
them. An event's payload has a `subject` in a few words and a `message`. Events are sent in the background and never
hold up or fail a build; they are no record, the store is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from normloom.core.errors import CheckError, ReleaseError
from normloom.core.table import Manifest

Happening = Literal["check.warned", "check.failed", "release.shrunken", "release.stale", "notify.test"]
PREFIX = "normloom"
SYSTEM = f"{PREFIX}.system"  # the label by which an automation picks systems
LONGEST_MESSAGE = 2_000  # characters


def telling(work: Callable[[], tuple[Manifest, bool]], *, system: str, stage: str, build: str) -> tuple[Manifest, bool]:
    """Return what `work` returns, a stage's table and whether it was there before, and tell of checks and releases.

    To be called in the stage's task run: it is named with the event.
    """

    def say(happening: Happening, subject: str, message: str) -> None:
        tell(happening, system=system, stage=stage, build=build, subject=subject, message=message)

    try:
        manifest, reused = work()
    except CheckError as error:
        say("check.failed", f"{system}: a check of {stage} failed", str(error))
        raise
    except ReleaseError as error:
        say("release.shrunken", f"{system}: the release shrank and was held back", str(error))
        raise
    warned = [check for check in manifest.checks if not check.passed and check.on_fail == "warn"]
    if warned and not reused:
        found = "; ".join(f"{check.name}: {check.detail}" for check in warned)
        say(
            "check.warned",
            f"{system}: a check of {stage} warns",
            f"stage {stage!r} is published with warnings: {found}",
        )
    return manifest, reused


def tell(  # each a label of the event
    happening: Happening, *, system: str, subject: str, message: str, stage: str = "", build: str = ""
) -> None:
    """Send an event to the Prefect server in use."""
    from prefect.events import emit_event

    name = f"{system}/{stage}" if stage else system
    labels = {SYSTEM: system, f"{PREFIX}.stage": stage, f"{PREFIX}.build": build}
    emit_event(
        event=f"{PREFIX}.{happening}",
        resource={
            "prefect.resource.id": f"{PREFIX}.{happening.partition('.')[0]}.{name}",
            "prefect.resource.name": name,
            **{label: value for label, value in labels.items() if value},
        },
        payload={"subject": subject, "message": message[:LONGEST_MESSAGE]},
    )
