"""What the machine has for everything else: a cache, objects in storage, proxies, the context of log lines."""
