"""Workloads, measurement and replay: how every claim of this project is made."""
