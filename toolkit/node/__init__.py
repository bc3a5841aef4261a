"""Runs in containers on the nodes."""
