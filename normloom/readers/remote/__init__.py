"""Sources that are elsewhere: web servers, buckets, hubs."""
