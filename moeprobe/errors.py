"""Every error that moeprobe raises on purpose. This module imports nothing.

A message says what happened, where, and what to do next. The command line prints the message alone and exits with
status 1; only a bug shows a traceback.
"""


class MoeprobeError(Exception):
    """Base of all errors a user can cause or mend."""


class PromptError(MoeprobeError):
    """A prompt file is malformed; the message names file and line."""


class TraceError(MoeprobeError):
    """A trace is missing, damaged, incomplete or of an unknown version."""


class FindingsError(MoeprobeError):
    """A findings file is missing, damaged or of an unknown schema version."""


class ProbeError(MoeprobeError):
    """A probe cannot be found, loaded, or breaks its contract."""


class LabelError(MoeprobeError):
    """Imported labels or a labelling sheet are malformed, altered, or fit no generation; the message names the line."""


class ModelError(MoeprobeError):
    """A model cannot be loaded or is not a mixture of experts that moeprobe can read."""


class CaptureError(MoeprobeError):
    """Routing could not be recorded completely; the message names the layer."""


class StatsError(MoeprobeError):
    """The data cannot answer the question that was asked of them."""


class InterchangeError(MoeprobeError):
    """An interchange experiment cannot be run on these pairs or sites."""


class OutputError(MoeprobeError):
    """An output exists already or could not be written."""
