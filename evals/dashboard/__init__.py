"""A picture of the dashboard from a real run: real server, real Prometheus, the dashboard's own queries."""
