"""Whether what was paid for is kept: kills, failing disks, and how long an answer waits for its commit."""
