"""What the names of `normloom` do that are no step of the loom: build, plan, look, results, data as sources."""
