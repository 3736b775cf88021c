"""Where a job is carried out: here, in this process."""
