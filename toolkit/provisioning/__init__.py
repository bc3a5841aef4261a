"""Makes machines ready."""
