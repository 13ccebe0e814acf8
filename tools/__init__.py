"""What the Makefile, the tests and the benchmarks need around the package: set-up, a test database, docs."""
