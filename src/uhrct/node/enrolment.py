"""Find received series that are complete, decide by the rules, and enter them into the ledger."""

from __future__ import annotations

import os
import time
from pathlib import Path

from uhrct.batch.ledger import RUNNING, WAITING
from uhrct.batch.run import settings_hash
from uhrct.batch.series import Series
from uhrct.batch.worker import Job
from uhrct.core.errors import UhrctError
from uhrct.node.config import NodeConfig, Rule
from uhrct.node.incoming import Incoming
from uhrct.node.ledger import NodeLedger
from uhrct.node.log import LOG
from uhrct.node.rules import Decision, decide, facts_of_files


class Enrolment:
    """Looks at the folder of received series.

    Parameters
    ----------
    ledger : of the thread that calls `look`
    """

    def __init__(self, config: NodeConfig, incoming: Incoming, ledger: NodeLedger) -> None:
        self._config, self._incoming, self._ledger = config, incoming, ledger
        self._wanted = {rule.name: settings_hash(rule.settings, None, False) for rule in config.rules}
        #: time of the last change of a series when it was looked at
        self._seen: dict[str, float] = {}

    def jobs(self) -> list[Job]:
        """What workers do: one job for each set of settings."""
        threads = max(1, (os.cpu_count() or 1) // self._config.workers)
        rules = {self._wanted[rule.name]: rule for rule in self._config.rules}
        return [
            Job(self._config.outgoing.absolute(), rule.settings, wanted=wanted, threads=threads)
            for wanted, rule in rules.items()
        ]

    def look(self) -> None:
        """Enter every series that is complete, new or changed. Remove the files of those that no rule chooses."""
        now = time.time()
        quiet = []
        for folder in self._incoming.series():
            try:
                changed = folder.stat().st_mtime
            except OSError:  # removed meanwhile
                continue
            # a time in the future is that of a clock that was set back
            if (now - changed >= self._config.quiet_s or changed > now + 1) and self._seen.get(folder.name) != changed:
                quiet.append((folder, changed))
        if not quiet:
            return
        known = self._ledger.known()
        for folder, changed in quiet:
            if self._settled(folder, known.get(folder.name)):
                self._seen[folder.name] = changed
        self._seen = {name: t for name, t in self._seen.items() if (self._incoming.folder / name).exists()}

    def _settled(self, folder: Path, row: tuple[str, str, str] | None) -> bool:
        """Whether nothing more is to be done about a series in its present state."""
        series = Series(folder.name, folder)
        if row is not None:
            state, files, wanted = row
            same = files == series.state_of_files()
            # settings may have changed since it was entered; what is done stays done
            if same and not (state == WAITING and wanted not in self._wanted.values()):
                return True
        decision = self._decide(folder)
        if decision.rule is None:
            if row is None:
                LOG.info("series %s: not processed (%s); its files are removed", folder.name, decision.reason)
                self._incoming.remove(folder)
            return True
        return self._enter(series, decision.rule)

    def _enter(self, series: Series, rule: Rule) -> bool:
        self._ledger.route(series.name, rule.name, rule.send_to)
        try:
            state = self._ledger.add(series, self._wanted[rule.name])
        except UhrctError as error:
            LOG.warning("series %s: cannot be entered: %s", series.name, error)
            return True
        if state == RUNNING:  # its files changed while it is processed: look again
            return False
        LOG.info("series %s: %s by rule %s", series.name, state, rule.name)
        return True

    def _decide(self, folder: Path) -> Decision:
        files = sorted(folder.glob("*.dcm"))
        facts = facts_of_files(files)
        if facts is None:
            return Decision(None, "no file can be read")
        if self._ledger.was_sent(facts.series_uid):
            return Decision(None, "a result of uhrct")
        return decide(facts, self._config)
