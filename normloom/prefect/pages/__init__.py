"""The pages that a build leaves in Prefect's UI."""
