"""Would everything be recorded? What a model's structure says, and a short run with and without recording."""

from moeprobe.doctor.selftest import SelfTest, self_test
from moeprobe.doctor.survey import Survey, bytes_per_token, survey

__all__ = ["SelfTest", "Survey", "bytes_per_token", "self_test", "survey"]
