"""What there is to tell of builds: for each kind of news what triggers it on the Prefect server, and its words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal, get_args

from normloom.prefect.notifications.notices import PREFIX, SYSTEM

News = Literal["failure", "late", "check", "shrunken", "stale"]
NEWS: tuple[News, ...] = get_args(News)
TEST: Literal["test"] = "test"
LATE = timedelta(minutes=15)

# A run that is cancelled is Crashed for a moment: a failure is reported if no Cancelled follows it.
SETTLING = timedelta(seconds=15)

_ENDED = ("Completed", "Cancelled", "Failed", "Crashed")
_EVENTS = {"check": ("check.warned", "check.failed"), TEST: ("notify.test",)}


@dataclass(frozen=True, kw_only=True)
class Subscription:
    """What a receiver is notified of: kinds of news, of which systems (none: all), and when a run counts as late."""

    news: Sequence[News] = NEWS
    systems: Sequence[str] = ()
    late: timedelta = LATE


@dataclass(frozen=True, kw_only=True)
class Wording:
    """Templates, as automations of Prefect fill them in, of what is said."""

    system: str
    subject: str
    message: str

    def payload(self, news: str) -> str:
        """Return the template of a JSON object with them; `text` is what chats show."""
        fields = {**vars(self), "text": f"{self.subject}\n{self.message}"}
        told = "".join(f'"{name}": {{% filter tojson %}}{words}{{% endfilter %}}, ' for name, words in fields.items())
        return f'{{"news": "{news}", {told}"time": {{{{ event.occurred | string | tojson }}}}}}'


def words(news: str, wanted: Subscription) -> Wording:
    """Return the words of a kind of news."""
    if news == "failure":
        why = "{{ flow_run.state.message | default('', true) | truncate(1500) }}"
        message = f"{{{{ flow_run.name }}}} is {{{{ flow_run.state.name }}}}: {why}"
        return Wording(system="{{ flow.name }}", subject="{{ flow.name }}: a build failed", message=message)
    if news == "late":
        due = "{{ flow_run.expected_start_time }}"
        message = f"{{{{ flow_run.name }}}} was due at {due} and has not started {wanted.late} (h:mm:ss) later"
        return Wording(system="{{ flow.name }}", subject="{{ flow.name }}: a scheduled build is late", message=message)
    system = f"{{{{ event.resource['{SYSTEM}'] }}}}"
    return Wording(system=system, subject="{{ event.payload.subject }}", message="{{ event.payload.message }}")


def trigger(news: str, wanted: Subscription) -> dict[str, Any]:
    """Return what a kind of news is triggered by."""
    if news == "failure":
        return _not_followed(("Failed", "Crashed", "TimedOut"), ("Cancelled",), SETTLING, wanted)
    if news == "late":
        return _not_followed(("Late",), ("Running", *_ENDED), wanted.late, wanted)
    return {
        "type": "event",
        "posture": "Reactive",
        "match": {"prefect.resource.id": f"{PREFIX}.*", SYSTEM: list(wanted.systems) or "*"},
        "expect": [f"{PREFIX}.{event}" for event in _EVENTS.get(news, (f"release.{news}",))],
        "threshold": 1,
        "within": 0,
    }


def _not_followed(states: Sequence[str], by: Sequence[str], within: timedelta, wanted: Subscription) -> dict[str, Any]:
    """Return what is triggered by runs in some states that do not get to others in time."""
    flow = {"prefect.resource.role": "flow", "prefect.resource.name": list(wanted.systems)}
    return {
        "type": "event",
        "posture": "Proactive",
        "match": {"prefect.resource.id": "prefect.flow-run.*"},
        "match_related": flow if wanted.systems else {},
        "for_each": ["prefect.resource.id"],
        "after": [f"prefect.flow-run.{state}" for state in states],
        "expect": [f"prefect.flow-run.{state}" for state in by],
        "threshold": 1,
        "within": within.total_seconds(),
    }
