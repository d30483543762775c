"""Module of 3D Slicer: super-resolve a CT volume with uhrct, which is installed outside of Slicer."""

import shutil
import tempfile
from pathlib import Path

import ctk
import qt
import slicer
import uhrct_call
import vtk
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleWidget,
)

SETTING = "UHRCT/Command"
POLL_MS = 300
NOTE = "Research use only; not a medical device."


class UHRCT(ScriptedLoadableModule):
    """Name and place of the module."""

    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        parent.title = "CT super-resolution (uhrct)"
        parent.categories = ["Filtering"]
        parent.contributors = ["the authors of uhrct"]
        parent.helpText = f"Computes finer voxels for a CT with uhrct. {NOTE} See docs/slicer.md of uhrct."


class UHRCTWidget(ScriptedLoadableModuleWidget):
    """The panel: volume, settings, path of the command, progress."""

    def setup(self):
        ScriptedLoadableModuleWidget.setup(self)
        self.logic = UHRCTLogic()
        box = ctk.ctkCollapsibleButton()
        box.text = "Super-resolution"
        self.layout.addWidget(box)
        form = qt.QFormLayout(box)

        self.volume = slicer.qMRMLNodeComboBox()
        self.volume.nodeTypes = ["vtkMRMLScalarVolumeNode"]
        self.volume.addEnabled = self.volume.removeEnabled = False
        self.volume.setMRMLScene(slicer.mrmlScene)
        form.addRow("CT volume:", self.volume)
        self.scale, self.quality = qt.QComboBox(), qt.QComboBox()
        self.scale.addItems(list(uhrct_call.SCALES))
        self.quality.addItems(list(uhrct_call.QUALITIES))
        form.addRow("Scale:", self.scale)
        form.addRow("Quality:", self.quality)
        self.denoise = ctk.ctkSliderWidget()
        self.denoise.minimum, self.denoise.maximum, self.denoise.singleStep = 0, 1, 0.05
        self.denoise.value = 0.75
        form.addRow("Noise to remove:", self.denoise)
        self.command = qt.QLineEdit(slicer.app.settings().value(SETTING, "uhrct"))
        self.check = qt.QPushButton("Check")
        row = qt.QHBoxLayout()
        row.addWidget(self.command)
        row.addWidget(self.check)
        form.addRow("uhrct command:", row)

        self.start, self.cancel = qt.QPushButton("Apply"), qt.QPushButton("Cancel")
        self.progress, self.message = qt.QProgressBar(), qt.QLabel(NOTE)
        self.message.wordWrap = True
        for widget in (self.start, self.cancel, self.progress, self.message):
            form.addRow(widget)
        self.layout.addStretch(1)
        self.timer = qt.QTimer()
        self.timer.setInterval(POLL_MS)
        self.check.connect("clicked()", self.onCheck)
        self.start.connect("clicked()", self.onStart)
        self.cancel.connect("clicked()", self.onCancel)
        self.timer.connect("timeout()", self.onTimer)
        self._running(False)

    def cleanup(self):
        self.timer.stop()
        self.logic.stop()

    def onCheck(self):
        """Whether the command starts uhrct; if so, it is remembered."""
        try:
            version = uhrct_call.checked_version(self.command.text, self.logic.environment())
        except RuntimeError as error:
            self.message.text = str(error)
            return False
        slicer.app.settings().setValue(SETTING, self.command.text)
        self.message.text = f"uhrct {version}. {NOTE}"
        return True

    def onStart(self):
        node = self.volume.currentNode()
        if node is None:
            self.message.text = "Choose a volume first."
        elif self.onCheck():
            try:
                self.logic.begin(
                    node, self.command.text, self.scale.currentText, self.quality.currentText, self.denoise.value
                )
            except (OSError, ValueError) as error:
                self.message.text = str(error)
                return
            self._running(True)

    def onCancel(self):
        self.logic.run.cancel()

    def onTimer(self):
        share, code = self.logic.run.poll()
        self.progress.value = round(100 * share)
        if code is None:
            return
        self._running(False)
        if code:
            self.message.text = self.logic.run.error()
        else:
            self.message.text = f"Done. {NOTE}"
            show_beside(self.logic.source, self.logic.load())
        self.logic.stop()

    def _running(self, yes):
        self.start.enabled, self.cancel.enabled = not yes, yes
        if yes:
            self.progress.value = 0
            self.timer.start()
        else:
            self.timer.stop()


class UHRCTLogic(ScriptedLoadableModuleLogic):
    """One run: a temporary folder with the volume, the process, and the result."""

    def __init__(self):
        ScriptedLoadableModuleLogic.__init__(self)
        self.run = self.folder = self.source = None

    def environment(self):
        """The environment for uhrct, without Slicer's own Python and libraries."""
        return uhrct_call.clean_environment(slicer.util.startupEnvironment(), slicer.app.slicerHome)

    def begin(self, node, command, scale, quality, denoise):
        """Write the volume and start uhrct."""
        self.stop()
        self.folder, self.source = Path(tempfile.mkdtemp(prefix="uhrct-slicer-")), node
        matrix = vtk.vtkMatrix4x4()
        node.GetIJKToRASMatrix(matrix)
        ijk_to_ras = [[matrix.GetElement(i, j) for j in range(4)] for i in range(4)]
        scan, self.result = self.folder / "scan.nrrd", self.folder / "result.nrrd"
        uhrct_call.write_nrrd(scan, slicer.util.arrayFromVolume(node), ijk_to_ras)
        given = uhrct_call.arguments(scan, self.result, scale, quality, denoise)
        self.run = uhrct_call.Run(command, given, self.environment(), self.folder)

    def load(self):
        """The result as a volume of the scene, in the place and window of its source."""
        made = slicer.util.loadVolume(str(self.result), {"name": f"{self.source.GetName()} uhrct"})
        made.SetAndObserveTransformNodeID(self.source.GetTransformNodeID())
        shown, own = self.source.GetDisplayNode(), made.GetDisplayNode()
        if shown is not None and own is not None:
            own.SetAutoWindowLevel(False)
            own.SetWindowLevel(shown.GetWindow(), shown.GetLevel())
        return made

    def stop(self):
        """End a run that goes on, and remove its files."""
        if self.run is not None and self.run.poll()[1] is None:
            self.run.cancel()
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)
        self.run = self.folder = None


def show_beside(source, result):
    """Scan on the left, result on the right: the same slice, linked."""
    layout = slicer.app.layoutManager()
    layout.setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutSideBySideView)
    for name, node in (("Red", source), ("Yellow", result)):
        logic = layout.sliceWidget(name).sliceLogic()
        logic.GetSliceNode().SetOrientationToAxial()
        logic.GetSliceCompositeNode().SetBackgroundVolumeID(node.GetID())
        logic.GetSliceCompositeNode().SetLinkedControl(True)
    slicer.util.resetSliceViews()
