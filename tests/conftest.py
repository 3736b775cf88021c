"""What all tests share: properties are judged by what they find, not by how fast the machine is at the moment."""

from hypothesis import HealthCheck, settings

settings.register_profile("batchllm", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("batchllm")
