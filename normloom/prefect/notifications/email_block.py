"""The Prefect block by which a server sends e-mail; it must be known where the server runs.

`normloom serve` imports it, other servers find it by the entry point `prefect.collections` of the installed package.
"""

from __future__ import annotations

from prefect.blocks.notifications import AppriseNotificationBlock


class EmailNotification(AppriseNotificationBlock):
    """Sends notifications by e-mail; `url` is Apprise's: mailtos://USER:PASSWORD@SERVER:PORT?from=...&to=..."""

    _block_type_name = "E-mail by SMTP"
    _block_type_slug = "normloom-email"
