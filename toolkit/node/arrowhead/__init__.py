"""The core systems of an Arrowhead 4.1 local cloud, one process each, and their consumer and provider."""
