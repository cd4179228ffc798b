"""The Prefect block by which a server posts to webhooks; it must be known where the server runs."""

from __future__ import annotations

from functools import partial
from http import HTTPStatus
from typing import Any

from httpx import AsyncClient, AsyncHTTPTransport, Response, TransportError
from prefect.blocks.webhook import Webhook

from normloom.models.openai.rate_limit import seconds_asked
from normloom.prefect.notifications.resend import Refusal, resend

_PASSING = {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS}


class WebhookNotification(Webhook):
    """Posts notifications to a webhook, again if it is not reached or answers 408, 425, 429 or 5xx."""

    _block_type_name = "Webhook, sent again if refused"
    _block_type_slug = "normloom-webhook"

    def block_initialization(self) -> None:
        """Take connections of its own: Prefect's are shared, and the first call that ends closes those of others."""
        super().block_initialization()
        if self.allow_private_urls:
            self._client = AsyncClient(transport=AsyncHTTPTransport(verify=self.verify))

    async def call(self, payload: dict[str, Any] | str | None = None) -> Response:
        """Post a payload and return the answer, also one that refuses; raises httpx.TransportError if there is none."""
        try:
            response = await super().call(payload)
        except TransportError as error:
            resend(self, partial(self._again, payload), Refusal(repr(error)))
            raise
        if refusal := _refusal(response):
            resend(self, partial(self._again, payload), refusal)
        return response

    async def _again(self, payload: dict[str, Any] | str | None) -> Refusal | None:
        self.block_initialization()  # a client serves once
        try:
            return _refusal(await super().call(payload))
        except TransportError as error:
            return Refusal(repr(error))


def _refusal(response: Response) -> Refusal | None:
    if not response.is_error:
        return None
    passing = response.is_server_error or response.status_code in _PASSING
    return Refusal(f"status {response.status_code}", passing, seconds_asked(response.headers))
