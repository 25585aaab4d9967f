"""Other machines than this one: an image, clusters of Ray and Slurm, and a GPU machine for a quarter of an hour."""
