"""Results of other load generators, and ours in their form: one module a format, and what their figures mean beside ours."""
