"""What builds need of this machine, of a cluster and of endpoints, looked up before they start."""
