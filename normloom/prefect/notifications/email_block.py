"""The Prefect block by which a server sends e-mail; it must be known where the server runs.

`normloom serve` imports it, other servers find it by the entry point `prefect.collections` of the installed package.
"""

from __future__ import annotations

from functools import partial

from prefect.blocks.abstract import NotificationError
from prefect.blocks.notifications import AppriseNotificationBlock

import normloom.prefect.notifications.webhook_block  # noqa: F401  # servers are led here alone, and must know it too
from normloom.prefect.notifications.resend import Refusal, resend


class EmailNotification(AppriseNotificationBlock):
    """Sends notifications by e-mail; `url` is Apprise's: mailtos://USER:PASSWORD@SERVER:PORT?from=...&to=...

    Apprise does not say whether a refusal is for good, so each is sent again.
    """

    _block_type_name = "E-mail by SMTP"
    _block_type_slug = "normloom-email"

    async def notify(self, body: str, subject: str | None = None) -> None:
        """Send an e-mail; raises NotificationError, if the caller wants that, when it is refused."""
        try:
            await super().anotify(body, subject)
        except NotificationError as error:
            resend(self, partial(self._again, body, subject), Refusal(error.log))
            raise

    async def _again(self, body: str, subject: str | None) -> Refusal | None:
        try:
            with self.raise_on_failure():
                await super().anotify(body, subject)
        except NotificationError as error:
            return Refusal(error.log)
        return None
