"""Scheduling decisions as pure functions over numbers: no engine, no clock, no global."""
