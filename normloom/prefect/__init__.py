"""A build in Prefect: its run, its server, its log."""
