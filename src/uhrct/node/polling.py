"""Ask DICOMweb servers for new CT series, and fetch those that a rule chooses."""

from __future__ import annotations

import contextlib
import threading
from datetime import date, timedelta
from typing import Any

from pydicom import Dataset

from uhrct.node.config import NodeConfig, Poll
from uhrct.node.dicomweb import DicomWeb, WebError, value_of
from uhrct.node.incoming import OUT_OF_RESOURCES, UID_TEXT, Incoming, Refused
from uhrct.node.ledger import NodeLedger
from uhrct.node.log import LOG, in_short, short_hash
from uhrct.node.rules import Decision, decide, facts_of

STUDY_UID, SERIES_UID, COUNT = "0020000D", "0020000E", "00201209"
#: a whole series may take so many times the time for an answer
SERIES_TIMES = 60


class Poller(threading.Thread):
    """Polls one server until it is stopped."""

    def __init__(
        self,
        config: NodeConfig,
        source: Poll,
        incoming: Incoming,
        stopped: threading.Event,
    ) -> None:
        super().__init__(name="poll", daemon=True)
        self._config, self._source, self._incoming, self._stopped = config, source, incoming, stopped
        #: number of images at the last look; a series is fetched when it has stopped growing
        self._growing: dict[str, int] = {}

    def run(self) -> None:
        with contextlib.closing(NodeLedger(self._config.outgoing)) as ledger:
            while not self._stopped.is_set():
                try:
                    self.look(ledger)
                except WebError as error:
                    LOG.warning("%s: %s", self._source.url, error)
                except Exception as error:
                    LOG.warning("%s: internal error (%s)", self._source.url, in_short(error))
                self._stopped.wait(self._source.every_s)

    def look(self, ledger: NodeLedger) -> None:
        """One query, and what follows from it. Raises `WebError` if the server does not answer."""
        source = self._source
        query = {"Modality": "CT", "includefield": COUNT}
        if source.days is not None:
            query["StudyDate"] = f"{date.today() - timedelta(source.days):%Y%m%d}-"
        known = ledger.polled(source.url)
        web = DicomWeb(source.url, source.token(), source.ca, source.timeout_s)
        with contextlib.closing(web):
            for found in list(web.series(**query)):
                study, series = value_of(found, STUDY_UID), value_of(found, SERIES_UID)
                if not (UID_TEXT.fullmatch(study) and UID_TEXT.fullmatch(series)) or self._stopped.is_set():
                    continue
                name = short_hash(study, series)
                count = _whole(value_of(found, COUNT))
                if known.get(name) == count or self._growing.get(name) != count:
                    self._growing[name] = count
                    continue
                try:
                    if self._fetched(web, study, series, ledger):
                        ledger.note_polled(source.url, [(name, count)])
                except WebError as error:
                    LOG.warning("series %s: not fetched: %s", name, error)

    def _fetched(self, web: DicomWeb, study: str, series: str, ledger: NodeLedger) -> bool:
        """Fetch a series if a rule chooses it. Whether it need not be looked at again."""
        name = short_hash(study, series)
        decision = self._decide(web.metadata(study, series), series, ledger)
        if decision.rule is None:
            LOG.info("series %s: not fetched (%s)", name, decision.reason)
            return True
        count = refused = 0
        folder = ""
        most_bytes = self._source.max_series_mb * 1_000_000
        for image in web.images(study, series, most_bytes, SERIES_TIMES * self._source.timeout_s):
            try:
                folder = self._incoming.take([image]).series
                count += 1
            except Refused as error:
                LOG.warning("series %s: an image was refused: %s", name, error.reason)
                refused += 1
                if error.status == OUT_OF_RESOURCES:
                    return False
        LOG.info("series %s: fetched as %s, %d images, %d refused", name, folder or "nothing", count, refused)
        return True

    def _decide(self, headers: list[dict[str, Any]], series: str, ledger: NodeLedger) -> Decision:
        if ledger.was_sent(series):
            return Decision(None, "a result of uhrct")
        reason = "no headers"
        for header in headers:
            try:
                facts = facts_of(Dataset.from_json(header, bulk_data_uri_handler=lambda *_: b""))
            except Exception:  # pydicom raises many kinds of errors for a header that is damaged
                reason = "a damaged header"
                continue
            if not facts.localizer:
                return decide(facts, self._config)
            reason = "a localizer"
        return Decision(None, reason)


def _whole(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else -1
