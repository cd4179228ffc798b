"""The machine: cache, object storage, files, installed packages, proxies, processors, the context of log lines."""
