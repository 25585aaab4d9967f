"""The book on a bare GPU machine: `pack` makes what it lacks, `runner` runs everything there within some minutes."""
