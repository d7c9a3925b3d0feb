"""Models: the manager that leases them, what reads their weights, and the networks."""
