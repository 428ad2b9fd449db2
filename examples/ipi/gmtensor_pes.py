"""What i-PI loads: the driver of gmtensor under the names that i-PI looks for."""

from gmcore.engines.ipi import IPIDriver  # noqa: F401

__DRIVER_NAME__ = "gmtensor"
__DRIVER_CLASS__ = "IPIDriver"
