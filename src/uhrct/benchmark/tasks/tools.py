"""The segmenters and detectors of a benchmark of tasks, and what they give for a scan."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from uhrct.benchmark.tasks.cases import Scan
from uhrct.benchmark.tasks.config import CLASSICAL
from uhrct.benchmark.tasks.vessel12 import score_marks
from uhrct.core.errors import InputRefused, UhrctError
from uhrct.core.volume import Volume
from uhrct.evaluation.froc import Place
from uhrct.evaluation.trees import TreeReference, score_tree
from uhrct.tasks.detect import Searched, detect, search
from uhrct.tasks.mask_network import MaskNetwork
from uhrct.tasks.nodule_network import NoduleNetwork
from uhrct.tasks.segment import load_network, segment

#: tasks that use the segmenter of another one
MARKED = {"vessel_points": "vessels"}


@dataclass(frozen=True)
class Tool:
    """A segmenter or detector.

    Parameters
    ----------
    task : "vessels", "vessel_points", "airways" or "nodules"
    name : "classical", or a name or folder of weights
    sha256 : of the weights, "" without
    network, nodules : of a segmenter, or of a detector
    """

    task: str
    name: str
    sha256: str = ""
    network: MaskNetwork | None = None
    nodules: NoduleNetwork | None = None

    @classmethod
    def of(cls, task: str, name: str, device: str = "cpu") -> Tool:
        """Load the weights of a tool, if it has any.

        Raises
        ------
        UhrctError
            If there are no such weights, or they are of another task.
        """
        if name == CLASSICAL:
            return cls(task, name)
        if task == "nodules":
            nodules = NoduleNetwork.from_pretrained(name, device)
            return cls(task, name, nodules.weights_sha256[:12], nodules=nodules)
        network = load_network(name, MARKED.get(task, task), device)
        return cls(task, name, network.weights_sha256[:12], network)

    def measure(
        self, volume: Volume, scan: Scan, kept: dict[str, Searched]
    ) -> tuple[dict[str, Any], np.ndarray | None]:
        """(what a row holds about a volume, the mask that was found if it is a tree).

        A volume in which the tool finds nothing, or that it refuses, has no findings; the reason is kept.

        Parameters
        ----------
        kept : for tools that search the same volume; the first one stores its candidates in it
        """
        if self.task == "nodules":
            return self._nodules(volume, scan, kept), None
        reference = scan.trees.get(self.task)
        if reference is None and scan.marks is None:
            reference = self._own(scan)
            if volume is scan.volume:
                return _tree_scores(reference.mask, reference), reference.mask
        row: dict[str, Any] = {}
        try:
            mask = self._mask(volume)
        except InputRefused as reason:
            mask, row["refused"] = np.zeros(volume.shape, bool), str(reason)
        if reference is not None:
            return row | _tree_scores(mask, reference), mask
        assert scan.marks is not None
        return row | {"values": score_marks(mask, scan.marks)}, None

    def _mask(self, volume: Volume) -> np.ndarray:
        return segment(volume, MARKED.get(self.task, self.task), network=self.network).labels > 0

    def _own(self, scan: Scan) -> TreeReference:
        """The reference where nobody made a mask: what this tool finds in the true scan. It is found once."""
        key = self.task, self.name
        if key not in scan.found:
            try:
                scan.found[key] = TreeReference.of(self._mask(scan.volume), scan.volume.spacing_mm)
            except UhrctError as reason:
                raise UhrctError(f"{self.name} finds no {self.task} in the true scan ({reason})") from reason
        return scan.found[key]

    def _nodules(self, volume: Volume, scan: Scan, kept: dict[str, Searched]) -> dict[str, Any]:
        row: dict[str, Any] = {}
        try:
            kept["nodules"] = kept.get("nodules") or search(volume)
            nodules = detect(volume, network=self.nodules, searched=kept["nodules"])
            found = [Place(n.centre_mm, score=n.score) for n in nodules]
        except InputRefused as reason:
            found, row["refused"] = [], str(reason)
        row["found"] = [[*p.centre_mm, p.score] for p in found]
        row["nodules"] = [_rounded(p) for p in scan.nodules]
        row["excluded"] = [_rounded(p) for p in scan.excluded]
        return row


def _tree_scores(mask: np.ndarray, reference: TreeReference) -> dict[str, Any]:
    scores = score_tree(mask, reference)
    return {"values": scores.values, "found_mm": scores.found_mm, "whole_mm": scores.whole_mm}


def _rounded(place: Place) -> list[float]:
    return [round(float(v), 2) for v in (*place.centre_mm, place.diameter_mm)]
