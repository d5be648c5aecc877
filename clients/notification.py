"""Telling people: `TENURE_NOTIFY_URLS` takes e-mail, Slack, SNS, webhooks and all else that Apprise knows."""

from __future__ import annotations

import logging
import warnings
from collections import Counter
from typing import TYPE_CHECKING, Literal, Self

from clients.settings import Settings

if TYPE_CHECKING:
    from apprise import Apprise

logger = logging.getLogger("tenure.notification")

Kind = Literal["gate", "rollback", "drift", "sink", "run"]
"""What happened: the gate's no, a canary taken back, drift, a sink that loses events, a failed run."""

TIMEOUT_SECONDS = 10.0
"""A channel that has not taken a message by then counts as dead."""

_FAILURES: tuple[Kind, ...] = ("sink", "run")
"""These are told as failures, the others as warnings."""


class Notifier:
    """Sends messages to every channel that is set. Threads may share it.

    Attributes:
        counts: How many messages were "sent" and "failed", one for each channel, since it was made.
    """

    def __init__(self, channels: Apprise | None) -> None:
        self._channels = channels
        self.counts: Counter[str] = Counter(sent=0, failed=0)

    @classmethod
    def connect(cls, settings: Settings) -> Self:
        """Read the channels; nothing is asked of them yet.

        An address that Apprise does not understand is told in the log by its place: addresses hold secrets.
        """
        urls = settings.notify_urls.get_secret_value().split() if settings.notify_urls else []
        if not urls:
            logger.info("TENURE_NOTIFY_URLS is not set: alarms are in the logs only")
            return cls(None)
        from apprise import Apprise, AppriseAsset

        # What these log may quote addresses, the latter only when debugging.
        logging.getLogger("apprise").setLevel(logging.CRITICAL + 1)
        logging.getLogger("urllib3.connectionpool").setLevel(logging.INFO)
        channels = Apprise(asset=AppriseAsset(app_id="Tenure", app_desc="Tenure", app_url=""))
        for place, url in enumerate(urls, start=1):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # of modules that its plugins import
                understood = channels.add(url)
            if not understood:
                logger.error(
                    "TENURE_NOTIFY_URLS: Apprise does not understand address %d of %d, nobody is told there; "
                    "try it with `apprise -vv --body=test ADDRESS`",
                    place,
                    len(urls),
                )
        return cls(channels)

    def notify(self, kind: Kind, title: str, body: str) -> bool:
        """Tell every channel at once, and wait for at most 10 s until they have taken the message.

        Args:
            kind: What happened.
            title: One line.
            body: Plain text.

        Returns:
            Whether there are channels and each has taken it. A dead one is logged and counted, never raised.
        """
        if self._channels is None or not len(self._channels):
            return False
        from apprise import NotifyFormat, NotifyType

        result = self._channels.notify(
            body=body,
            title=title,
            notify_type=NotifyType.FAILURE if kind in _FAILURES else NotifyType.WARNING,
            body_format=NotifyFormat.TEXT,
            interpret_escapes=False,
            timeout=TIMEOUT_SECONDS,
            log_level=logging.CRITICAL,
        )
        dead = [one for one in result.results if one.status != 0]
        # Without any result the call itself went wrong.
        failed = len(dead) if result.results else len(self._channels)
        self.counts["failed"] += failed
        self.counts["sent"] += len(self._channels) - failed
        for one in dead:
            logger.error(
                "%s was not told of %r (%s, %s); try its address with `apprise -vv --body=test ADDRESS`",
                one.name,
                title,
                kind,
                one.status.name.lower(),
            )
        if failed and not dead:
            logger.error("nobody was told of %r (%s): Apprise ended with %s", title, kind, result.status.name)
        return not failed
