"""The owners of the job table: what to do is decided purely, and done at the edge."""
