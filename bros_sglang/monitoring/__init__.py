"""Prometheus and Grafana files for a bros server: scrape configuration, alerts, dashboard, compose file."""
