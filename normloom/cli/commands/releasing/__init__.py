"""Commands about what is released: audits, labels, versions, exports."""
