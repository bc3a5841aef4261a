"""Containerised testbeds for measuring publish/subscribe systems on Raspberry Pi clusters."""

__version__ = "0.1.0"
