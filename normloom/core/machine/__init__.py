"""The machine: its cache, object storage, proxies, processors, the context of log lines."""
