"""Definitions written for people: starters of new jobs, and what their scripts take. No IO."""
