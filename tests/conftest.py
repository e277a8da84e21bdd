"""Settings that all tests share."""

from hypothesis import settings

# Shared machines are slow at times, and an example that fails must fail again tomorrow.
settings.register_profile("kvloom", deadline=None, derandomize=True)
settings.load_profile("kvloom")
