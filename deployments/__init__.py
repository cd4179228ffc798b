"""Where it runs: profiles, schedules, container images, cluster files."""
