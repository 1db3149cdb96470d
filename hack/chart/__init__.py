"""What checks the API and the chart, for `make chart-check` and for the tests."""
