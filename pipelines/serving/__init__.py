"""What stands between the page and the systems: jobs, storage, and the backends that run them."""
