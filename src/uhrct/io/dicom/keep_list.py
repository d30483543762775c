"""What an anonymous file keeps of its source. Everything that is not listed here is removed, at every depth.

Listed are attributes of CT Image, Enhanced CT, Parametric Map and Segmentation (PS3.3) that the basic profile of PS3.15
(table E.1-1) does not name, or for which it asks for a new UID. Values are checked too: see `anonymize.py`.
"""

from __future__ import annotations

from pydicom.datadict import dictionary_VR, tag_for_keyword

#: Classes of objects. Only UIDs that the standard defines stay as they are.
IDENTITY = (
    *("SpecificCharacterSet", "SOPClassUID", "SOPInstanceUID", "Modality", "SeriesInstanceUID", "SeriesNumber"),
    *("StudyInstanceUID", "FrameOfReferenceUID", "ImageType", "InstanceNumber", "AcquisitionNumber"),
    *("AcquisitionUID", "IrradiationEventUID", "ImagesInAcquisition", "AcquisitionDuration"),
    *("TemporalPositionIdentifier", "NumberOfTemporalPositions", "TemporalResolution", "TriggerTime"),
    *("ContentQualification", "VolumetricProperties", "PixelPresentation", "VolumeBasedCalculationTechnique"),
)
PIXELS = (
    *("SamplesPerPixel", "PhotometricInterpretation", "Rows", "Columns", "NumberOfFrames"),
    *("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PixelPaddingValue", "PixelPaddingRangeLimit"),
    *("RescaleSlope", "RescaleIntercept", "WindowCenter", "WindowWidth", "VOILUTFunction", "PresentationLUTShape"),
    *("LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod", "BurnedInAnnotation"),
)
GEOMETRY = (
    *("PixelSpacing", "SliceThickness", "SpacingBetweenSlices", "SliceLocation", "ImagePositionPatient"),
    *("ImageOrientationPatient", "PatientPosition", "Laterality", "BodyPartExamined", "GantryDetectorTilt"),
    *("TableHeight", "ReconstructionDiameter", "DataCollectionDiameter", "DataCollectionCenterPatient"),
    *("ReconstructionTargetCenterPatient", "DistanceSourceToDetector", "DistanceSourceToPatient", "IsocenterPosition"),
)
ACQUISITION = (
    *("KVP", "XRayTubeCurrent", "XRayTubeCurrentInmA", "Exposure", "ExposureInmAs"),
    *("ExposureInuAs", "ExposureTime", "ExposureTimeInms", "ExposureModulationType"),
    *("GeneratorPower", "FocalSpots", "FilterMaterial", "ScanOptions", "RotationDirection", "RevolutionTime"),
    *("SingleCollimationWidth", "TotalCollimationWidth", "TableSpeed", "TableFeedPerRotation", "SpiralPitchFactor"),
    *("CTDIvol", "CalciumScoringMassFactorPatient", "CalciumScoringMassFactorDevice"),
    *("EnergyWeightingFactor", "MultienergyCTAcquisition", "WaterEquivalentDiameter", "AcquisitionType"),
    *("ImageAndFluoroscopyAreaDoseProduct", "TubeAngle", "ConstantVolumeFlag", "FluoroscopyFlag"),
    *("DistanceSourceToDataCollectionCenter", "ReconstructionAlgorithm", "ConvolutionKernelGroup"),
    *("ReconstructionFieldOfView", "ReconstructionAngle", "ReconstructionPixelSpacing", "TablePosition"),
)
#: Free text. These name products, and tell a user how sharp and noisy the scan is.
PRODUCTS = (
    *("Manufacturer", "ManufacturerModelName", "SoftwareVersions", "ConvolutionKernel", "FilterType", "ImageFilter"),
)
FRAMES = (
    *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence", "PixelMeasuresSequence"),
    *("PlanePositionSequence", "PlaneOrientationSequence", "FrameContentSequence", "FrameVOILUTSequence"),
    *("PixelValueTransformationSequence", "CTImageFrameTypeSequence"),
    *("FrameAnatomySequence", "IrradiationEventIdentificationSequence", "CTAcquisitionTypeSequence"),
    *("CTAcquisitionDetailsSequence", "CTTableDynamicsSequence", "CTGeometrySequence", "CTReconstructionSequence"),
    *("CTExposureSequence", "CTXRayDetailsSequence", "CTPositionSequence", "CTAdditionalXRaySourceSequence"),
    *("CardiacSynchronizationSequence", "RespiratorySynchronizationSequence", "TemporalPositionSequence"),
    *("FrameType", "FrameLaterality", "FrameAcquisitionNumber", "FrameAcquisitionDuration"),
    *("InStackPositionNumber", "TemporalPositionIndex", "TemporalPositionTimeOffset"),
    *("NominalCardiacTriggerDelayTime", "ActualCardiacTriggerDelayTime", "NominalPercentageOfCardiacPhase"),
    *("NominalCardiacTriggerTimePriorToRPeak", "ActualCardiacTriggerTimePriorToRPeak", "RRIntervalTimeNominal"),
    *("NominalPercentageOfRespiratoryPhase", "NominalRespiratoryTriggerDelayTime", "RespiratoryCyclePosition"),
    *("CardiacCyclePosition", "AnatomicRegionSequence"),
)
#: Listed attributes, with their value representations.
KEEP: dict[int, tuple[str, ...]] = {
    tag: tuple(dictionary_VR(tag).split(" or "))
    for keyword in (*IDENTITY, *PIXELS, *GEOMETRY, *ACQUISITION, *PRODUCTS, *FRAMES)
    if (tag := tag_for_keyword(keyword)) is not None
}
#: Required attributes that the profile empties.
EMPTIED = (
    *("PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID", "AccessionNumber"),
    *("ReferringPhysicianName", "PositionReferenceIndicator"),
)
