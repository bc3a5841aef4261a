"""The stories, top to bottom: deploy, experiment, teardown."""
