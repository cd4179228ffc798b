"""The functions behind the names of `normloom`: build, plan, inspect, results, data as sources."""
