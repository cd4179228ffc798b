"""What builds need from this machine, a cluster and endpoints, checked before they start."""
