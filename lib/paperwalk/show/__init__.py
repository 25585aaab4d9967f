"""What pages show: figures, tables, controls, self-tests, figures in prose."""
