"""Every system at full size, with random values in the published layouts: see __main__.py."""
