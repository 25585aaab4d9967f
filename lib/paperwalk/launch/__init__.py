"""Many runs of a chapter: one after another, or on a cluster."""
