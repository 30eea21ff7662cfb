"""."""

from .arrays import split
from .call import Call
from .program import Program, compile
from .replay import Replay, parameter_name
from .runner import Runner

__all__ = ["Call", "Program", "Replay", "Runner", "compile", "parameter_name", "split"]
