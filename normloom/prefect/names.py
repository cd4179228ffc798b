"""Settings of Prefect's server by name, for those who do not start one."""

SERVER_PASSWORD = "PREFECT_SERVER_API_AUTH_STRING"  # noqa: S105  # the name of a variable
HEARTBEAT_SECONDS = "30"  # of runs; the automation in deployments/automations.yaml expects it
