"""Task families: one file or folder each. `conf/task/` holds their values, `conf/experiment/` frozen recipes."""
