"""Commands about releases: audits, labels, versions, exports."""
