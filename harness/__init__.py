"""Threads that spin while they wait cost several times the work where cores are shared.

libgomp reads this once, as torch loads it: after that it would be written down and not in force.
"""

import os
import sys

if "torch" not in sys.modules:
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
