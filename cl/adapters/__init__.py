"""Adapter kinds: functions of (site input, parameters) whose value is added to the frozen block's output."""
