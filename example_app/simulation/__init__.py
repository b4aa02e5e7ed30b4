"""Simulates business: steps of realistic work, the same ones for the same seed.

============  =====================================================
`driver`      chooses a step and a business, and runs one transaction
`steps`       what a business may do in one step
`factories`   finds and makes the records of one business
============  =====================================================
"""

from .driver import Change, Simulation, Step

__all__ = ["Change", "Simulation", "Step"]
