"""."""

from .gradients import Gradcheck, gradcheck
from .parity import Verification, verify

__all__ = ["Gradcheck", "Verification", "gradcheck", "verify"]
