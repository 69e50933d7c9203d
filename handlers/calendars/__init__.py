"""Calendars and blackouts: which days schedules go by, and when none of them starts a job."""
