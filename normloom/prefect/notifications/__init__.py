"""Who hears of builds: events, blocks and automations of Prefect."""
