"""The console: web pages on the operator's machine that show testbeds and start the controller's stories."""
